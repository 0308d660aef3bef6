"""ONNX: what an exporter renamed and turned comes back as the model had it."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from torch import nn

import flagscope
from checkpoint.test_contract import UsualTypes
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import MissingExtraError

onnx = pytest.importorskip("onnx")
KINDS = {torch.float32: 1, torch.int64: 7, torch.float16: 10, torch.float64: 11,
         torch.bfloat16: 16, torch.bool: 9}  # fmt: skip


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.v_proj, self.o_proj = nn.Linear(8, 8, bias=False), nn.Linear(8, 8)

    def forward(self, x):
        scores = self.q_proj(x) @ self.k_proj(x).transpose(-1, -2)
        return self.o_proj(scores.softmax(-1) @ self.v_proj(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.up, self.down = Attention(), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        x = x + self.self_attn(x)
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


def exported(module, example, path, **options):
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is an old one
        torch.onnx.export(module, (example,), str(path), dynamo=False, **options)
    return path


@pytest.mark.parametrize("fold", [True, False])
def test_names_and_orientation_of_an_export(tmp_path, fold):
    torch.manual_seed(0)
    net = Net()
    path = exported(net, torch.randn(2, 5, 8), tmp_path / "a.onnx", do_constant_folding=fold)
    state = net.state_dict()
    with open_checkpoint(path) as checkpoint:
        for name, tensor in state.items():
            assert torch.equal(checkpoint.read(name), tensor), name
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)
        if fold:
            assert any("12 weights" in note for note in checkpoint.notes)
        assert torch.equal(checkpoint.read("layers.0.up.weight", (slice(2, 5), 3)),
                           state["layers.0.up.weight"][2:5, 3])  # fmt: skip


def test_scan_is_that_of_the_module(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6, bias=False))
    path = exported(net, torch.randn(2, 5, 8), tmp_path / "a.onnx")
    options = {"device": "cpu", "workers": 1, "rank": "participation"}
    one = flagscope.scan(path, **options)
    other = flagscope.scan(net, **options)
    assert [pair.name for pair in one.result.pairs] == ["0-2"]
    a, b = one.result.pairs[0], other.result.pairs[0]
    assert (a.freedom, a.read) == (b.freedom, b.read)
    for key in ("overlap_ratio", "commutator_ratio", "gram_correlation", "imbalance"):
        assert getattr(a, key) == pytest.approx(getattr(b, key), rel=1e-10)


def test_convolutions(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    path = exported(net, torch.randn(1, 3, 6, 6), tmp_path / "a.onnx")
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.read("0.weight"), net[0].weight)


# From here on graphs are written by hand.
def proto(name, tensor, *, external=None):
    made = onnx.TensorProto(name=name, dims=list(tensor.shape), data_type=KINDS[tensor.dtype])
    flat = tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)
    if external is None:
        made.raw_data = flat.numpy().tobytes()
        return made
    made.data_location = onnx.TensorProto.EXTERNAL
    for key, value in external.items():
        made.external_data.add(key=key, value=str(value))
    return made


def save(path, tensors, nodes=()):
    graph = onnx.GraphProto(name="g", initializer=tensors, node=nodes)
    path.write_bytes(onnx.ModelProto(ir_version=8, graph=graph).SerializeToString())
    return path


class TestFile(UsualTypes):
    @pytest.fixture
    def format_name(self):
        return "onnx"

    @pytest.fixture(params=["inside", "outside"])
    def checkpoint(self, state, tmp_path, request):
        tensors, data = [], b""
        for name, tensor in state.items():
            raw = proto(name, tensor).raw_data
            place = {"location": "a.data", "offset": len(data), "length": len(raw)}
            tensors.append(
                proto(name, tensor, external=place if request.param == "outside" else None)
            )
            data += raw
        (tmp_path / "a.data").write_bytes(data)
        with open_checkpoint(save(tmp_path / "a.onnx", tensors)) as checkpoint:
            yield checkpoint


W = torch.arange(6.0).reshape(2, 3)
NODE = {"Transpose": lambda **a: onnx.helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        "Identity": lambda **a: onnx.helper.make_node("Identity", ["w"], ["t"])}  # fmt: skip


@pytest.mark.parametrize(
    ("between", "product", "attributes", "turned"),
    [
        (None, "MatMul", {}, True),
        ("Identity", "MatMul", {}, True),
        ("Transpose", "MatMul", {}, False),
        (None, "Gemm", {}, True),
        (None, "Gemm", {"transB": 1}, False),
        ("Transpose", "Gemm", {"transB": 1}, True),
    ],
)
def test_orientation_follows_the_graph(tmp_path, between, product, attributes, turned):
    nodes = [NODE[between]()] if between else []
    at = "t" if between else "w"
    nodes.append(onnx.helper.make_node(product, ["x", at], ["y"], name=f"/a.0/fc/{product}",
                                       **attributes))  # fmt: skip
    with open_checkpoint(save(tmp_path / "a.onnx", [proto("w", W)], nodes)) as checkpoint:
        assert list(checkpoint.tensors) == ["a.0.fc.weight"]
        assert torch.equal(checkpoint.read("a.0.fc.weight"), W.T if turned else W)


def test_parameter_keeps_its_name_and_orientation(tmp_path):
    node = onnx.helper.make_node("MatMul", ["x", "h.0.c_attn.weight"], ["y"], name="/h.0/MatMul")
    path = save(tmp_path / "a.onnx", [proto("h.0.c_attn.weight", W)], [node])
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.read("h.0.c_attn.weight"), W)
        assert any("(in, out)" in note for note in checkpoint.notes)


def test_constants_of_nodes_and_typed_data(tmp_path):
    typed = onnx.helper.make_tensor("w", 1, [2, 3], W.flatten().tolist())
    node = onnx.helper.make_node("Constant", [], ["c"], value=proto("", W))
    with open_checkpoint(save(tmp_path / "a.onnx", [typed], [node])) as checkpoint:
        assert torch.equal(checkpoint.read("w"), W)
        assert torch.equal(checkpoint.read("c"), W)


def test_without_the_package(tmp_path, monkeypatch):
    path = save(tmp_path / "a.onnx", [proto("w", W)])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match="onnx") as error:
        open_checkpoint(path)
    assert "flagscope[onnx]" in error.value.hint


def test_cycle_of_nodes_ends(tmp_path):
    nodes = [onnx.helper.make_node("Identity", ["b"], ["a"]),
             onnx.helper.make_node("Identity", ["a"], ["b"]),
             onnx.helper.make_node("MatMul", ["x", "a"], ["y"])]  # fmt: skip
    with open_checkpoint(save(tmp_path / "a.onnx", [proto("w", W)], nodes)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


class Plain(nn.Module):
    """No bias tells whose a weight is."""

    def __init__(self):
        super().__init__()
        self.fc1, self.act = nn.Linear(8, 16, bias=False), nn.ReLU()
        self.fc2 = nn.Linear(16, 4, bias=False)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attn(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("external", [False, True], ids=["inside", "outside"])
@pytest.mark.parametrize("net", [Net, Plain, Heads])
def test_export_by_dynamo(tmp_path, net, external):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = net().eval()
    for parameter in module.parameters():  # a bias of zeros is left out
        nn.init.normal_(parameter)
    path, example = tmp_path / "a.onnx", torch.randn(2, 5, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        torch.onnx.export(
            module, (example,), str(path), dynamo=True, external_data=external, verbose=False
        )
    assert (path.with_suffix(".onnx.data")).exists() == external
    with open_checkpoint(path) as checkpoint:
        for name, tensor in module.state_dict().items():
            assert checkpoint.tensors[name].shape == tuple(tensor.shape), name
            assert torch.equal(checkpoint.read(name), tensor), name
    if net is not Heads:  # a file knows nothing of its heads
        options = {"device": "cpu", "workers": 1, "config": {"num_attention_heads": 2}}
        found = flagscope.scan(path, **options).result
        expected = flagscope.scan(dict(module.state_dict()), **options).result
        assert len(expected.pairs) >= 1
        # The graph tells of pairs and activations that names do not.
        graph_only = {"between", "freedom", "kind", "stack", "layer", "name"}
        by_tensors = {(pair.write, pair.read): pair for pair in found.pairs}
        for two in expected.pairs:
            one = by_tensors[two.write, two.read]
            if two.kind in ("mlp", "sequential"):
                assert one.between == "relu"
                assert one.freedom in ("scaling", "none")
            for (name, a), (_, b) in zip(one, two, strict=True):
                if two.kind in ("mlp", "sequential") and name in graph_only:
                    continue
                # The weights may lie transposed in the file, and sums then round differently.
                if isinstance(a, float):
                    assert a == pytest.approx(b, rel=1e-9), name
                elif isinstance(a, int | str):
                    assert a == b, name
