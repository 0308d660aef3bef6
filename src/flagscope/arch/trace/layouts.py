"""Operations that only move entries: reshapes, transpositions, slices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from flagscope.arch.trace.axes import Axis, Dims, holders, plain, reshaped
from flagscope.arch.trace.flow import Flow
from flagscope.arch.trace.nodes import argument, held, name_of, shape
from flagscope.arch.trace.values import Value, Weight

_ZEROS = frozenset({"zeros", "new_zeros", "zeros_like"})


def _same_order(flow: Flow, node: fx.Node) -> Any:
    """Handle operations that keep the row-major order of the entries."""
    weight = flow.weight(node.args[0])
    if weight is not None:
        return weight if shape(node) == shape(node.args[0]) else None
    value = flow.value(node.args[0])
    dims = reshaped(value.dims, shape(node))
    return None if dims is None else value.laid_out(dims)


def _dropout(flow: Flow, node: fx.Node) -> Any:
    return None if argument(node, 2, "train", False) else _same_order(flow, node)


def _permuted(flow: Flow, node: fx.Node) -> Any:
    count = len(shape(node.args[0]))
    order = list(range(count))
    chosen = argument(node, 1, "dims")
    if isinstance(chosen, (list, tuple)):
        order = [int(i) % count for i in chosen]  # pyright: ignore[reportArgumentType]
    elif count >= 2:  # t, numpy_T, mT, and transposes of two named dimensions
        first = int(argument(node, 1, "dim0", -2)) % count
        second = int(argument(node, 2, "dim1", -1)) % count
        order[first], order[second] = second, first
    weight = flow.weight(node.args[0])
    if weight is not None:
        turned = order == [1, 0]
        return replace(weight, transposed=not weight.transposed) if turned else None
    value = flow.value(node.args[0])
    return value.laid_out(tuple(value.dims[i] for i in order))


def _expanded(flow: Flow, node: fx.Node) -> Any:
    if flow.weight(node.args[0]) is not None:
        return None
    value = flow.value(node.args[0])
    target = shape(node)
    dims = [()] * (len(target) - len(value.dims)) + list(value.dims)
    sizes = [1] * (len(target) - len(value.dims)) + list(shape(node.args[0]))
    grown = tuple(
        dim if had == has else (Axis(has),)
        for dim, had, has in zip(dims, sizes, target, strict=True)
    )
    return value.laid_out(grown)


def _select(flow: Flow, node: fx.Node) -> Any:
    if flow.weight(node.args[0]) is not None:
        return None
    value = flow.value(node.args[0])
    dimension, index = _position(node, value), int(node.args[2])  # pyright: ignore[reportArgumentType]
    piece = _cut(value, dimension, index % shape(node.args[0])[dimension], 1)
    return piece and piece.laid_out(piece.dims[:dimension] + piece.dims[dimension + 1 :])


def _slice(flow: Flow, node: fx.Node) -> Any:
    step = int(argument(node, 4, "step", 1))
    weight = flow.weight(node.args[0])
    dimension = int(argument(node, 1, "dim", 0)) % max(1, len(shape(node.args[0])))
    whole, length = shape(node.args[0])[dimension], shape(node)[dimension]
    start = argument(node, 2, "start", 0) or 0
    if not isinstance(start, int):
        return None
    start = min(max(start + whole if start < 0 else start, 0), whole)
    if weight is not None:
        return _weight_part(weight, dimension, start, length) if step == 1 else None
    return _cut(flow.value(node.args[0]), dimension, start, length, step)


def _split(flow: Flow, node: fx.Node) -> Any:
    """Handle splits along one dimension: split, chunk, split_with_sizes, unbind."""
    source = node.args[0]
    whole = shape(source)
    pieces = held(node)
    dimension = int(argument(node, 2, "dim", 0)) % len(whole)
    weight, start, result = flow.weight(source), 0, []
    for piece in pieces:
        length = int(piece.shape[dimension])
        if weight is not None:
            section = _weight_part(weight, dimension, start, length)
        else:
            section = _cut(flow.value(source), dimension, start, length)
        if section is None:
            return None
        result.append(section)
        start += length
    return result


def _unbind(flow: Flow, node: fx.Node) -> Any:
    if flow.weight(node.args[0]) is not None:
        return None
    value = flow.value(node.args[0])
    dimension = int(argument(node, 1, "dim", 0)) % len(value.dims)
    parts = [_cut(value, dimension, i, 1) for i in range(shape(node.args[0])[dimension])]
    if any(part is None for part in parts):
        return None
    return [
        part.laid_out(part.dims[:dimension] + part.dims[dimension + 1 :]) for part in parts if part
    ]


def _item(flow: Flow, node: fx.Node) -> Any:
    known, index = flow[node.args[0]], node.args[1]
    return known[index] if isinstance(known, (list, tuple)) and isinstance(index, int) else None


def _joined(flow: Flow, node: fx.Node) -> Any:
    """Handle concatenation along a dimension without channels, such as further positions.

    Zeros are invariant under every linear change of the channels; anything else would have to be
    changed with them.
    """
    parts = node.args[0]
    if not isinstance(parts, (list, tuple)) or any(flow.weight(part) is not None for part in parts):
        return None
    values = [flow.value(part) for part in parts]
    holding = [value for value in values if value.terms]
    if not holding:
        scores = next((value.scores for value in values if value.scores is not None), None)
        return Value(plain(shape(node)), scores=scores, origin=node.name)
    value = holding[0]
    dimension = int(argument(node, 1, "dim", 0)) % len(value.dims)
    if len(holding) > 1 or dimension in holders(value.dims):
        return None
    dims = (*value.dims[:dimension], (Axis(shape(node)[dimension]),), *value.dims[dimension + 1 :])
    others = [part for part, value in zip(parts, values, strict=True) if not value.terms]
    zeros = all(isinstance(part, fx.Node) and name_of(part) in _ZEROS for part in others)
    return value.through("gl", dims=dims) if zeros else value.through("none", "joined", dims=dims)


def _position(node: fx.Node, value: Value) -> int:
    return int(argument(node, 1, "dim", 0)) % len(value.dims)


def _cut(value: Value, dimension: int, start: int, length: int, step: int = 1) -> Value | None:
    """A range along one dimension; None if that mixes channels with something else."""
    dim = value.dims[dimension]
    if not any(axis.channel for axis in dim):
        cut: tuple[Axis, ...] = (Axis(length),)
        offset = 0
    elif len(dim) == 1:
        stride = dim[0].stride or 0
        cut = (Axis(length, stride * step),) if length > 1 else (Axis(1),)
        offset = start * stride
    else:
        return None
    dims: Dims = (*value.dims[:dimension], cut, *value.dims[dimension + 1 :])
    terms = tuple(replace(term, offset=term.offset + offset) for term in value.terms)
    return replace(value, dims=dims, terms=terms)


def _weight_part(weight: Weight, dimension: int, start: int, length: int) -> Weight | None:
    if dimension != 0 or weight.transposed:
        return None
    return replace(weight, start=weight.start + start, length=length)


HANDLERS = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze",
         "contiguous", "clone", "alias", "detach", "to", "_to_copy", "lift_fresh_copy", "view_as"),
        _same_order,
    ),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    **dict.fromkeys(("permute", "transpose", "t", "numpy_T", "mT", "swapaxes"), _permuted),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expanded),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "unsafe_chunk"), _split),
    "select": _select, "slice": _slice, "unbind": _unbind, "getitem": _item, "cat": _joined,
}  # fmt: skip
