"""Elementwise effects of ONNX operators: activations, biases and gains behind a map."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.graph.activations import ACTIVATIONS
from flagscope.checkpoint.graph.channels import Value
from flagscope.checkpoint.onnx.constants import Origin, attribute
from flagscope.checkpoint.onnx.wiring import Rule, Walk
from flagscope.wiring import WiredNorm


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    """Elementwise with a number, a vector along the channels, or another array."""

    def rule(walk: Walk, node: Any) -> bool:
        if len(node.input) != 2:
            return False
        one, other = walk.value(node, 0), walk.value(node, 1)
        if one is not None and other is not None:
            met = walk.channels.together(one, other, function)
            if met is None and node.op_type == "Mul":
                met = walk.channels.multiplied(one, other)
            return walk.put(node, met)
        value, side = (one, 1) if one is not None else (other, 0)
        if value is None:
            return False
        number = walk.constants.number(node.input[side])
        if number is not None:
            constant = torch.tensor(number, dtype=torch.float64)
            if value.product and node.op_type in ("Mul", "Div") and side == 1 and number:
                return walk.put(node, value)
            return walk.put(node, walk.channels.applied(
                value, lambda x: function(x, constant) if side == 1 else function(constant, x)
            ))  # fmt: skip
        return _vector(walk, node, value, side)

    return rule


def _vector(walk: Walk, node: Any, value: Value, side: int) -> bool:
    origin = walk.constants.origin(node.input[side])
    if origin is None or not _along(origin, value):
        return False
    exact = walk.is_vector(origin, value.size)
    name = walk.listed(origin.name)
    if node.op_type == "Add" or (node.op_type == "Sub" and side == 1):
        vector, added = name if exact else None, node.op_type == "Add"
        return walk.put(node, walk.channels.shifted(value, vector, added=added))
    if node.op_type == "Mul" and exact:
        norm = WiredNorm("scale", name, name, None, None, None, 0.0)
        return walk.put(node, walk.channels.scaled(value, norm))
    return False


def _along(origin: Origin, value: Value) -> bool:
    """Whether a constant has one number for each channel, and none along other axes."""
    if value.flat or prod(origin.shape) != value.size or value.from_end is None:
        return False
    return -value.from_end <= len(origin.shape) and origin.shape[value.from_end] == value.size


def _function(function: Callable[[Tensor], Tensor]) -> Rule:
    return _with_attributes(lambda _: function)


def _with_attributes(made: Callable[[Any], Callable[[Tensor], Tensor] | None]) -> Rule:
    def rule(walk: Walk, node: Any) -> bool:
        value, function = walk.value(node), made(node)
        if value is None or function is None:
            return False
        return walk.put(node, walk.channels.applied(value, function))

    return rule


def _gelu(node: Any) -> Callable[[Tensor], Tensor]:
    return ACTIVATIONS["gelu_tanh" if attribute(node, "approximate", "none") == "tanh" else "gelu"]


def _elu(node: Any) -> Callable[[Tensor], Tensor]:
    alpha = attribute(node, "alpha", 1.0)
    return lambda x: torch.where(x > 0, x, alpha * torch.expm1(x))


def _selu(node: Any) -> Callable[[Tensor], Tensor]:
    alpha = attribute(node, "alpha", 1.6732632423543772)
    gamma = attribute(node, "gamma", 1.0507009873554805)
    return lambda x: gamma * torch.where(x > 0, x, alpha * torch.expm1(x))


def _leaky(node: Any) -> Callable[[Tensor], Tensor]:
    slope = attribute(node, "alpha", 0.01)
    return lambda x: torch.where(x < 0, slope * x, x)


def _hard_sigmoid(node: Any) -> Callable[[Tensor], Tensor]:
    slope, shift = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return lambda x: (slope * x + shift).clamp(0, 1)


def _sloped(walk: Walk, node: Any) -> bool:
    """PRelu; a slope for each channel is another function for each."""
    value = walk.value(node)
    slope = walk.constants.number(node.input[1]) if len(node.input) > 1 else None
    if value is None or slope is None:
        return False
    return walk.put(node, walk.channels.applied(value, lambda x: torch.where(x < 0, slope * x, x)))


def _clip(walk: Walk, node: Any) -> bool:
    value = walk.value(node)
    limits: list[float | None] = [None, None]
    for position, key in enumerate(("min", "max")):
        if len(node.input) > position + 1 and node.input[position + 1]:
            limits[position] = walk.constants.number(node.input[position + 1])
            if limits[position] is None:
                return False
        else:
            limits[position] = attribute(node, key, 0.0) if _has(node, key) else None
    if value is None:
        return False
    low = float("-inf") if limits[0] is None else limits[0]
    high = float("inf") if limits[1] is None else limits[1]
    return walk.put(node, walk.channels.applied(value, lambda x: x.clamp(low, high)))


def _has(node: Any, key: str) -> bool:
    return any(one.name == key for one in node.attribute)


FUNCTIONS: dict[str, Rule] = {
    "PRelu": _sloped, "Clip": _clip,
    "Add": _binary(torch.add), "Sub": _binary(torch.sub), "Mul": _binary(torch.mul),
    "Div": _binary(torch.div), "Pow": _binary(torch.pow), "Max": _binary(torch.maximum),
    "Min": _binary(torch.minimum),
    "Relu": _function(torch.relu), "Sigmoid": _function(torch.sigmoid),
    "Tanh": _function(torch.tanh), "Erf": _function(torch.erf), "Exp": _function(torch.exp),
    "Log": _function(torch.log), "Sqrt": _function(torch.sqrt), "Abs": _function(torch.abs),
    "Neg": _function(torch.neg), "Reciprocal": _function(torch.reciprocal),
    "Sin": _function(torch.sin), "Cos": _function(torch.cos), "Sign": _function(torch.sign),
    "Softplus": _function(torch.nn.functional.softplus),
    "Softsign": _function(torch.nn.functional.softsign), "Mish": _function(ACTIVATIONS["mish"]),
    "HardSwish": _function(ACTIVATIONS["hard_swish"]), "Gelu": _with_attributes(_gelu),
    "Elu": _with_attributes(_elu), "Selu": _with_attributes(_selu),
    "LeakyRelu": _with_attributes(_leaky), "HardSigmoid": _with_attributes(_hard_sigmoid),
}  # fmt: skip
