"""Operations on single entries: activations, sums, products, and pooling over positions."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch import fx

from flagscope.arch.trace.axes import Axis, Dims, holders, plain, size_of
from flagscope.arch.trace.flow import Flow
from flagscope.arch.trace.nodes import argument, held, name_of, shape
from flagscope.arch.trace.values import Degree, Term, Value

# Positively homogeneous of degree one.
HOMOGENEOUS = frozenset({"relu", "leaky_relu"})


def pointwise(node: fx.Node) -> bool:
    """Whether an operation acts on each entry of one tensor separately."""
    if not isinstance(node.target, torch._ops.OpOverload) or len(node.all_input_nodes) != 1:
        return False
    tags = node.target.tags
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags


def unary(flow: Flow, node: fx.Node) -> Any:
    """Handle an activation, or any other function of single entries."""
    if len(node.all_input_nodes) != 1 or node.args[0] is not node.all_input_nodes[0]:
        return None
    name = name_of(node)
    degree: Degree = "scaling" if name in HOMOGENEOUS else "permutation"
    if name == "neg":
        return flow.value(node.args[0]).through("gl")
    if name == "gelu" and argument(node, 1, "approximate", "none") == "tanh":
        name = "gelu_pytorch_tanh"
    if name == "hardtanh" and (argument(node, 1, "", -1), argument(node, 2, "", 1)) == (0, 6):
        name = "relu6"
    return flow.value(node.args[0]).through(degree, name)


def _prelu(flow: Flow, node: fx.Node) -> Any:
    if shape(node.args[1]) not in ((), (1,)):
        return None
    flow.value(node.args[1])
    return flow.value(node.args[0]).through("scaling", "prelu")


def _add(flow: Flow, node: fx.Node) -> Any:
    first, second = node.args[:2]
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        array, number = (first, second) if isinstance(first, fx.Node) else (second, first)
        return flow.value(array).through("gl" if number == 0 else "permutation", "shift")
    a, b = flow.value(first), flow.value(second)
    if not a.terms or not b.terms:
        return _with_foreign(flow, a, b, node, product=False)
    if _one_function(a, b):
        combined = a.terms[0].through(b.terms[0].degree)
        degree: Degree = "gl" if not (a.terms[0].passed or b.terms[0].passed) else "scaling"
        return _joined_paths(a, b, combined.through(degree))
    flow.ledger.join(a)
    flow.ledger.join(b)
    dims = _common(a, b, shape(node))
    if dims is None:
        return Value(plain(shape(node)))
    terms = tuple(_after_norm(t, v) for v in (a, b) for t in v.terms)
    # writers already read on the way to the other summand meet there; the others meet here
    fresh = tuple(t for t in terms if t.use not in flow.ledger.read_uses)
    return Value(dims, fresh or terms, stream=True)


def _mul(flow: Flow, node: fx.Node) -> Any:
    first, second = node.args[:2]
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return flow.value(first if isinstance(first, fx.Node) else second).through("gl")
    a, b = flow.value(first), flow.value(second)
    if not a.terms or not b.terms:
        return _with_foreign(flow, a, b, node, product=True)
    if _one_function(a, b):
        combined = a.terms[0].through(b.terms[0].degree).through("permutation", "product")
        return _joined_paths(a, b, combined)
    dims = _common(a, b, shape(node))
    if dims is None or a.stream or b.stream or _repeats(a, b):
        return None
    terms = tuple(t.through("scaling") for v in (a, b) for t in v.terms)
    return Value(dims, terms, product=True)


def _div(flow: Flow, node: fx.Node) -> Any:
    first, second = node.args[:2]
    if not isinstance(first, fx.Node) or len(node.args) > 2 or node.kwargs:
        return None
    if not isinstance(second, fx.Node):
        return flow.value(first).through("gl")
    a, b = flow.value(first), flow.value(second)
    return None if b.terms else _with_foreign(flow, a, b, node, product=True)


def _with_foreign(flow: Flow, a: Value, b: Value, node: fx.Node, *, product: bool) -> Any:
    """Handle a sum or product of channels with a tensor without known channels."""
    value, foreign = (a, b) if a.terms else (b, a)
    scores = a.scores if a.scores is not None else b.scores
    if not value.terms:
        return Value(plain(shape(node)), scores=scores, origin=node.name)
    dims = _common(value, foreign, shape(node))
    if dims is None:
        return None
    offset = len(dims) - len(foreign.dims)
    sizes = [size_of(dim) for dim in foreign.dims]
    alike = all(dimension < offset or sizes[dimension - offset] == 1 for dimension in holders(dims))
    if alike:  # equal for all channels
        if product:
            return value.through("gl", dims=dims)
        return value.through("permutation", "shift", dims=dims)
    if product:
        return value.through("none", "scaled", dims=dims)
    flow.ledger.join(value)
    terms = tuple(_after_norm(term, value) for term in value.terms)
    return Value(dims, terms, stream=True)


def _where(flow: Flow, node: fx.Node) -> Any:
    """Handle masked_fill with a mask that is equal for all channels."""
    if not isinstance(node.args[1], fx.Node):
        return None
    value, mask = flow.value(node.args[0]), flow.value(node.args[1])
    if not value.terms:
        scores = value.scores
        return Value(plain(shape(node)), scores=scores, origin=node.name)
    dims = _common(value, mask, shape(node))
    offset = len(value.dims) - len(mask.dims)
    if mask.terms or dims is None or any(
        dimension >= offset and size_of(mask.dims[dimension - offset]) != 1
        for dimension in holders(dims)
    ):  # fmt: skip
        return None
    if node.args[2] == 0:
        return value.through("gl", dims=dims)
    return value.through("permutation", "shift", dims=dims)


def _after_norm(term: Term, value: Value) -> Term:
    return term.through("none", "norm") if value.norm is not None else term


def _one_function(a: Value, b: Value) -> bool:
    """Whether both are elementwise functions of the channels of the same single writer."""
    if len(a.terms) != 1 or len(b.terms) != 1 or a.stream or b.stream or a.dims != b.dims:
        return False
    first, second = a.terms[0], b.terms[0]
    same = (first.use, first.offset, first.norm, first.heads) == (
        second.use,
        second.offset,
        second.norm,
        second.heads,
    )
    return same and not (a.norm or b.norm)


def _joined_paths(a: Value, b: Value, term: Term) -> Value:
    for name in b.terms[0].passed:
        term = term.through("gl", name)
    return Value(a.dims, (term,), product=a.product or b.product)


def _repeats(a: Value, b: Value) -> bool:
    return bool({(t.use, t.offset) for t in a.terms} & {(t.use, t.offset) for t in b.terms})


def _common(a: Value, b: Value, target: tuple[int, ...]) -> Dims | None:
    """The dimensions of a broadcast result; None if channels of different layout meet."""
    dims: list[tuple[Axis, ...]] = []
    for dimension, extent in enumerate(target):
        aligned = [_aligned(value, dimension - len(target) + len(value.dims)) for value in (a, b)]
        held = [dim for dim in aligned if any(axis.channel and axis.size > 1 for axis in dim)]
        met = bool(held) and bool(a.terms) and bool(b.terms)
        if any(dim != held[0] for dim in held) or (met and len(held) < 2):
            return None
        dims.append(held[0] if held else (Axis(extent),))
    return tuple(dims)


def _aligned(value: Value, dimension: int) -> tuple[Axis, ...]:
    return value.dims[dimension] if dimension >= 0 else ()


def _pool(flow: Flow, node: fx.Node) -> Any:
    """Handle pooling, resampling and padding over last dimensions without channels."""
    name = name_of(node)
    value = flow.value(node.args[0])
    before, after = shape(node.args[0]), shape(node)
    several = isinstance(held(node), (list, tuple))
    if several:
        after = tuple(int(n) for n in held(node)[0].shape)
    if len(before) != len(after):
        return None
    changed = {i for i, (x, y) in enumerate(zip(before, after, strict=True)) if x != y}
    digits = [int(c) for c in name if c.isdigit()]
    if digits:
        changed |= set(range(len(before) - digits[-1], len(before)))
    elif name in ("constant_pad_nd", "pad"):
        sides = argument(node, 1, "pad", ())
        if not isinstance(sides, (list, tuple)):
            return None
        changed |= {len(before) - 1 - i // 2 for i, n in enumerate(sides) if n}
    if changed & set(holders(value.dims)):
        return None
    dims = tuple((Axis(after[i]),) if i in changed else d for i, d in enumerate(value.dims))
    result = value.through(*_pooled(name, node), dims=dims)
    return [result, None] if several else result


def _pooled(name: str, node: fx.Node) -> tuple[Degree, str | None]:
    if "max_pool" in name:
        return "scaling", "max_pool"
    if name in ("constant_pad_nd", "pad"):
        position, mode = (
            (2, "constant") if name == "constant_pad_nd" else (3, argument(node, 2, "mode"))
        )
        filled = mode in (None, "constant") and (argument(node, position, "value", 0) or 0) != 0
        return ("permutation", "shift") if filled else ("gl", None)
    return "gl", None


def _reduced(flow: Flow, node: fx.Node) -> Any:
    """Handle mean, sum and maximum over dimensions without channels."""
    value = flow.value(node.args[0])
    chosen = argument(node, 1, "dim")
    count = len(value.dims)
    many = chosen if isinstance(chosen, (list, tuple)) else [] if chosen is None else [chosen]
    gone = {int(i) % count for i in many}  # pyright: ignore[reportArgumentType]
    if not gone or gone & set(holders(value.dims)):
        return None
    keep = bool(argument(node, 2, "keepdim", False))
    dims = tuple(
        () if i in gone else dim for i, dim in enumerate(value.dims) if keep or i not in gone
    )
    if name_of(node) in ("amax", "amin"):
        return value.through("scaling", "max_pool", dims=dims)
    return value.through("gl", dims=dims)


def _softmax(flow: Flow, node: fx.Node) -> Any:
    value = flow.value(node.args[0])
    if not value.terms:
        return replace(value, norm=None, origin=node.name)
    return value.through("none", "softmax")


def _glu(flow: Flow, node: fx.Node) -> Any:
    """Handle a · sigmoid(b) for the two halves of one tensor."""
    value = flow.value(node.args[0])
    dimension = int(argument(node, 1, "dim", -1)) % len(value.dims)
    dim = value.dims[dimension]
    alone = len(value.terms) == 1 and not value.stream and holders(value.dims) == (dimension,)
    if not alone or len(dim) != 1 or dim[0].stride is None:
        return None
    half = dim[0].size // 2
    dims = (*value.dims[:dimension], (Axis(half, dim[0].stride),), *value.dims[dimension + 1 :])
    up = value.terms[0].through("scaling")
    gate = replace(up, offset=up.offset + half * dim[0].stride).through("permutation", "sigmoid")
    return Value(dims, (up, gate), product=True)


def _clamp(flow: Flow, node: fx.Node) -> Any:
    low, high = argument(node, 1, "min"), argument(node, 2, "max")
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        return None
    relu = low == 0 and high in (None, inf)
    value = flow.value(node.args[0])
    return value.through("scaling", "relu") if relu else value.through("permutation", "clamp")


_POOLS = tuple(
    f"{kind}_pool{n}d{more}"
    for n in (1, 2, 3)
    for kind, more in (("max", ""), ("max", "_with_indices"), ("avg", ""), ("adaptive_avg", ""),
                       ("adaptive_max", ""))
)  # fmt: skip
_RESAMPLED = ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
              "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d")  # fmt: skip
_PADS = ("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
         "replication_pad2d")  # fmt: skip

HANDLERS = {
    "add": _add, "sub": _add, "mul": _mul, "div": _div, "prelu": _prelu,
    "masked_fill": _where, "glu": _glu,
    "clamp": _clamp, "clamp_min": _clamp,
    **dict.fromkeys((*_POOLS, *_RESAMPLED, *_PADS), _pool),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduced),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax"), _softmax),
}  # fmt: skip
