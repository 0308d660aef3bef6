"""Which norms stand in front of the blocks of a stack, where the tensors show it.

Residual pairs need that: the gain of a norm between the stream and its readers is folded into them.
Names such as norm1 are the same in pre-norm and post-norm layers. A norm within the block's own
module stands in front of it; two outside of the blocks do where a last norm stands behind the
stack, which a post-norm model has no use for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flagscope.arch.reading.layers import Stack
from flagscope.arch.reading.modules import Module, joined

UNSEEN = (
    "no residual pairs: that a norm stands in front of each block, and which one, does not follow "
    "from the tensors"
)
_FIRST = re.compile(
    r"(?:ln|norm|layer_?norm|rms_?norm|rms|n)_?[1a]|(?:pre_?)?(?:attn|attention|att|sa|mixer)_?"
    r"(?:ln|norm|layer_?norm|rms_?norm)|(?:ln|norm|rms_?norm)_?(?:attn|attention|att|sa)|"
    r"(?:pre|input)_?(?:attn_?|attention_?)?(?:ln|norm|layer_?norm|rms_?norm)"
)
_SECOND = re.compile(
    r"(?:ln|norm|layer_?norm|rms_?norm|rms|n)_?[2b]|(?:pre_?)?(?:mlp|ffn?|ffwd|feed_?forward)_?"
    r"(?:ln|norm|layer_?norm|rms_?norm)|(?:ln|norm|rms_?norm)_?(?:mlp|ffn?|feed_?forward)"
)
_LAST = re.compile(
    r"(?:ln|norm|layer_?norm|rms_?norm)_?(?:f|final|out|last|head|post)?|"
    r"(?:final|last|out|output|head|post|f)_?(?:ln|norm|layer_?norm|rms_?norm)"
)


@dataclass(frozen=True)
class BlockNorm:
    """A norm in front of a block: its name relative to the layer, and its kind."""

    module: str
    kind: str


def norms_in_front(root: Module, stack: Stack) -> tuple[BlockNorm, BlockNorm] | None:
    """The norms in front of attention and MLP, None where the tensors do not show them.

    They must be the same in every layer.
    """
    if len(stack.attention) != 1 or len(stack.mlp) != 1 or len(stack.layers) < 1:
        return None
    (attention,), (mlp,) = stack.attention.values(), stack.mlp.values()
    first = stack.base(next(iter(stack.layers)))
    inner = _relative(attention.parent, stack), _mlp_module(mlp.parent, stack)
    vectors = dict(_vectors(root, first, stack.d))
    within = [_within(vectors, module) for module in inner]
    if all(within):
        found = within
    else:
        outside = [name for name in vectors if "." not in name]
        named = [
            [n for n in outside if pattern.fullmatch(n.lower())] for pattern in (_FIRST, _SECOND)
        ]
        if len(outside) != 2 or [len(one) for one in named] != [1, 1]:
            return None
        pre = all("pre" in one[0].lower() for one in named)
        if not pre and (not _last_norm(root, stack) or _torch_layer(stack)):
            return None
        found = [one[0] for one in named]
    kinds = [_kind(vectors[name], name) for name in found if name]
    alike = all(
        _module_at(root, joined(stack.base(numbers).rstrip("."), name or "")) is not None
        for numbers in stack.layers for name in found
    )  # fmt: skip
    if not alike or None in kinds or len(kinds) != 2:
        return None
    one, two = (BlockNorm(name or "", kind or "") for name, kind in zip(found, kinds, strict=True))
    return one, two


def _relative(path: str, stack: Stack) -> str:
    for numbers in stack.layers:
        base = stack.base(numbers)
        if f"{path}.".startswith(base):
            return path.removeprefix(base)
    return path


def _mlp_module(parent: str, stack: Stack) -> str:
    inner = _relative(parent, stack)
    return "" if f"{inner}." == stack.base(next(iter(stack.layers))) or inner == parent else inner


def _vectors(root: Module, base: str, d: int) -> Iterator[tuple[str, Module]]:
    """Modules of one vector as long as the stream is wide, by their names in the layer."""
    layer = _module_at(root, base.rstrip("."))
    for module in layer.walk() if layer else ():
        if module.vector == d and module.batchnorm is None and module.path != base.rstrip("."):
            yield module.path.removeprefix(base), module


def _within(vectors: Mapping[str, Module], module: str) -> str | None:
    """The one norm in a block's own module, which must not be one of queries or keys."""
    if not module:
        return None
    inside = [name for name in vectors if name.startswith(f"{module}.")]
    plain = [name for name in inside if not re.search(r"(?:^|[._])[qkv](?:_|$)|query|key", name)]
    return plain[0] if len(inside) == len(plain) == 1 else None


def _last_norm(root: Module, stack: Stack) -> bool:
    """Whether a norm of the stream's width stands outside of the layers, named as a last one."""
    over = stack.path.partition("{")[0].rstrip(".").rpartition(".")[0]
    places: Sequence[Module | None] = (root, _module_at(root, over))
    return any(
        child.vector == stack.d and _LAST.fullmatch(name.lower())
        for place in places if place is not None for name, child in place.children.items()
    )  # fmt: skip


def _torch_layer(stack: Stack) -> bool:
    """torch's own layers may be pre-norm or post-norm, with a last norm in both cases."""
    names = {name for rule in (*stack.attention, *stack.mlp) for _, name, _ in rule}
    return any("in_proj" in name for name in names) and any("linear1" in name for name in names)


def _kind(module: Module, name: str) -> str | None:
    """A bias is LayerNorm's; without one only the name can tell."""
    if {"bias", "b", "beta"} & set(module.tensors):
        return "layernorm"
    return "rmsnorm" if "rms" in name.lower() else None


def _module_at(root: Module, path: str) -> Module | None:
    module: Module | None = root
    for part in path.split(".") if path else ():
        module = module.children.get(part) if module else None
    return module
