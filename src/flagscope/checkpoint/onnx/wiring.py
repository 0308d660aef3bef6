"""Order, orientation and activations from an ONNX graph, whichever framework it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from flagscope.checkpoint.graph.channels import Channels, Value
from flagscope.checkpoint.onnx.constants import Constants, Origin
from flagscope.wiring import Wiring

_DOMAINS = ("", "ai.onnx")
# What exporters put behind the name of a layer in that of its weight.
_ENDING = re.compile(
    r"([/.](MatMul|Conv[123]D|Conv|Gemm|Tensordot|BiasAdd|convolution|ReadVariableOp|kernel|weight|"
    r"embedding_lookup|Cast)(_\d+)?)*(:\d+)?(__\d+)?$"
)

Rule = Callable[["Walk", Any], bool]


def onnx_wiring(
    graph: Any,
    constants: Constants,
    names: Mapping[str, tuple[str, bool]],
    rules: Mapping[str, Rule],
) -> Wiring:
    """Order of the maps in an ONNX graph.

    Parameters
    ----------
    graph
        A GraphProto. Nodes stand in the order in which they run.
    constants
        Its stored tensors.
    names
        For tensors that are listed otherwise than the file names them: that name, and whether they
        are given transposed.
    rules
        What to do at a node, by its kind.

    References
    ----------
    The operators' specification, onnx/onnx, docs/Operators.md.
    """
    walk = Walk(graph, constants, names)
    for node in graph.node:
        if node.output and constants.origin(node.output[0]) is not None:
            continue  # a stored tensor turned or reshaped: it counts where it is used
        rule = rules.get(node.op_type) if node.domain in _DOMAINS else None
        if rule is None or not node.input or not node.output or not rule(walk, node):
            walk.end(node)
        walk.captured(node)
    for output in graph.output:
        walk.channels.escape(walk.values.get(output.name), None)
    return walk.channels.wiring()


class Walk:
    """Knowledge of the values of a graph on the way through it."""

    def __init__(
        self, graph: Any, constants: Constants, names: Mapping[str, tuple[str, bool]]
    ) -> None:
        self.constants = constants
        self.channels = Channels()
        self.values: dict[str, Value] = {}
        self._names = names
        self._dims = {
            one.name: tuple(
                axis.dim_value if axis.HasField("dim_value") else None
                for axis in one.type.tensor_type.shape.dim
            )
            for one in (*graph.value_info, *graph.output, *graph.input)
            if one.type.tensor_type.HasField("shape")
        }

    def value(self, node: Any, position: int = 0) -> Value | None:
        """The channels that a node takes there."""
        return self.values.get(node.input[position]) if len(node.input) > position else None

    def put(self, node: Any, value: Value | None) -> bool:
        """Enter what a node gives; False where that is not known."""
        if value is None:
            return False
        self.values[node.output[0]] = value
        return True

    def dims(self, name: str) -> tuple[int | None, ...] | None:
        """Sizes of the axes of a value, as far as the file says them."""
        return self._dims.get(name)

    def rank(self, name: str) -> int | None:
        """Number of axes of a value, if the file says it."""
        dims = self.dims(name)
        return None if dims is None else len(dims)

    def listed(self, stored: str) -> str:
        """The name that a stored tensor is listed under."""
        return self._names[stored][0] if stored in self._names else stored

    def layout(self, origin: Origin, letters: str) -> str:
        """Layout of the tensor as it is listed, from what its axes are to the node.

        Axes of size 1 that the node does not see get letters of their own.
        """
        stored = self.constants.shapes[origin.name]
        named = {
            axis: letter for axis, letter in zip(origin.axes, letters, strict=True)
            if axis is not None
        }  # fmt: skip
        unseen = iter("uvw")
        order = [named.get(axis) or next(unseen, "t") for axis in range(len(stored))]
        turned = origin.name in self._names and self._names[origin.name][1]
        return " ".join(reversed(order) if turned else order)

    def is_vector(self, origin: Origin, size: int) -> bool:
        """Whether a stored tensor is `size` numbers in a row, but for axes of size 1."""
        stored = self.constants.shapes[origin.name]
        return prod(stored) == size and max(stored, default=0) == size

    def label(self, stored: str) -> str:
        """Name of a map in pairs."""
        name = self.listed(stored)
        match = _ENDING.search(name)
        return name[: match.start()] if match is not None and match.start() else name

    def end(self, node: Any) -> None:
        """Channels are followed no further than this node."""
        for name in node.input:
            self.channels.escape(self.values.get(name), node.op_type)
            origin = self.constants.origin(name) if name else None
            if origin is not None and prod(origin.shape) > 1:
                self.channels.use_again(self.listed(origin.name))

    def captured(self, node: Any) -> None:
        """Let escape the outer values that graphs inside a node (If, Loop, Scan) take."""
        for name in _captured(node):
            self.channels.escape(self.values.get(name), node.op_type)
            if name in self.constants.shapes:
                self.channels.use_again(self.listed(name))


def _captured(node: Any) -> Iterator[str]:
    graphs = [one.g for one in node.attribute if one.HasField("g")]
    graphs += [graph for one in node.attribute for graph in one.graphs]
    while graphs:
        graph = graphs.pop()
        for inner in graph.node:
            yield from inner.input
            graphs += [one.g for one in inner.attribute if one.HasField("g")]
            graphs += [deeper for one in inner.attribute for deeper in one.graphs]
        yield from (one.name for one in graph.output)
