"""Table of the operations that the interpreter follows, with their handlers."""

from __future__ import annotations

from torch import fx

from flagscope.arch.trace import elementwise, layouts, maps, mixing
from flagscope.arch.trace.flow import Handler
from flagscope.arch.trace.nodes import name_of

_HANDLERS: dict[str, Handler] = {
    **layouts.HANDLERS, **elementwise.HANDLERS, **maps.HANDLERS, **mixing.HANDLERS
}  # fmt: skip


def handler_of(node: fx.Node) -> Handler | None:
    """Handler of an operation; None if it is not followed."""
    handler = _HANDLERS.get(name_of(node))
    if handler is None and elementwise.pointwise(node):
        return elementwise.unary
    return handler
