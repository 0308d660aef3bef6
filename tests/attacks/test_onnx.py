"""ONNX models whose constants lie."""

from __future__ import annotations

import random

import pytest
import torch

from attacks.conftest import hints_of_changed_bytes
from checkpoint.onnx_styles import Graph
from checkpoint.test_onnx import W, onnx, proto, save
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, FlagscopeError, MissingFileError, SourceError


def changed(**fields):
    made = proto("w", W)
    for key, value in fields.items():
        made.ClearField(key)
        if isinstance(value, list):
            getattr(made, key).extend(value)
        else:
            setattr(made, key, value)
    return made


HOSTILE = {
    "no constants": ([], CorruptFileError),
    "two of one name": ([proto("w", W), proto("w", W)], CorruptFileError),
    "negative shape": ([changed(dims=[-2, -3])], CorruptFileError),
    "shape larger than the data": ([changed(dims=[2, 4])], CorruptFileError),
    "shape that overflows": ([changed(dims=[2**62, 2**62])], CorruptFileError),
    "data cut short": ([changed(raw_data=b"1234")], CorruptFileError),
    "above the folder": ([proto("w", W, external={"location": "../a"})], CorruptFileError),
    "absolute": ([proto("w", W, external={"location": "/etc/passwd"})], CorruptFileError),
    "drive": ([proto("w", W, external={"location": "C:a"})], CorruptFileError),
    "backslash": ([proto("w", W, external={"location": "..\\a"})], CorruptFileError),
    "no location": ([proto("w", W, external={})], CorruptFileError),
    "missing file": ([proto("w", W, external={"location": "b"})], MissingFileError),
    "beyond the end": ([proto("w", W, external={"location": "d", "offset": 9})], CorruptFileError),
    "length beyond the end": (
        [proto("w", W, external={"location": "d", "length": 99})], CorruptFileError,
    ),
    "another length": ([proto("w", W, external={"location": "d", "length": 4})], CorruptFileError),
    "negative offset": (
        [proto("w", W, external={"location": "d", "offset": -4})], CorruptFileError,
    ),
    "offset of letters": (
        [proto("w", W, external={"location": "d", "offset": "x"})], CorruptFileError,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_model_that_lies(tmp_path, what):
    tensors, kind = HOSTILE[what]
    (tmp_path / "d").write_bytes(bytes(24))
    path = save(tmp_path / "a.onnx", tensors)
    with pytest.raises(kind) as error, open_checkpoint(path) as checkpoint:
        checkpoint.read("w")
    assert error.value.hint


@pytest.mark.parametrize("content", [b"\xff" * 40, b"hello, this is text", b"\x08"])
def test_what_is_no_model(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(SourceError):
        open_checkpoint(tmp_path / "a.onnx")


def test_bytes_changed_anywhere(tmp_path):
    (tmp_path / "d").write_bytes(bytes(24))
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="/a/MatMul")
    tensors = [proto("w", W), proto("v", W, external={"location": "d"})]
    path = save(tmp_path / "a.onnx", tensors, [node])
    hints = hints_of_changed_bytes(path, times=900)
    assert all(hints)
    assert 0 < len(hints) < 900


def graph_of_many_kinds():
    graph, vector = Graph(), torch.arange(4.0)
    x = graph.node("Transpose", "x", perm=[0, 3, 1, 2])
    x = graph.node("Conv", x, graph.constant(torch.ones(4, 3, 2, 2)), graph.constant(vector))
    x = graph.node("BatchNormalization", x, *(graph.constant(vector + i) for i in range(4)))
    x = graph.node("MaxPool", graph.node("Clip", x, graph.number(0.0), graph.number(6.0)),
                   kernel_shape=[2, 2])  # fmt: skip
    x = graph.node("ReduceMean", x, graph.axes(2, 3), keepdims=0)
    x = graph.node("Squeeze", graph.node("Unsqueeze", x, graph.axes(2)), graph.axes(2))
    x = graph.node("Gemm", x, graph.constant(torch.ones(5, 4)), transB=1)
    x = graph.node("Mul", x, graph.node("Sigmoid", x))
    x = graph.node("Reshape", x, graph.axes(-1, 5))
    held = graph.node("Transpose", graph.held(torch.ones(6, 5)), perm=[1, 0])
    x = graph.node("Einsum", graph.node("MatMul", x, held), graph.constant(torch.ones(6, 2)),
                   equation="bi,io->bo")  # fmt: skip
    return graph, x


def test_nodes_changed_anywhere(tmp_path):
    """What follows the graph meets every kind of nonsense."""
    graph, last = graph_of_many_kinds()
    path = graph.save(tmp_path / "a.onnx", last)
    with open_checkpoint(path) as checkpoint:
        links = checkpoint.wiring.links
        assert [link.between for link in links] == ["relu6", "silu", "linear"]
    whole, rng = path.read_bytes(), random.Random(0)
    followed, hints = set(), []
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            content[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            with open_checkpoint(path) as checkpoint:
                followed.add(len(checkpoint.wiring.links))
        except FlagscopeError as error:
            hints.append(error.hint)
    assert all(hints)
    assert {0, 1, 2, 3} & followed
    assert len(followed) > 1


def test_long_chain_of_nodes(tmp_path):
    graph = Graph()
    x = graph.node("MatMul", "x", graph.constant(torch.ones(4, 4)))
    for _ in range(5000):
        x = graph.node("Tanh", x)
    path = graph.save(tmp_path / "a.onnx", graph.node("MatMul", x, graph.held(torch.ones(4, 4))))
    with open_checkpoint(path) as checkpoint:
        [link] = checkpoint.wiring.links
        assert link.between == "elementwise"
