"""Handlers of norms and of products of two tensors: queries and keys, weights and values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from flagscope.arch.trace.axes import Axis, Dims, channels, holders, merged, plain, size_of
from flagscope.arch.trace.flow import Flow
from flagscope.arch.trace.ledger import Read, norm_of
from flagscope.arch.trace.maps import product_with_weight
from flagscope.arch.trace.nodes import argument, held, name_of, shape
from flagscope.arch.trace.values import Value


def _batch_norm(flow: Flow, node: fx.Node) -> Any:
    """Handle BatchNorm with stored statistics, directly after a map or elsewhere."""
    name = name_of(node)
    weights = [flow.weight(arg) if arg is not None else None for arg in node.args[1:5]]
    stored = weights[2] is not None and weights[3] is not None
    if not stored or (name == "batch_norm" and node.args[5]):
        return None  # batch statistics: every entry depends on all others
    for weight in weights:
        if weight is not None:
            flow.ledger.weight(weight)
    eps = float(node.args[7 if name == "batch_norm" else 6])  # pyright: ignore[reportArgumentType]
    norm = norm_of("batchnorm", *weights, eps=eps)
    value = flow.value(node.args[0])
    result = value.through("none", "norm")
    if _direct(flow, value) and norm is not None and value.terms[0].heads is None:
        # without a gain, the statistics would have to absorb scalings
        term = value.terms[0].through("scaling" if norm.gain else "permutation")
        result = replace(result, terms=(replace(term, norm=norm),))
    return [result, None, None] if isinstance(held(node), (list, tuple)) else result


def _direct(flow: Flow, value: Value) -> bool:
    """Whether a tensor is the plain output of one map, with all its rows along dimension 1."""
    if len(value.terms) != 1 or value.stream or value.product or holders(value.dims) != (1,):
        return False
    term = value.terms[0]
    rows = (Axis(flow.ledger.uses[term.use].outputs, 1),)
    plainly = not term.passed and term.degree == "gl" and term.norm is None
    return plainly and term.offset == 0 and merged(value.dims[1]) == rows


def _layer_norm(flow: Flow, node: fx.Node) -> Any:
    """Handle LayerNorm and RMSNorm over the last dimension."""
    name = name_of(node)
    weight = flow.weight(argument(node, 2, "weight"))
    bias = flow.weight(argument(node, 3, "bias")) if name == "layer_norm" else None
    for parameter in (weight, bias):
        if parameter is not None:
            flow.ledger.weight(parameter)
    position, key = (4, "eps") if name == "layer_norm" else (3, "eps")
    eps = argument(node, position, key)
    kind = "layernorm" if name == "layer_norm" else "rmsnorm"
    norm = norm_of(kind, weight, bias, None, None, float(eps) if eps else 1e-5)
    value = flow.value(node.args[0])
    result = value.through("none", "norm")
    last = len(value.dims) - 1
    whole = len(argument(node, 1, "normalized_shape")) == 1
    if whole and holders(value.dims) in ((last,), ()):
        # the gain of an earlier norm would be lost: only the last norm is folded
        return replace(result, norm=norm, origin=node.name)
    return result


def _other_norm(flow: Flow, node: fx.Node) -> Any:
    for source in node.all_input_nodes[1:]:
        weight = flow.weight(source)
        if weight is None:
            return None
        flow.ledger.weight(weight)
    return flow.value(node.args[0]).through("none", "norm")


def _attention(flow: Flow, node: fx.Node) -> Any:
    """Handle scaled_dot_product_attention(query, key, value, …)."""
    query, key, value = (flow.value(arg) for arg in node.args[:3])
    for source in node.all_input_nodes[3:]:
        flow.ledger.escape(flow.value(source))
    if argument(node, 4, "dropout_p", 0.0):
        return None
    grouped = bool(node.kwargs.get("enable_gqa", False))
    event = None
    if query.terms or key.terms:
        event = _met(flow, query, key, key_at=len(key.dims) - 1, grouped=grouped, node=node)
    if not value.terms:
        return Value(plain(shape(node)))
    dims = _averaged(value, shape(node), grouped=grouped)
    if dims is None:
        flow.ledger.escape(value)
        flow.notes.add("the values of an attention are not followed", str(node.name))
        return Value(plain(shape(node)))
    return _per_head(value, dims, event)


def _matmul(flow: Flow, node: fx.Node) -> Any:
    if any(flow.weight(arg) is not None for arg in node.args):
        return product_with_weight(flow, node)
    a, b = (flow.value(arg) for arg in node.args[:2])
    if len(a.dims) < 2 or len(a.dims) != len(b.dims):
        return None
    last = len(a.dims) - 1
    if a.terms and b.terms and last in holders(a.dims) and last - 1 in holders(b.dims):
        event = _met(flow, a, b, key_at=last - 1, grouped=False, node=node)
        return Value(plain(shape(node)), scores=event)
    if a.terms or not b.terms or last - 1 in holders(b.dims):
        return None
    dims = (*b.dims[: last - 1], (Axis(shape(node)[-2]),), b.dims[last])
    if a.scores is not None:
        return _per_head(b, dims, a.scores)
    return b.through("gl" if holders(b.dims) == (last,) else "none", dims=dims)


def _per_head(value: Value, dims: Dims, event: int | None) -> Value:
    """Output of attention: each head's channels mixed over positions, separately per head."""
    result = value.through("gl", dims=dims)
    heads = size_of(channels(value.dims[:-1]))  # outside the contracted dimension
    terms = (replace(term, heads=heads, attended=event) for term in result.terms)
    return replace(result, terms=tuple(terms))


def _averaged(value: Value, target: tuple[int, ...], *, grouped: bool) -> Dims | None:
    """Dimensions of the output of attention, with shared value heads repeated in place."""
    last = len(value.dims) - 1
    if last < 1 or last - 1 in holders(value.dims) or len(target) != len(value.dims):
        return None
    dims = list(value.dims)
    dims[-2] = (Axis(target[-2]),)
    if grouped and last >= 2:
        repeat, remainder = divmod(target[-3], size_of(dims[-3]))
        if remainder:
            return None
        dims[-3] = merged((*dims[-3], Axis(repeat)))
    return tuple(dims)


def _met(flow: Flow, query: Value, key: Value, *, key_at: int, grouped: bool, node: fx.Node) -> int:
    """Record the product of queries and keys, if both are followed and their heads correspond."""
    event = flow.ledger.event()
    fit = all(len(v.terms) == 1 and not v.stream and not v.product for v in (query, key))
    last = len(query.dims) - 1
    if fit:
        sizes = [
            _contracted(value, dimension) for value, dimension in ((query, last), (key, key_at))
        ]
        batches = [[i for i in holders(value.dims) if i != dimension]
                   for value, dimension in ((query, last), (key, key_at))]  # fmt: skip
        fit = sizes[0] == sizes[1] is not None and len(batches[0]) <= 1
        if fit and batches[0] and not batches[1]:  # one key head for all query heads
            dimension = batches[0][0]
            fit = len(merged(query.dims[dimension])) == 1 and (
                grouped or size_of(key.dims[dimension]) > 1
            )
        elif fit and batches[0] != batches[1]:
            fit = False
        elif fit and batches[0]:
            fit = _heads_fit(query.dims[batches[0][0]], key.dims[batches[0][0]], grouped=grouped)
    if not fit:
        for value in (query, key):
            if value.terms:
                flow.ledger.escape(value)
        flow.notes.add("queries and keys are not followed into their product: no Q-K pair is "
                       "claimed", node.name)  # fmt: skip
        return event
    flow.ledger.read(Read(event, key, key.dims[key_at], None, query))
    return event


def _contracted(value: Value, dimension: int) -> int | None:
    axes = merged(value.dims[dimension])
    return axes[0].size if len(axes) == 1 and axes[0].channel else None


def _heads_fit(query: tuple[Axis, ...], key: tuple[Axis, ...], *, grouped: bool) -> bool:
    """Whether the batch factors around the heads agree; a key head may serve several queries."""
    q, k = merged(query), merged(key)
    before = [axis.size for axis in q if not axis.channel]
    if [a.channel for a in q] == [a.channel for a in k]:
        same = [a.size for a in q] == [a.size for a in k]
        single = len([a for a in q if a.channel]) == 1
        shared = grouped and len(q) == len(k) == 1 and q[0].size % k[0].size == 0
        return single and (same or shared)
    # a repeated key head: (g, r) against h = g · r
    return len(q) == 1 and not before and len(k) == 2 and k[0].channel and not k[1].channel


HANDLERS = {
    "batch_norm": _batch_norm, "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm, "rms_norm": _layer_norm,
    "group_norm": _other_norm, "instance_norm": _other_norm,
    "scaled_dot_product_attention": _attention,
    "matmul": _matmul, "bmm": _matmul, "mm": _matmul,
}  # fmt: skip
