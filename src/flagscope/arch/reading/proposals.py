"""Proposes matrices as the maps of attention blocks, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flagscope.arch.reading.modules import Matrix, Module, joined
from flagscope.arch.reading.words import is_output, may_be_output, role_of

_KEY_VALUE = re.compile(r"(?:to_?|w_?|c_?|in_?)?kv(?:_?(?:proj|linear|lin|attn))?")
# Parts of state-space layers and long convolutions, which name their first map in_proj too.
_STATE = re.compile(r"a_log|dt_\w+|\w*filter\w*|\w*decay\w*|lambda\w*|conv1d|\w*conv")
_IN = re.compile(r"in_?proj")


@dataclass(frozen=True)
class RoleMap:
    """One role of a block: its matrix, the layout, and the part of the matrix."""

    matrix: Matrix
    layout: str
    select: Mapping[str, int] = field(default_factory=dict)
    out: str | None = None
    inp: str | None = None


@dataclass(frozen=True)
class AttentionBlock:
    """An attention block as read.

    Attributes
    ----------
    parent
        Path of the module that holds it.
    maps
        q, k, v, and o if there is one.
    cross
        Whether keys and values read a different stream than queries.
    d
        Width of the stream.
    """

    parent: str
    maps: Mapping[str, RoleMap]
    cross: bool
    d: int


@dataclass(frozen=True)
class Proposal:
    """Matrices proposed by name for the roles, and candidates for the output map."""

    parent: str
    roles: Mapping[str, Matrix]
    outputs: tuple[tuple[Matrix, ...], ...]  # by distance in the tree, the nearest first
    heads: int | None = None  # number of heads, if each matrix is one head


def proposal(
    parent: str, siblings: Sequence[Matrix], groups: Mapping[str, list[Matrix]]
) -> Proposal | None:
    """The roles that the names of a module's matrices propose; None without attention names."""
    roles: dict[str, Matrix] = {}
    for matrix in siblings:
        role = role_of(matrix.name) or ("kv" if _KEY_VALUE.fullmatch(matrix.name.lower()) else None)
        if role is None:
            continue
        if role in roles:
            return None
        roles[role] = matrix
    complete = {"q", "k", "v"} <= set(roles) or {"q", "kv"} <= set(roles)
    if complete:
        roles.pop("qkv", None)
        roles.pop("kv", None) if "k" in roles else None
    elif "qkv" in roles:
        roles = {"qkv": roles["qkv"]}
    else:
        return None
    return Proposal(parent, roles, output_candidates(parent, set(roles.values()), groups))


def contradicted(proposal: Proposal, module: Module | None) -> bool:
    """Whether a module holds tensors that attention with these maps does not have.

    A depthwise convolution over queries, keys or values would come between; a long convolution or a
    state-space layer may name its first map as attention does.
    """
    maps = set(proposal.roles.values())
    sizes = {size for matrix in maps for size in matrix.shape}
    named = any(_IN.fullmatch(matrix.name.lower()) and matrix.joint == "." for matrix in maps)
    for inner in module.walk() if module is not None else ():
        for matrix in inner.own:
            if len(matrix.shape) > 2 and matrix.shape[1] == 1 and matrix.shape[0] in sizes:
                return True
        if named and any(_STATE.fullmatch(part.lower())
                         for part in (inner.name, *inner.tensors)):  # fmt: skip
            return True
    return False


def output_candidates(
    parent: str, taken: set[Matrix], groups: Mapping[str, list[Matrix]]
) -> tuple[tuple[Matrix, ...], ...]:
    """Candidates for the output map: named siblings, those below, those one level up, any."""
    siblings = [matrix for matrix in groups.get(parent, ()) if matrix not in taken]
    named = tuple(matrix for matrix in siblings if is_output(matrix.name))
    below = tuple(
        matrix for child in ("to_out", "out", "output", "out_proj", "proj", "o", "dense")
        for matrix in groups.get(joined(parent, child), ())
    )  # fmt: skip
    above_path, _, _ = parent.rpartition(".")
    above: list[Matrix] = []
    if parent:
        above = [matrix for matrix in groups.get(above_path, ()) if is_output(matrix.name)]
        for child in ("output", "out", "to_out", "proj"):
            above += groups.get(joined(above_path, child), ())
    left = tuple(matrix for matrix in siblings if may_be_output(matrix.name))
    return named, below, tuple(matrix for matrix in above if matrix not in taken), left
