"""Names and orientation of weights from the ONNX graph, where an exporter changed them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

# A chain of nodes between a stored tensor and the product that uses it.
_LONGEST_CHAIN = 8
# A bias is that of a module, or of a parameter such as in_proj_weight.
_BIAS = (".bias", "_bias")
# What the dynamo exporter writes with a node: the modules around it, and their classes.
_SCOPES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
_QUOTED = re.compile(r"'([^']*)'")
# "/layers.0/self_attn/q_proj/MatMul": the modules around a node, and its kind.
_SCOPE = re.compile(r"/(?P<modules>.+)/(?P<kind>MatMul|Gemm|Conv)")


@dataclass(frozen=True)
class Found:
    """The name that a tensor had in its model, and whether it is stored transposed."""

    name: str
    transposed: bool


def original_names(graph: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Found]:
    """Names and orientation of the stored tensors that an exporter renamed.

    A constant that a MatMul or Gemm multiplies is the weight of the module whose bias is added to
    the product, or else of the module whose scope names the node or is next to it. Chains of
    Transpose and Identity are followed. Tensors named as parameters are left alone: exporters keep
    a parameter's name only on the parameter as it was.

    Parameters
    ----------
    graph
        A GraphProto.
    shapes
        Of the stored tensors.
    """
    producers = {output: node for node in graph.node for output in node.output}
    biases = _biases(graph.node, shapes)
    found: dict[str, Found] = {}
    taken = set(shapes)
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or len(node.input) < 2:
            continue
        stored, turns = _origin(node.input[1], producers, shapes)
        if stored is None or len(shapes[stored]) != 2 or _is_parameter(stored):
            continue
        if node.op_type == "Gemm" and _attribute(node, "transB", 0):
            turns += 1
        name = _weight(node, biases)
        if name is None or stored in found or name in taken:
            continue
        # A product x W has W as (in, out); modules keep (out, in).
        found[stored] = Found(name, turns % 2 == 0)
        taken.add(name)
    return found


def turned_parameters(graph: Any, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Parameters that keep their name and are multiplied as (in, out), as Conv1D's are."""
    producers = {output: node for node in graph.node for output in node.output}
    turned = []
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm") and len(node.input) > 1:
            stored, turns = _origin(node.input[1], producers, shapes)
            turns += node.op_type == "Gemm" and bool(_attribute(node, "transB", 0))
            if stored and _is_parameter(stored) and len(shapes[stored]) == 2 and turns % 2 == 0:
                turned.append(stored)
    return turned


def _is_parameter(name: str) -> bool:
    return name.endswith(".weight") and "::" not in name


def _origin(
    name: str, producers: dict[str, Any], stored: Collection[str]
) -> tuple[str | None, int]:
    """The stored tensor behind a value, and how often it was transposed on the way."""
    turns = 0
    for _ in range(_LONGEST_CHAIN):
        if name in stored:
            return name, turns
        node = producers.get(name)
        if node is None or not node.input or node.op_type not in ("Transpose", "Identity"):
            break
        if node.op_type == "Transpose":
            if list(_attribute(node, "perm", [1, 0])) != [1, 0]:
                break
            turns += 1
        name = node.input[0]
    return None, 0


def _biases(nodes: Iterable[Any], stored: Collection[str]) -> dict[str, str]:
    """The weight whose bias is added to a value, by the value's name."""
    found: dict[str, str] = {}
    for node in nodes:
        if node.op_type == "Add" and len(node.input) == 2:
            for bias, value in (node.input, node.input[::-1]):
                if bias in stored and bias.endswith(_BIAS):
                    found[value] = bias.removesuffix("bias") + "weight"
        elif node.op_type == "Gemm" and len(node.input) == 3:
            bias = node.input[2]
            if bias in stored and bias.endswith(_BIAS) and node.output:
                found[node.output[0]] = bias.removesuffix("bias") + "weight"
    return found


def _weight(node: Any, biases: dict[str, str]) -> str | None:
    if node.output and node.output[0] in biases:
        return biases[node.output[0]]
    scope = _SCOPE.fullmatch(str(node.name))
    if scope:
        return scope["modules"].replace("/", ".") + ".weight"
    beside = {prop.key: _QUOTED.findall(str(prop.value)) for prop in node.metadata_props
              if prop.key in (_SCOPES, _CLASSES)}  # fmt: skip
    # The last of each is the product itself. Of a linear layer the weight's name is known; other
    # modules may multiply by a parameter of any name.
    modules, classes = beside.get(_SCOPES, []), beside.get(_CLASSES, [])
    linear = len(modules) == len(classes) > 1 and classes[-2].endswith("Linear")
    return modules[-2] + ".weight" if linear and modules[-2] else None


def _attribute(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints) if isinstance(default, list) else attribute.i
    return default
