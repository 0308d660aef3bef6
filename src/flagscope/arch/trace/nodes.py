"""Accessors for the nodes of a traced program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx


def held(node: Any) -> Any:
    """The fake tensor or tensors that a node returned in tracing."""
    return node.meta.get("val") if isinstance(node, fx.Node) else None


def shape(node: Any) -> tuple[int, ...]:
    """The shape of a node's tensor."""
    tensor = held(node)
    return tuple(int(n) for n in tensor.shape) if isinstance(tensor, Tensor) else ()


def name_of(node: fx.Node) -> str:
    """Name of an operation without namespace and overload."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return getattr(node.target, "__name__", str(node.target))


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument by position or by name."""
    return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)


def place(node: fx.Node) -> str | None:
    """Path of the module whose forward contains an operation."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return None
    path, kind = list(stack.values())[-1]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"{path or 'the module itself'} ({kind.rpartition('.')[2]})"
