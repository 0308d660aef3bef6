"""Constants of an ONNX graph as its nodes see them: turned, reshaped, or small numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A chain of nodes between a stored tensor and the operation that uses it.
_LONGEST_CHAIN = 8
# Constants of more numbers than this are weights.
_SMALL = 64
_INLINE = ("value_float", "value_int", "value_floats", "value_ints")


@dataclass(frozen=True)
class Origin:
    """A stored tensor behind a value.

    Attributes
    ----------
    name
        Of the stored tensor.
    axes
        Which of its axes lies along each axis of the value; None for one of size 1 put in between.
    shape
        Of the value.
    """

    name: str
    axes: tuple[int | None, ...]
    shape: tuple[int, ...]


class Constants:
    """The constants of a graph.

    Parameters
    ----------
    graph
        A GraphProto.
    protos
        Its stored tensors by name.
    shapes
        Their shapes.
    """

    def __init__(
        self, graph: Any, protos: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.shapes = shapes
        self._protos = protos
        self._producers = {output: node for node in graph.node for output in node.output}

    def origin(self, name: str) -> Origin | None:
        """The stored tensor behind a value, through nodes that only turn or reshape it."""
        steps: list[Any] = []
        for _ in range(_LONGEST_CHAIN):
            if name in self.shapes:
                break
            node = self._producers.get(name)
            if node is None or not node.input or node.op_type not in _STEPS:
                return None
            steps.append(node)
            name = node.input[0]
        if name not in self.shapes:
            return None
        shape = self.shapes[name]
        found: Origin | None = Origin(name, tuple(range(len(shape))), shape)
        for node in reversed(steps):
            found = _STEPS[node.op_type](self, node, found) if found is not None else None
        return found

    def numbers(self, name: str) -> list[float] | None:
        """The numbers of a small constant that stands in the file itself, flat."""
        for _ in range(_LONGEST_CHAIN):
            node = self._producers.get(name)
            if name in self._protos or node is None or node.op_type not in ("Identity", "Cast"):
                break
            if not node.input:
                return None
            name = node.input[0]
        proto, node = self._protos.get(name), self._producers.get(name)
        if proto is None and node is not None and node.op_type == "Constant":
            for one in node.attribute:
                if one.name in _INLINE:
                    values = one.ints or one.floats or [one.f if one.type == 1 else one.i]
                    return [float(value) for value in values] if len(values) <= _SMALL else None
                if one.name == "value" and one.HasField("t"):
                    proto = one.t
        return None if proto is None else _values(proto)

    def number(self, name: str) -> float | None:
        """The number of a constant of one element."""
        found = self.numbers(name)
        return found[0] if found is not None and len(found) == 1 else None

    def integers(self, node: Any, key: str, position: int) -> list[int] | None:
        """Argument of a node: an attribute, or in newer operator sets an input."""
        for one in node.attribute:
            if one.name == key:
                return list(one.ints)
        if len(node.input) <= position or not node.input[position]:
            return None
        return self.sizes(node.input[position])

    def sizes(self, name: str) -> list[int] | None:
        """A small constant of whole numbers, such as a shape."""
        found = self.numbers(name)
        if found is None or not all(value.is_integer() for value in found):
            return None
        return [int(value) for value in found]

    def target(self, name: str) -> list[int] | None:
        """A shape put together: 0 stands for the size of a first axis, -1 for one not known."""
        node = self._producers.get(name)
        if node is None or node.op_type != "Concat":
            return self.sizes(name)
        found: list[int] = []
        for part in node.input:
            known, maker = self.sizes(part), self._producers.get(part)
            if known is not None:
                found += known
            elif maker is not None and maker.op_type == "Unsqueeze" and maker.input:
                found.append(0 if self._is_first_size(maker.input[0]) else -1)
            else:
                return None
        return found

    def _is_first_size(self, name: str) -> bool:
        """Whether a number is the size of an array's first axis."""
        node = self._producers.get(name)
        if node is None or node.op_type != "Gather" or len(node.input) < 2:
            return False
        inner = self._producers.get(node.input[0])
        return inner is not None and inner.op_type == "Shape" and self.number(node.input[1]) == 0


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node, of the type of its default."""
    for one in node.attribute:
        if one.name == name:
            if isinstance(default, (list, tuple)):
                return list(one.ints)
            if isinstance(default, (str, bytes)):
                return one.s.decode("utf-8", "replace")
            return one.f if isinstance(default, float) else one.i
    return default


def _values(proto: Any) -> list[float] | None:
    import onnx.numpy_helper  # pyright: ignore[reportMissingImports]

    if any(size < 0 for size in proto.dims) or math.prod(proto.dims) > _SMALL:
        return None
    if proto.data_location == 1:  # kept outside
        return None
    try:
        return [float(value) for value in onnx.numpy_helper.to_array(proto).reshape(-1)]
    except (ValueError, TypeError, RuntimeError, OverflowError, KeyError):
        return None


def _transposed(_: Constants, node: Any, one: Origin) -> Origin | None:
    order = attribute(node, "perm", [*range(len(one.axes))][::-1])
    if sorted(order) != list(range(len(one.axes))):
        return None
    return Origin(one.name, tuple(one.axes[i] for i in order), tuple(one.shape[i] for i in order))


def _same(_: Constants, __: Any, one: Origin) -> Origin:
    return one


def _unsqueezed(constants: Constants, node: Any, one: Origin) -> Origin | None:
    places = constants.integers(node, "axes", 1)
    if places is None:
        return None
    rank = len(one.axes) + len(places)
    wanted = {place % rank for place in places if -rank <= place < rank}
    if len(wanted) != len(places):
        return None
    left = iter(zip(one.axes, one.shape, strict=True))
    pairs = [(None, 1) if i in wanted else next(left) for i in range(rank)]
    return Origin(one.name, tuple(a for a, _ in pairs), tuple(n for _, n in pairs))


def _squeezed(constants: Constants, node: Any, one: Origin) -> Origin | None:
    places = constants.integers(node, "axes", 1)
    rank = len(one.axes)
    if places is None:
        places = [i for i, size in enumerate(one.shape) if size == 1]
    gone = {place % rank for place in places if -rank <= place < rank}
    if any(one.shape[i] != 1 for i in gone):
        return None
    kept = [i for i in range(rank) if i not in gone]
    return Origin(one.name, tuple(one.axes[i] for i in kept), tuple(one.shape[i] for i in kept))


def _reshaped(constants: Constants, node: Any, one: Origin) -> Origin | None:
    """Only where axes of size 1 come and go."""
    wanted = constants.sizes(node.input[1]) if len(node.input) > 1 else None
    return None if wanted is None else _refitted(one, wanted)


def _refitted(one: Origin, wanted: Sequence[int]) -> Origin | None:
    real = [(a, n) for a, n in zip(one.axes, one.shape, strict=True) if n != 1]
    left = iter(real)
    pairs: list[tuple[int | None, int]] = []
    for size in wanted:
        if size == 1:
            pairs.append((None, 1))
            continue
        axis, extent = next(left, (None, 0))
        if extent == 0 or size not in (-1, 0, extent):
            return None
        pairs.append((axis, extent))
    if next(left, None) is not None:
        return None
    return Origin(one.name, tuple(a for a, _ in pairs), tuple(n for _, n in pairs))


_STEPS = {
    "Transpose": _transposed, "Identity": _same, "Cast": _same, "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed, "Reshape": _reshaped,
}  # fmt: skip
