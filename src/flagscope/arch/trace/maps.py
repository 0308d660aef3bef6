"""Handlers of linear maps in a traced program, which read channels and write new ones."""

from __future__ import annotations

from typing import Any

from torch import fx

from flagscope.arch.trace.axes import Axis, holders, plain
from flagscope.arch.trace.flow import Flow
from flagscope.arch.trace.ledger import Read
from flagscope.arch.trace.nodes import argument, name_of, place, shape
from flagscope.arch.trace.values import Kind, Term, Use, Value, Weight


def _linear(flow: Flow, node: fx.Node) -> Any:
    weight, bias = flow.weight(node.args[1]), argument(node, 2, "bias")
    if weight is None or weight.transposed or len(weight.shape) != 2:
        return None
    return _applied(flow, node, "linear", weight, bias, node.args[0], -1)


def _product(flow: Flow, node: fx.Node) -> Any:
    """Handle x @ W or x @ Wᵀ, possibly with a bias as first argument (addmm)."""
    bias = node.args[0] if name_of(node) == "addmm" else None
    array, matrix = node.args[-2:]
    weight = flow.weight(matrix)
    if weight is None or len(weight.shape) != 2 or node.kwargs:
        return None
    if weight.transposed:
        return _applied(flow, node, "linear", weight, bias, array, -1)
    if (weight.start, weight.length) != (0, weight.shape[0]):
        return None
    return _applied(flow, node, "right", weight, bias, array, -1)


def _convolution(flow: Flow, node: fx.Node) -> Any:
    weight, bias = flow.weight(node.args[1]), argument(node, 2, "bias")
    turned = name_of(node).startswith("conv_transpose")
    groups = argument(node, 7 if name_of(node) == "convolution" else 6, "groups", 1)
    if name_of(node) == "convolution":
        turned, groups = bool(node.args[6]), node.args[8]
    if weight is None or weight.transposed or (weight.start, weight.length) != (0, weight.shape[0]):
        return None
    if groups != 1:
        return flow.opaque(node, "a grouped convolution")
    dimension = len(shape(node.args[0])) + 1 - len(weight.shape)
    kind: Kind = "transposed" if turned else "conv"
    return _applied(flow, node, kind, weight, bias, node.args[0], dimension)


def _embedding(flow: Flow, node: fx.Node) -> Any:
    weight = flow.weight(node.args[0])
    if weight is None or weight.transposed:
        return None
    flow.ledger.escape(flow.value(node.args[1]))
    use = Use("embedding", weight, None, None, str(node.args[1]), place(node) or "")
    return _written(flow, use, plain(shape(node.args[1])), len(shape(node)) - 1)


def _applied(
    flow: Flow, node: fx.Node, kind: Kind, weight: Weight, bias: Any, array: Any, dimension: int
) -> Value | None:
    added = flow.weight(bias)
    if bias is not None and (added is None or len(added.shape) != 1):
        return None
    value = flow.value(array)
    dimension %= len(value.dims)
    use = Use(kind, weight, added, value.norm, value.origin or str(array), place(node) or "")
    other_dims = plain(n for i, n in enumerate(shape(node)) if i != dimension)
    written = _written(flow, use, other_dims, dimension)
    if value.terms and holders(value.dims) == (dimension,):
        number = len(flow.ledger.uses) - 1
        flow.ledger.read(Read(flow.ledger.event(), value, value.dims[dimension], number))
    elif value.terms:
        flow.ledger.escape(value)
    return written


def _written(flow: Flow, use: Use, other_dims: Any, dimension: int) -> Value:
    number = flow.ledger.use(use)
    channel = (Axis(use.outputs, 1),)
    terms = (Term(number),) if use.outputs > 1 else ()
    dims = (*other_dims[:dimension], channel if terms else (Axis(1),), *other_dims[dimension:])
    return Value(dims, terms)


HANDLERS = {
    "linear": _linear, "addmm": _product, "embedding": _embedding,
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
         "conv_transpose3d"),
        _convolution,
    ),
}  # fmt: skip
product_with_weight = _product
