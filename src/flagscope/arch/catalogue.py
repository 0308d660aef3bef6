"""Lists the families that ship with the package, and what is proven of each."""

from __future__ import annotations

from dataclasses import dataclass

from flagscope.arch.registry import Proof, proofs
from flagscope.arch.rules import Family, load_families


@dataclass(frozen=True)
class FamilyInfo:
    """Summary of a family file, and what is proven of the family."""

    name: str
    title: str
    model_types: tuple[str, ...]
    pairs: tuple[str, ...]
    proof: Proof | None = None


def families() -> tuple[FamilyInfo, ...]:
    """The families that ship with the package, sorted by name.

    References
    ----------
    Each is a TOML file in the folder next to this module.

    Examples
    --------
    >>> [one.title for one in families() if one.name == "gpt2"]
    ['GPT-2']
    """
    return tuple(
        FamilyInfo(
            family.name,
            family.title,
            family.model_types,
            _pair_kinds(family),
            proofs().get(family.name),
        )
        for family in load_families().values()
    )


def _pair_kinds(family: Family) -> tuple[str, ...]:
    kinds: list[str] = ["sequential"] if family.chain else []
    for stack in family.stacks:
        kinds += ["qk", "ov"] if stack.attention else []
        kinds += ["latent"] if stack.latent else []
        kinds += ["mlp"] if stack.mlp else []
        kinds += ["conv"] if stack.sequence else []
        kinds += ["residual"] if stack.stream or stack.has_stream else []
    return tuple(dict.fromkeys(kinds))
