"""Rules by which channels are followed through ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from flagscope.checkpoint.graph.channels import Value
from flagscope.checkpoint.onnx.constants import Origin, attribute
from flagscope.checkpoint.onnx.functions import FUNCTIONS
from flagscope.checkpoint.onnx.wiring import Rule, Walk
from flagscope.wiring import WiredMap, WiredNorm

_SPACE = "xyz"


def _product(walk: Walk, node: Any) -> bool:
    """MatMul and Gemm by a stored matrix, on either side."""
    gemm = node.op_type == "Gemm"
    if len(node.input) < 2 or (gemm and attribute(node, "alpha", 1.0) != 1.0):
        return False
    left, right = (walk.constants.origin(name) for name in node.input[:2])
    turns = [gemm and bool(attribute(node, key, 0)) for key in ("transA", "transB")]
    if right is not None and left is None and not turns[0]:
        letters = "oi" if turns[1] else "io"
        return _matrix(walk, node, right, letters, walk.value(node, 0), -1)
    if left is not None and right is None and not turns[1]:
        letters = "io" if turns[0] else "oi"
        return _matrix(walk, node, left, letters, walk.value(node, 1), -2)
    return False


def _bias(walk: Walk, node: Any, outputs: int) -> tuple[bool, str | None]:
    """Whether a Gemm or Conv adds something, and its name if that is one number an output."""
    if len(node.input) < 3 or not node.input[2] or attribute(node, "beta", 1.0) == 0.0:
        return False, None
    if walk.constants.number(node.input[2]) == 0.0:
        return False, None
    origin = walk.constants.origin(node.input[2])
    plain = attribute(node, "beta", 1.0) == 1.0 and origin is not None
    if origin is None or not plain or not walk.is_vector(origin, outputs):
        return True, None
    return True, walk.listed(origin.name)


def _matrix(
    walk: Walk, node: Any, origin: Origin, letters: str, value: Value | None, axis: int
) -> bool:
    # A matrix with axes of size 1 in front is applied as one.
    extra = len(origin.axes) - 2
    if extra < 0 or any(size != 1 for size in origin.shape[:extra]):
        return False
    if value is not None and value.from_end != axis:
        walk.channels.escape(value, node.op_type)
        value = None
    gemm = node.op_type == "Gemm"
    outputs = origin.shape[extra + letters.index("o")]
    added, bias = _bias(walk, node, outputs) if gemm else (False, None)
    if added and axis != -1:
        return False
    one = WiredMap(walk.listed(origin.name), walk.layout(origin, "tuv"[:extra] + letters),
                   walk.label(origin.name))  # fmt: skip
    rank = 2 if gemm else value.rank if value is not None else walk.rank(node.output[0])
    walk.channels.read(value)
    written = walk.channels.write(one, outputs, axis, rank)
    if written is not None and added:
        walk.channels.shifted(written, bias)
    if written is not None:
        walk.values[node.output[0]] = written
    return True


def _einsum(walk: Walk, node: Any) -> bool:
    """A product that contracts the last axis of an array with one axis of a stored matrix."""
    terms, arrow, out = attribute(node, "equation", "").replace(" ", "").partition("->")
    parts = terms.replace("...", "").split(",")
    out = out.replace("...", "")
    if not arrow or len(parts) != 2 or len(node.input) != 2:
        return False
    for side in (0, 1):
        origin, value = walk.constants.origin(node.input[side]), walk.value(node, 1 - side)
        matrix, array = parts[side], parts[1 - side]
        if origin is None or len(matrix) != 2 or len(origin.axes) != 2 or not array or not out:
            continue
        inner, outer = array[-1], out[-1]
        if {inner, outer} == set(matrix) and inner != outer and array[:-1] == out[:-1]:
            letters = matrix.replace(inner, "\0").replace(outer, "o").replace("\0", "i")
            return _matrix(walk, node, origin, letters, value, -1)
    return False


def _convolution(walk: Walk, node: Any) -> bool:
    origin = walk.constants.origin(node.input[1]) if len(node.input) > 1 else None
    value = walk.value(node)
    if origin is None or attribute(node, "group", 1) != 1 or not 3 <= len(origin.axes) <= 5:
        return False
    if value is not None and (value.from_start != 1 or value.flat):
        walk.channels.escape(value, node.op_type)
        value = None
    turned = node.op_type == "ConvTranspose"
    space = _SPACE[: len(origin.axes) - 2][::-1]
    outputs = origin.shape[1 if turned else 0]
    layout = walk.layout(origin, ("io" if turned else "oi") + space)
    one = WiredMap(walk.listed(origin.name), layout, walk.label(origin.name), "conv")
    walk.channels.read(value)
    written = walk.channels.write(one, outputs, 1, len(origin.axes))
    if written is None:
        return True
    added, bias = _bias(walk, node, outputs)
    if added:
        walk.channels.shifted(written, bias)
    walk.values[node.output[0]] = written
    return True


def _lookup(walk: Walk, node: Any) -> bool:
    """Gather along the rows of a stored matrix: an embedding."""
    origin = walk.constants.origin(node.input[0])
    if origin is None or len(origin.axes) != 2 or attribute(node, "axis", 0) != 0:
        return False
    if walk.value(node, 1) is not None or 1 in origin.shape:
        return False
    one = WiredMap(walk.listed(origin.name), walk.layout(origin, "io"), walk.label(origin.name),
                   "embedding")  # fmt: skip
    written = walk.channels.write(one, origin.shape[1], -1, walk.rank(node.output[0]))
    if written is not None:
        walk.values[node.output[0]] = written
    return True


def _batch_norm(walk: Walk, node: Any) -> bool:
    value = walk.value(node)
    if value is None or value.from_start != 1 or len(node.input) != 5:
        return False
    found = [walk.constants.origin(name) for name in node.input[1:]]
    if any(one is None or walk.constants.shapes[one.name] != (value.size,) for one in found):
        return False
    gain, bias, mean, variance = (walk.listed(one.name) for one in found if one is not None)
    norm = WiredNorm("batchnorm", gain.rpartition(".")[0] or gain, gain, bias, mean, variance,
                     attribute(node, "epsilon", 1e-5))  # fmt: skip
    return walk.put(node, walk.channels.scaled(value, norm))


def _same(walk: Walk, node: Any) -> bool:
    value = walk.value(node)
    return value is not None and walk.put(node, value)


def _pool(walk: Walk, node: Any) -> bool:
    value = walk.value(node)
    if value is None or value.flat or value.from_start != 1 or value.rank is None:
        return False
    largest = node.op_type in ("MaxPool", "GlobalMaxPool")
    pooled = walk.channels.pooled(value, largest=largest)
    return walk.put(node, replace(pooled, unit=node.op_type.startswith("Global")))


def _mean(walk: Walk, node: Any) -> bool:
    """Mean or maximum over positions."""
    value, axes = walk.value(node), walk.constants.integers(node, "axes", 1)
    if value is None or value.flat or value.rank is None or not axes:
        return False
    rank, channel = value.rank, value.from_start
    if channel is None or any(not -rank <= axis < rank for axis in axes):
        return False
    gone = {axis % rank for axis in axes}
    if channel in gone or 0 in gone:
        return False
    unit = value.unit or gone | {0, channel} == set(range(rank))
    pooled = walk.channels.pooled(value, largest=node.op_type == "ReduceMax")
    if not attribute(node, "keepdims", 1):
        channel -= sum(axis < channel for axis in gone)
        rank -= len(gone)
    return walk.put(node, replace(pooled, axis=channel, rank=rank, unit=unit))


def _transpose(walk: Walk, node: Any) -> bool:
    value = walk.value(node)
    if value is None:
        return False
    order = attribute(node, "perm", [])
    if not order:
        order = [*range(value.rank or 0)][::-1]
    axis = value.axis if value.axis >= 0 else len(order) + value.axis
    if sorted(order) != list(range(len(order))) or axis not in order:
        return False
    return walk.put(node, value.moved(order.index(axis), len(order)))


def _unsqueeze(walk: Walk, node: Any) -> bool:
    value, axes = walk.value(node), walk.constants.integers(node, "axes", 1)
    if value is None or value.rank is None or axes is None:
        return False
    rank = value.rank + len(axes)
    if any(not -rank <= axis < rank for axis in axes):
        return False
    new = {axis % rank for axis in axes}
    old = [axis for axis in range(rank) if axis not in new]
    return value.from_start is not None and len(old) == value.rank and walk.put(
        node, value.moved(old[value.from_start], rank)
    )  # fmt: skip


def _squeeze(walk: Walk, node: Any) -> bool:
    value, axes = walk.value(node), walk.constants.integers(node, "axes", 1)
    if value is None or value.rank is None or not axes or value.from_start is None:
        return False
    if any(not -value.rank <= axis < value.rank for axis in axes):
        return False
    gone = {axis % value.rank for axis in axes}
    if value.from_start in gone:
        return False
    channel = value.from_start - sum(axis < value.from_start for axis in gone)
    return walk.put(node, value.moved(channel, value.rank - len(gone)))


def _flatten(walk: Walk, node: Any) -> bool:
    value = walk.value(node)
    if value is None or value.rank is None or attribute(node, "axis", 1) != 1:
        return False
    return walk.put(node, _flattened(value))


def _flattened(value: Value) -> Value | None:
    """The value with all axes but the first flattened."""
    if value.unit or value.rank == 2:
        return value if value.flat else value.moved(1, 2)
    if value.flat:
        return None
    if value.from_start == 1:
        return replace(value, axis=1, rank=2, flat="i s")
    return replace(value, axis=1, rank=2, flat="s i") if value.from_end == -1 else None


def _reshape(walk: Walk, node: Any) -> bool:
    value = walk.value(node)
    wanted = walk.constants.target(node.input[1]) if len(node.input) > 1 else None
    if not wanted:
        # The shape is worked out on the way; the file may say what comes of it.
        wanted = [-1 if size is None else size for size in walk.dims(node.output[0]) or ()]
    if value is None or value.flat or not wanted:
        return False
    last = wanted[-1]
    if len(wanted) == 2 and value.unit and last in (-1, value.size):
        return walk.put(node, value.moved(1, 2))
    if value.from_end == -1 and last > 0 and last % value.size == 0:
        # Where channels lie last, an axis that ends with them keeps them fastest.
        flat = "" if last == value.size else "s i"
        return walk.put(node, replace(value, axis=-1, rank=len(wanted), flat=flat, unit=False))
    if len(wanted) == 2 and value.rank is not None and _all_but_first(walk, node, value, wanted):
        return walk.put(node, _flattened(value))
    return False


def _all_but_first(walk: Walk, node: Any, value: Value, wanted: Sequence[int]) -> bool:
    """Whether a reshape to two axes joins all but the first."""
    if wanted[0] == 0 and wanted[1] == -1:
        return True
    rest = (walk.dims(node.input[0]) or (None, None))[1:]
    sizes = [size for size in rest if size is not None]
    return len(sizes) == len(rest) == (value.rank or 0) - 1 and prod(sizes) == wanted[1]


def _shape(_: Walk, __: Any) -> bool:
    """How large an array is says nothing of its channels."""
    return True


RULES: dict[str, Rule] = {
    **dict.fromkeys(("MatMul", "Gemm"), _product),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Identity", "Cast", "Dropout"), _same),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
    **dict.fromkeys(("ReduceMean", "ReduceMax"), _mean),
    "Einsum": _einsum, "Gather": _lookup, "BatchNormalization": _batch_norm,
    "Transpose": _transpose, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Flatten": _flatten,
    "Reshape": _reshape, "Shape": _shape, "Size": _shape, **FUNCTIONS,
}  # fmt: skip
