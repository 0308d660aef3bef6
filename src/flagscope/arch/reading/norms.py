"""Finds the norms before the blocks of a stack, if the tensors determine them.

Residual pairs need them: the gain of a norm between the stream and its readers is folded into the
readers. Names such as norm1 are the same in pre-norm and post-norm layers, both of which may have a
last norm after the stack; and a norm in the module of a block may be applied to the sum. Evidence:

- names: "pre" in both, Llama's input_layernorm with post_attention_layernorm, and GPT-2's ln_1 and
  ln_2 with ln_f;
- position: a norm next to the module ``fn`` that holds the block, as in PreNorm(fn), or in a
  numbered list before the block's first map. One block has that form, the other a norm in its
  module.

The layer may not hold any other vector of the stream's length: scales of blocks and further norms
would change what is folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flagscope.arch.reading.feedforward import MlpBlock
from flagscope.arch.reading.layers import Stack
from flagscope.arch.reading.modules import Module
from flagscope.arch.reading.proposals import AttentionBlock

UNSEEN = (
    "no residual pairs: that a norm stands in front of each block, and which one, does not follow "
    "from the tensors"
)
_NORM = r"(?:ln|norm|layer_?norm|rms_?norm)"
_ATTENTION = r"(?:self_?)?(?:attn|attention|att|sa|mixer)"
_MLP = r"(?:mlp|ffn?|ffwd|feed_?forward)"
_PRE = tuple(
    re.compile(rf"pre_?{block}_?{_NORM}|{_NORM}_?pre_?{block}|pre_?{_NORM}_?(?:{number}|{block})|"
               rf"{block}_?pre_?{_NORM}")
    for block, number in ((_ATTENTION, "[1a]"), (_MLP, "[2b]"))
)  # fmt: skip
_LLAMA = (("input_layernorm",), ("post_attention_layernorm",))
_GPT2 = (("ln_1", "ln1"), ("ln_2", "ln2"))
_GPT2_LAST = ("ln_f", "ln_final", "lnf")
_HEADS = re.compile(r"(?:^|[._])[qk](?:_|$)|query|key")
_STORED = (("weight", "bias"), ("w", "b"), ("scale", "shift"), ("gamma", "beta"))


@dataclass(frozen=True)
class BlockNorm:
    """A norm before a block.

    Attributes
    ----------
    module
        Its name relative to the layer.
    kind
        Kind of norm.
    stored
        Names of its gain and bias.
    """

    module: str
    kind: str
    stored: tuple[str, str]


def norms_in_front(root: Module, stack: Stack) -> tuple[BlockNorm, BlockNorm] | None:
    """The norms before attention and MLP; None if the tensors do not determine them.

    They must be the same in every layer.
    """
    if len(stack.attention) != 1 or len(stack.mlp) != 1 or len(stack.layers) < 1:
        return None
    (attention,), (mlp,) = stack.attention.values(), stack.mlp.values()
    norms = None
    for numbers in stack.layers:
        layer = root.at(stack.base(numbers).rstrip("."))
        norms_of_layer = (
            _of_layer(root, stack, layer, attention, mlp) if layer is not None else None
        )
        if norms_of_layer is None or (norms is not None and norms_of_layer != norms):
            return None
        norms = norms_of_layer
    return norms


def _of_layer(
    root: Module, stack: Stack, layer: Module, attention: AttentionBlock, mlp: MlpBlock
) -> tuple[BlockNorm, BlockNorm] | None:
    vectors = dict(_vectors(layer, stack.d))
    if len(vectors) != 2:
        return None
    named = _by_names(root, stack, tuple(vectors))
    names = named or _by_place(stack, vectors, attention, mlp)
    if names is None or set(names) != set(vectors):
        return None
    first, second = (_block_norm(vectors[name], name) for name in names)
    return (first, second) if first is not None and second is not None else None


def _by_names(root: Module, stack: Stack, names: Sequence[str]) -> tuple[str, str] | None:
    """The two norms, if their names say that they come first."""
    for first, second in (names, names[::-1]):
        plain = first.lower(), second.lower()
        pre = all(pattern.fullmatch(name) for pattern, name in zip(_PRE, plain, strict=True))
        llama = all(name in known for name, known in zip(plain, _LLAMA, strict=True))
        gpt2 = all(name in known for name, known in zip(plain, _GPT2, strict=True))
        if pre or llama or (gpt2 and _last_norm(root, stack)):
            return first, second
    return None


def _last_norm(root: Module, stack: Stack) -> bool:
    """Whether a norm of the stream's width has the name of GPT-2's last norm."""
    over = stack.path.partition("{")[0].rstrip(".").rpartition(".")[0]
    places = (root, root.at(over))
    return any(
        child.vector == stack.d and name.lower() in _GPT2_LAST
        for module in places if module is not None for name, child in module.children.items()
    )  # fmt: skip


def _by_place(
    stack: Stack, norms: Mapping[str, Module], attention: AttentionBlock, mlp: MlpBlock
) -> tuple[str, str] | None:
    """The two norms, if they come before the content of the blocks' modules."""
    blocks = (
        [role.matrix.tensor for role in attention.maps.values()],
        [matrix.tensor for matrix in mlp.maps.values()],
    )
    chosen, shown = [], False
    for tensors in blocks:
        paths = [_relative(name, stack).split(".") for name in tensors]
        inner = _shared(paths)
        wrapped = "fn" in inner
        over = ".".join(inner[: inner.index("fn")] if wrapped else inner)
        near = [name for name in norms if over and name.startswith(f"{over}.")]
        if len(near) != 1:
            return None
        (norm,) = near
        depth = len(over.split("."))
        relative = norm.split(".")[depth:]
        numbers = [path[depth] for path in paths if len(path) > depth]
        listed = len(relative) == 1 and all(n.isdigit() for n in (*relative, *numbers))
        if listed and int(relative[0]) > min(map(int, numbers)):
            return None
        shown = shown or listed or (wrapped and len(relative) == 1)
        chosen.append(norm)
    return (chosen[0], chosen[1]) if shown else None


def _shared(paths: Sequence[Sequence[str]]) -> list[str]:
    """The common prefix of the paths of several tensors: the module that holds them all."""
    shared = []
    for parts in zip(*(path[:-1] for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _relative(tensor: str, stack: Stack) -> str:
    for numbers in stack.layers:
        base = stack.base(numbers)
        if tensor.startswith(base):
            return tensor.removeprefix(base)
    return tensor


def _vectors(layer: Module, d: int) -> Iterator[tuple[str, Module]]:
    """Modules of the layer with a vector of the stream's length that is not a map's bias.

    Norms of queries and keys are left out.
    """
    for module in layer.walk():
        name = module.path.removeprefix(f"{layer.path}." if layer.path else "")
        name = "" if module is layer else name
        if any(length == d for _, length in module.vectors) and not _HEADS.search(name):
            yield name, module


def _block_norm(module: Module, name: str) -> BlockNorm | None:
    """The norm in a module: a LayerNorm if it has a bias; without one, the name decides."""
    for gain, shift in _STORED:
        if gain in module.tensors and set(module.tensors) <= {gain, shift}:
            if shift in module.tensors:
                return BlockNorm(name, "layernorm", (gain, shift))
            return BlockNorm(name, "rmsnorm", (gain, shift)) if "rms" in name.lower() else None
    return None
