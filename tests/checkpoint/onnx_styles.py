"""ONNX graphs written by hand as the exporters of several frameworks write them."""

from __future__ import annotations

import math
from itertools import count

import pytest
import torch
from torch import Tensor

onnx = pytest.importorskip("onnx")
helper = onnx.helper


class Graph:
    """Nodes and constants, added one after the other."""

    def __init__(self) -> None:
        self.nodes, self.constants, self.values = [], [], []
        self._number = count()

    def constant(self, tensor: Tensor, name: str | None = None) -> str:
        name = name or f"const_{next(self._number)}"
        if name not in {one.name for one in self.constants}:
            self.constants.append(
                onnx.numpy_helper.from_array(tensor.detach().contiguous().numpy(), name)
            )
        return name

    def number(self, value: float) -> str:
        return self.constant(torch.tensor(value))

    def node(self, kind: str, *inputs: str, **attributes) -> str:
        out = f"v{next(self._number)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def held(self, tensor: Tensor) -> str:
        """A constant in a node."""
        value = onnx.numpy_helper.from_array(tensor.detach().contiguous().numpy())
        return self.node("Constant", value=value)

    def axes(self, *values: int) -> str:
        return self.constant(torch.tensor(values))

    def save(self, path, *outputs: str):
        float_ = onnx.TensorProto.FLOAT
        made = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", float_, None)],
            [helper.make_tensor_value_info(name, float_, None) for name in outputs],
            self.constants, value_info=self.values,
        )  # fmt: skip
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
        path.write_bytes(model.SerializeToString())
        return path


def gelu(graph: Graph, x: str) -> str:
    """As an exporter that knows no GELU writes it."""
    inner = graph.node("Erf", graph.node("Div", x, graph.number(math.sqrt(2))))
    return graph.node("Mul", graph.number(0.5), graph.node(
        "Mul", x, graph.node("Add", inner, graph.number(1.0))))  # fmt: skip


ACTIVATIONS = {
    "relu": lambda graph, x: graph.node("Relu", x),
    "gelu": gelu,
    "silu": lambda graph, x: graph.node("Mul", x, graph.node("Sigmoid", x)),
    "tanh": lambda graph, x: graph.node("Tanh", x),
    "none": lambda graph, x: x,
}


def tf_dense(graph: Graph, x: str, layer, name: str) -> str:
    """tf2onnx: (in, out), under the name of the variable that was read."""
    weight = graph.constant(layer.weight.T, f"net/{name}/MatMul/ReadVariableOp:0")
    out = graph.node("MatMul", x, weight, name=f"net/{name}/MatMul")
    bias = graph.constant(layer.bias, f"net/{name}/BiasAdd/ReadVariableOp:0")
    return graph.node("Add", out, bias, name=f"net/{name}/BiasAdd")


def keras_dense(graph: Graph, x: str, layer, name: str) -> str:
    """keras2onnx: the bias in front."""
    out = graph.node("MatMul", x, graph.constant(layer.weight.T, f"{name}/kernel:0"), name=name)
    return graph.node("Add", graph.constant(layer.bias, f"{name}/bias:0"), out)


def jax_dense(graph: Graph, x: str, layer, name: str) -> str:
    """jax2onnx: Einsum or Gemm with constants of no name."""
    weight = graph.constant(layer.weight.T)
    if name.endswith("1"):
        out = graph.node("Einsum", x, weight, equation="bi,io->bo")
    else:
        out = graph.node("Gemm", x, weight, graph.number(0.0), alpha=1.0, beta=0.0)
    return graph.node("Add", out, graph.constant(layer.bias[None]))


def left_dense(graph: Graph, x: str, layer, name: str) -> str:
    """W x on columns: the weight is the first operand."""
    column = graph.node("Transpose", x, perm=[1, 0])
    out = graph.node("Transpose", graph.node("MatMul", graph.held(layer.weight), column),
                     perm=[1, 0])  # fmt: skip
    return graph.node("Add", out, graph.constant(layer.bias, f"{name}.bias"))


def gemm_dense(graph: Graph, x: str, layer, name: str) -> str:
    """torch.onnx: Gemm with transB."""
    weight = graph.constant(layer.weight, f"{name}.weight")
    return graph.node("Gemm", x, weight, graph.constant(layer.bias, f"{name}.bias"), transB=1)


def turned_dense(graph: Graph, x: str, layer, name: str) -> str:
    """The weight behind Identity, Cast, Reshape and Transpose."""
    stored = graph.constant(layer.weight[None], f"{name}_w")
    plain = graph.node("Reshape", graph.node("Identity", stored), graph.axes(*layer.weight.shape))
    cast = graph.node("Cast", plain, to=1)
    out = graph.node("MatMul", x, graph.node("Transpose", cast, perm=[1, 0]))
    return graph.node("Add", out, graph.constant(layer.bias, f"{name}_b"))


DENSE = {"tf2onnx": tf_dense, "keras2onnx": keras_dense, "jax2onnx": jax_dense,
         "weight first": left_dense, "torchscript": gemm_dense, "turned": turned_dense}  # fmt: skip
