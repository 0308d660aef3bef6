"""Translation of GGUF's names, layouts and metadata to those of the converted models."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor

from flagscope.errors import CorruptFileError

ChangeKind = Literal["rotary", "transpose", "thirds", "plus-one", "latent"]
_CHANGES: tuple[ChangeKind, ...] = ("rotary", "transpose", "thirds", "plus-one")
_NUMBERED = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Change:
    """Change that a converter made to a tensor; `undone` reverses it."""

    kind: ChangeKind
    heads: int

    def shape(self, stored: tuple[int, ...], *others: tuple[int, ...]) -> tuple[int, ...]:
        """Shape after `undone`."""
        if self.kind == "latent":
            heads, rank, keys = stored
            return (heads * (keys + others[0][1]), rank)
        return stored[::-1] if self.kind == "transpose" and len(stored) == 2 else stored

    def undone(self, stored: Tensor, *others: Tensor) -> Tensor:
        """The tensor as the model has it."""
        if self.kind == "latent":
            return torch.cat((stored.mT, *others), 1).flatten(0, 1)
        if self.kind == "transpose":
            return stored.T if stored.ndim == 2 else stored
        if self.kind == "plus-one":
            return stored - 1
        rest = stored.shape[1:]
        if self.kind == "rotary":
            half = stored.shape[0] // self.heads // 2
            return stored.reshape(self.heads, half, 2, *rest).transpose(1, 2).reshape(stored.shape)
        each = stored.shape[0] // 3 // self.heads
        return stored.reshape(3, self.heads, each, *rest).transpose(0, 1).reshape(stored.shape)


@dataclass(frozen=True)
class Naming:
    """The names of one architecture.

    Attributes
    ----------
    modules
        Module names by GGUF's, with {n} for a layer's number and {expert} for that of an expert
        whose tensors were stacked.
    changes
        GGUF names of modules, without their layer, by what happened to them.
    latent
        GGUF names of the two modules, keys and values of each head, into which one was split;
        `modules` has its name under the first one's.
    """

    modules: Mapping[str, str]
    changes: Mapping[ChangeKind, tuple[str, ...]]
    latent: tuple[str, ...] = ()

    def name(self, stored: str, expert: int | None = None) -> str:
        """The model's name of a tensor."""
        module, _, kind = stored.rpartition(".")
        number, plain = _split(module)
        template = self.modules.get(plain)
        if template is None:
            return stored
        return f"{template.replace('{n}', number).replace('{expert}', str(expert))}.{kind}"

    def stacked(self, stored: str) -> bool:
        """Whether a tensor holds those of all experts."""
        return "{expert}" in self.modules.get(_split(stored.rpartition(".")[0])[1], "")

    def other_half(self, stored: str) -> str | None:
        """Name of the values' part, where a tensor is the keys' part of a split one."""
        module, _, kind = stored.rpartition(".")
        at, _, last = module.rpartition(".")
        if len(self.latent) != 2 or last != self.latent[0]:
            return None
        return f"{at}.{self.latent[1]}.{kind}"

    def change(self, stored: str, heads: int, kv_heads: int) -> Change | None:
        """Conversion of a tensor, if there was one."""
        module, _, kind = stored.rpartition(".")
        last = _split(module)[1].removeprefix("blk.{n}.")
        for change, modules in self.changes.items():
            if change == "plus-one":
                if last.endswith(modules) and kind == "weight":
                    return Change(change, 1)
            elif last in modules:
                return Change(change, kv_heads if last == "attn_k" else heads)
        return None


def _split(module: str) -> tuple[str, str]:
    match = _NUMBERED.fullmatch(module)
    return (match[1], "blk.{n}." + match[2]) if match else ("", module)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(
        files("flagscope.checkpoint.gguf").joinpath("names.toml").read_text("utf-8")
    )


def namings() -> tuple[str, ...]:
    """The architectures whose names are known."""
    return tuple(_table()["architectures"])


def _entry(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Entry of an architecture, or of its variant that these metadata describe."""
    architecture = metadata.get("general.architecture")
    entry = _table()["architectures"].get(architecture) if isinstance(architecture, str) else None
    for variant in (entry or {}).get("variants", ()):
        value = metadata.get(f"{architecture}.{variant['key']}")
        if isinstance(value, int) and value >= variant["least"]:
            return _table()["variants"][variant["use"]]
    return entry


def naming(metadata: Mapping[str, Any]) -> Naming | None:
    """Tensor names of the architecture that the metadata name; None if they are not known."""
    entry = _entry(metadata)
    if entry is None:
        return None
    modules: dict[str, str] = {}
    names: str | None = entry["names"]
    while names is not None:
        own = _table()["names"][names]
        modules = {**own, **modules}
        names = own.get("extends")
    changes: dict[ChangeKind, tuple[str, ...]] = {
        kind: tuple(entry[kind]) for kind in _CHANGES if kind in entry
    }
    return Naming(modules, changes, tuple(entry.get("latent", ())))


def model_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A config as transformers would have it, as far as the metadata say."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        return {}
    entry = _entry(metadata) or {}
    config: dict[str, Any] = {"model_type": entry.get("model_type", architecture)}
    for key, targets in _table()["config"].items():
        value = metadata.get(f"{architecture}.{key}")
        if value is not None:
            config |= dict.fromkeys(targets, value)
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    turned = metadata.get(f"{architecture}.rope.dimension_count")
    head = config.get("head_dim")
    if head is None and _positive(heads) and _positive(width):
        head = width // heads
    if "kv_lora_rank" in config:
        return config | _latent_sizes(metadata, architecture)
    if _positive(turned) and _positive(head) and turned <= head:
        config |= dict.fromkeys(("partial_rotary_factor", "rotary_pct"), turned / head)
    return config


def _latent_sizes(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Sizes of a head of latent attention.

    Newer converters write it as one key-value head of the latent dimensions, and the sizes of the
    heads under keys of their own.
    """

    def told(key: str) -> Any:
        short = metadata.get(f"{architecture}.attention.{key}")
        return metadata.get(f"{architecture}.attention.{key}_mla", short)

    key, value = told("key_length"), told("value_length")
    turned = metadata.get(f"{architecture}.rope.dimension_count")
    sizes = {"head_dim": None, "num_key_value_heads":
             metadata.get(f"{architecture}.attention.head_count")}  # fmt: skip
    if _positive(turned) and _positive(key) and turned < key:
        sizes |= {"qk_rope_head_dim": turned, "qk_nope_head_dim": key - turned}
    return sizes | ({"v_head_dim": value} if _positive(value) else {})


def head_counts(metadata: Mapping[str, Any], *, source: str) -> tuple[int, int]:
    """Query and key-value heads that the metadata give; 1 where they do not.

    Raises
    ------
    CorruptFileError
        If a count is not a positive number.
    """
    architecture = metadata.get("general.architecture")
    heads = metadata.get(f"{architecture}.attention.head_count", 1)
    kv_heads = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    if not (_positive(heads) and _positive(kv_heads)):
        raise CorruptFileError(
            f"{source} has {heads!r} attention heads and {kv_heads!r} key-value heads.",
            hint="a number for each layer is not supported; convert the file again otherwise.",
        )
    return heads, kv_heads


def _positive(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
