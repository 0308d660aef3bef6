"""Interprets a traced program: follows the channels of every map to their readers.

Unknown operations are never guessed: channels that meet one are given up, and their writer has no
freedom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from flagscope.arch.notes import Notes
from flagscope.arch.trace.axes import plain, shape_of
from flagscope.arch.trace.ledger import Ledger
from flagscope.arch.trace.nodes import name_of, place, shape
from flagscope.arch.trace.program import Program
from flagscope.arch.trace.values import Value, Weight

Handler = Callable[["Flow", fx.Node], Any]
"""Computes the result of an operation; None if it is not followed."""


class Flow:
    """Runs a program on `Value`s instead of tensors.

    Parameters
    ----------
    program
        The traced program.
    shapes
        Shapes of the stored tensors by name.
    notes
        Receives a note for each operation that is given up.
    handler_of
        The handler of an operation, None if it is not followed. Handlers call the flow back, so it
        does not import them; see `flagscope.arch.trace.handlers`.
    """

    def __init__(
        self,
        program: Program,
        shapes: dict[str, tuple[int, ...]],
        notes: Notes,
        handler_of: Callable[[fx.Node], Handler | None],
    ) -> None:
        self.ledger = Ledger()
        self.notes = notes
        self._handler_of = handler_of
        self._program = program
        self._shapes = shapes
        self._known: dict[fx.Node, Any] = {}

    def run(self) -> Ledger:
        """Run the program, and return the ledger of its reads."""
        for node in self._program.nodes:
            if node.op == "placeholder":
                self._known[node] = self._placeholder(node)
            elif node.op == "call_function":
                self._known[node] = self._called(node)
            else:
                self._given_up(node)
        return self.ledger

    def __getitem__(self, argument: Any) -> Any:
        """The state of an argument: a value, a weight, a list of values, or a constant."""
        return self._known.get(argument) if isinstance(argument, fx.Node) else argument

    def value(self, argument: Any) -> Value:
        """An argument as a tensor; a stored tensor used as one counts as read."""
        known = self[argument]
        if isinstance(known, Value):
            return known
        if isinstance(known, Weight):
            self.ledger.weight(known)
        return Value(plain(shape(argument)))

    def weight(self, argument: Any) -> Weight | None:
        """An argument as a stored tensor, if it is one."""
        known = self[argument]
        return known if isinstance(known, Weight) else None

    def opaque(self, node: fx.Node, why: str | None = None) -> Any:
        """Give up the inputs of an operation, and note it."""
        values = self._given_up(node)
        if any(value.terms for value in values):
            reason = why or f"{name_of(node)} is not followed"
            self.notes.add(
                f"no pair is claimed across what cannot be followed: {reason}", place(node)
            )
        scores = next((value.scores for value in values if value.scores is not None), None)
        return _results(node, scores)

    def _given_up(self, node: fx.Node) -> list[Value]:
        values = []
        for argument in node.all_input_nodes:
            known = self[argument]
            if isinstance(known, Weight):
                self.ledger.weight(known)
            for value in known if isinstance(known, (list, tuple)) else [known]:
                if isinstance(value, Value):
                    self.ledger.escape(value)
                    values.append(value)
        return values

    def _placeholder(self, node: fx.Node) -> Any:
        tensor = self._program.tensors.get(str(node.target)) or self._program.tensors.get(node.name)
        if tensor is not None:
            size = self._shapes[tensor]
            return Weight(tensor, size, 0, size[0] if size else 1)
        held = node.meta.get("val")
        return Value(plain(held.shape), origin=node.name) if isinstance(held, Tensor) else None

    def _called(self, node: fx.Node) -> Any:
        if name_of(node).startswith("_assert"):  # checks of shapes and dtypes
            return None
        handler = self._handler_of(node)
        result = None if handler is None else handler(self, node)
        if result is None:
            return self.opaque(node)
        if isinstance(result, Value) and shape_of(result.dims) != shape(node):
            self.ledger.escape(result)
            return self.opaque(node)
        return result


def _results(node: fx.Node, scores: int | None) -> Any:
    held = node.meta.get("val")
    if isinstance(held, (list, tuple)):
        return [
            Value(plain(tensor.shape)) if isinstance(tensor, Tensor) else None for tensor in held
        ]
    if not isinstance(held, Tensor):
        return None
    return Value(plain(held.shape), scores=scores, origin=node.name)
