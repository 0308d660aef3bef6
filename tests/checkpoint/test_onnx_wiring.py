"""ONNX graphs of several frameworks: the pairs of the same network in PyTorch, traced."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import flagscope
from checkpoint.onnx_styles import ACTIVATIONS, DENSE, Graph, helper, tf_dense
from flagscope.checkpoint import open_checkpoint

OPTIONS = {"device": "cpu", "workers": 1, "rank": "participation"}
NUMBERS = ("overlap_ratio", "commutator_ratio", "gram_correlation", "imbalance")


def truth(net: nn.Module, *shape: int):
    """Pairs of the module, from a trace of its forward pass."""
    return flagscope.scan(net, example_inputs=torch.randn(*shape), **OPTIONS).result.pairs


def agree(found, expected):
    assert [pair.between for pair in found] == [pair.between for pair in expected]
    assert [pair.freedom for pair in found] == [pair.freedom for pair in expected]
    assert [pair.d for pair in found] == [pair.d for pair in expected]
    for one, two in zip(found, expected, strict=True):
        for key in NUMBERS:
            a, b = getattr(one, key), getattr(two, key)
            assert a == (b if b is None else pytest.approx(b, rel=1e-6)), key
    assert any(getattr(pair, key) is not None for pair in expected for key in NUMBERS)


def randomised(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return net.eval()


# Sizes are square on purpose: only the graph can tell (in, out) from (out, in).
@pytest.mark.parametrize(
    ("style", "between"),
    [*((style, "gelu") for style in DENSE), *(("tf2onnx", name) for name in ACTIVATIONS)],
)
def test_dense_layers_of_every_style(tmp_path, style, between):
    modules = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh,
               "none": nn.Identity}  # fmt: skip
    net = randomised(nn.Sequential(nn.Linear(8, 8), modules[between](), nn.Linear(8, 8),
                                   nn.ReLU(), nn.Linear(8, 8)))  # fmt: skip
    graph = Graph()
    x = ACTIVATIONS[between](graph, DENSE[style](graph, "x", net[0], "dense"))
    x = graph.node("Relu", DENSE[style](graph, x, net[2], "dense_1"))
    path = graph.save(tmp_path / "a.onnx", DENSE[style](graph, x, net[4], "dense_2"))
    found = flagscope.scan(path, **OPTIONS).result
    agree(found.pairs, truth(net, 2, 8))
    assert not found.unmapped
    if style == "tf2onnx":
        assert [p.name for p in found.pairs] == ["net/dense-net/dense_1", "net/dense_1-net/dense_2"]


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(6, 6, 3, bias=False), nn.BatchNorm2d(6, eps=1e-3)
        self.b, self.c = nn.Conv2d(6, 6, 1), nn.Linear(6, 6)

    def forward(self, x):
        x = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.a(x))), 2)
        return self.c(torch.relu(self.b(x)).mean((2, 3)))


@pytest.mark.parametrize("last", ["ReduceMean", "GlobalAveragePool"])
@pytest.mark.parametrize("turns", [True, False])
def test_convolutions_behind_transposes(tmp_path, last, turns):
    net = randomised(Convolutions())
    graph = Graph()
    x = graph.node("Transpose", "x", perm=[0, 3, 1, 2])
    x = graph.node("Conv", x, graph.constant(net.a.weight, "net/conv2d/Conv2D/ReadVariableOp:0"))
    norm = [graph.constant(one, f"net/norm/{key}") for key, one in net.norm.state_dict().items()
            if key != "num_batches_tracked"]  # fmt: skip
    x = graph.node("BatchNormalization", x, *norm, epsilon=1e-3)
    if turns:
        x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
        x = graph.node("Transpose", graph.node("Relu", x), perm=[0, 3, 1, 2])
    else:
        x = graph.node("Relu", x)
    x = graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    # The kernel as TensorFlow keeps it, turned by a node.
    kernel = graph.constant(net.b.weight.permute(2, 3, 1, 0), "net/conv2d_1/kernel")
    kernel = graph.node("Transpose", kernel, perm=[3, 2, 0, 1])
    x = graph.node("Conv", x, kernel, graph.constant(net.b.bias, "net/conv2d_1/bias"))
    x = graph.node("Relu", x)
    if last == "GlobalAveragePool":
        x = graph.node("GlobalAveragePool", x)
        x = graph.node("Reshape", x, graph.axes(-1, 6))
    else:
        x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
        x = graph.node("ReduceMean", x, graph.axes(1, 2), keepdims=0)
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, net.c, "dense"))
    agree(flagscope.scan(path, **OPTIONS).result.pairs, truth(net, 1, 6, 8, 8))
    with open_checkpoint(path) as checkpoint:
        norms = [link.norm for link in checkpoint.wiring.links]
        assert norms[0].variance == "net/norm/running_var"
        assert norms[0].eps == pytest.approx(1e-3)


class Flat(nn.Module):
    """Flattened channels first, as PyTorch does, or last, as TensorFlow does."""

    def __init__(self, last: bool):
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 5, 3), nn.Linear(80, 7), last

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.b((x.permute(0, 2, 3, 1) if self.last else x).flatten(1))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("how", ["Flatten", "Reshape"])
def test_flattened_convolution(tmp_path, last, how):
    net = randomised(Flat(last))
    graph = Graph()
    x = graph.node("Conv", "x", graph.constant(net.a.weight, "a.w"),
                   graph.constant(net.a.bias, "a.b"))  # fmt: skip
    x = graph.node("Relu", x)
    if last:
        x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
    if how == "Flatten":
        x = graph.node("Flatten", x)
    else:
        x = graph.node("Reshape", x, graph.axes(*((-1, 80) if last else (0, -1))))
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, net.b, "dense"))
    agree(flagscope.scan(path, **OPTIONS).result.pairs, truth(net, 1, 3, 6, 6))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        return self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x))


def test_gated_block(tmp_path):
    net = randomised(Gated())
    graph = Graph()
    gate = ACTIVATIONS["silu"](graph, tf_dense(graph, "x", net.gate, "gate"))
    x = graph.node("Mul", gate, tf_dense(graph, "x", net.up, "up"))
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, net.down, "down"))
    agree(flagscope.scan(path, **OPTIONS).result.pairs, truth(net, 2, 8))


def test_parallel_layers_are_no_chain_and_a_sum_ends_one(tmp_path):
    """Numbered names would chain here: 0 and 1 both read the input, 2 reads their sum."""
    layers = [randomised(nn.Linear(8, 8)) for _ in range(4)]
    graph = Graph()
    one, two = (tf_dense(graph, "x", layers[i], f"dense{i}") for i in (0, 1))
    x = tf_dense(graph, graph.node("Add", one, two), layers[2], "dense2")
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, layers[3], "dense3"))
    result = flagscope.scan(path, **OPTIONS).result
    assert [pair.name for pair in result.pairs] == ["net/dense2-net/dense3"]
    assert any("not across: Add (behind net/dense0, net/dense1)" in n for n in result.notes)


@pytest.mark.parametrize("what", ["Softmax", "LayerNormalization", "Custom", "vector", "loop"])
def test_what_is_not_read_ends_a_chain_and_is_named(tmp_path, what):
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    graph = Graph()
    x = graph.node("Relu", tf_dense(graph, "x", one, "dense"))
    if what == "vector":  # another shift for each channel, behind the activation
        what = "Add"
        x = graph.node("Add", x, graph.constant(torch.randn(8)))
    elif what == "LayerNormalization":
        x = graph.node(what, x, graph.constant(torch.ones(8)))
    elif what == "loop":
        what = "If"
        body = helper.make_graph([helper.make_node("Abs", [x], ["inner"])], "b", [], [])
        graph.nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body))
        x = "y"
    else:
        x = graph.node(what, x, **({"domain": "ours"} if what == "Custom" else {}))
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, two, "dense_1"))
    result = flagscope.scan(path, **OPTIONS).result
    assert not result.pairs
    assert any(f"not across: {what} (behind net/dense)" in note for note in result.notes)


@pytest.mark.parametrize("why", ["two readers", "output", "shared weight", "If"])
def test_no_freedom_where_others_look(tmp_path, why):
    layers = [randomised(nn.Linear(8, 8)) for _ in range(3)]
    graph = Graph()
    first = tf_dense(graph, "x", layers[0], "dense")
    x = graph.node("Relu", first)
    outputs = [tf_dense(graph, x, layers[1], "dense_1")]
    if why == "two readers":
        outputs.append(tf_dense(graph, x, layers[2], "dense_2"))
    elif why == "output":
        outputs.append(first)
    elif why == "shared weight":
        outputs.append(tf_dense(graph, "z", layers[0], "dense"))
    else:
        body = helper.make_graph([helper.make_node("Abs", [first], ["inner"])], "b", [], [])
        graph.nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body))
    result = flagscope.scan(graph.save(tmp_path / "a.onnx", *outputs), **OPTIONS).result
    assert {(pair.between, pair.freedom) for pair in result.pairs} == {("relu", "none")}
    assert len(result.pairs) == (2 if why == "two readers" else 1)


@pytest.mark.parametrize("mean", [False, True], ids=["", "mean"])
def test_gain_behind_a_map_is_folded(tmp_path, mean):
    """A BatchNorm that an exporter wrote as a difference, a product and a sum."""
    one, two, gain = nn.Linear(8, 8, bias=False), nn.Linear(8, 8), torch.rand(8) + 0.5
    randomised(one), randomised(two)
    graph = Graph()
    x = graph.node("MatMul", "x", graph.constant(one.weight.T, "dense/kernel"))
    if mean:
        x = graph.node("Sub", x, graph.constant(torch.randn(1, 8), "bn/mean"))
    x = graph.node("Add", graph.node("Mul", x, graph.constant(gain, "bn/mul")),
                   graph.constant(torch.randn(8), "bn/sub"))  # fmt: skip
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, graph.node("Relu", x), two, "dense_1"))
    merged = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 8))
    merged[0].weight.data, merged[2].weight.data = gain[:, None] * one.weight, two.weight
    result = flagscope.scan(path, **OPTIONS).result
    [found], [expected] = result.pairs, truth(merged, 2, 8)
    assert not result.unmapped
    for key in NUMBERS:
        assert getattr(found, key) == pytest.approx(getattr(expected, key), rel=1e-6)
    assert found.freedom == "scaling"


def test_number_that_is_added_leaves_permutations(tmp_path):
    """x + 1 is the same for every neuron, so that no scaling of one passes."""
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    for between, expected in (("Add", "affine"), ("Mul", "linear")):
        graph = Graph()
        x = graph.node(between, tf_dense(graph, "x", one, "dense"), graph.number(1.5))
        path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, two, "dense_1"))
        [pair] = flagscope.scan(path, **OPTIONS).result.pairs
        freedom = {"affine": "permutation", "linear": "gl"}[expected]
        assert (pair.between, pair.freedom) == (expected, freedom)


@pytest.mark.parametrize("last", [80, -1])
def test_shape_that_is_put_together(tmp_path, last):
    """(size of the first axis, K), as exporters write a flatten."""
    net = randomised(Flat(last=True))
    graph = Graph()
    x = graph.node("Conv", "x", graph.constant(net.a.weight), graph.constant(net.a.bias))
    x = graph.node("Transpose", graph.node("Relu", x), perm=[0, 2, 3, 1])
    first = graph.node("Gather", graph.node("Shape", x), graph.constant(torch.tensor(0)))
    first = graph.node("Unsqueeze", first, graph.axes(0))
    x = graph.node("Reshape", x, graph.node("Concat", first, graph.axes(last), axis=0))
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, net.b, "dense"))
    agree(flagscope.scan(path, **OPTIONS).result.pairs, truth(net, 1, 3, 6, 6))


def test_last_number_of_a_reshape_decides(tmp_path):
    """(N, T, C) to rows and back, as exporters of layers on sequences do."""
    net = randomised(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)))
    graph = Graph()
    x = graph.node("Reshape", "x", graph.axes(-1, 8))
    x = graph.node("Reshape", tf_dense(graph, x, net[0], "dense"), graph.axes(-1, 5, 8))
    x = graph.node("Reshape", graph.node("Relu", x), graph.axes(-1, 8))
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, x, net[2], "dense_1"))
    agree(flagscope.scan(path, **OPTIONS).result.pairs, truth(net, 2, 8))


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_exports_of_torch(tmp_path, dynamo):
    if dynamo:
        pytest.importorskip("onnxscript")
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.GELU(), nn.Flatten(),
              nn.Linear(96, 8), nn.SiLU(), nn.Linear(8, 8)]  # fmt: skip
    net = randomised(nn.Sequential(*layers))
    path = tmp_path / "a.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters' own parts
        torch.onnx.export(net, (torch.randn(1, 3, 6, 6),), str(path), dynamo=dynamo, verbose=False)
    result = flagscope.scan(path, **OPTIONS).result
    agree(result.pairs, truth(net, 1, 3, 6, 6))
    assert result.family == "graph"


def test_bias_that_is_no_vector_leaves_no_freedom(tmp_path):
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    graph = Graph()
    x = graph.node("Gemm", "x", graph.constant(one.weight), graph.number(2.0), transB=1)
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, graph.node("Relu", x), two, "dense"))
    [pair] = flagscope.scan(path, **OPTIONS).result.pairs
    assert (pair.between, pair.freedom) == ("relu", "none")


def test_graph_decides_where_an_exporter_left_few_of_a_family_s_names(tmp_path):
    """Of BERT's names only those of one norm and one bias are there."""
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    graph = Graph()
    bias = graph.constant(one.bias, "encoder.layer.0.attention.self.query.bias")
    x = graph.node("Add", graph.node("MatMul", "x", graph.constant(one.weight.T, "val_1")), bias)
    graph.constant(torch.ones(8), "encoder.layer.0.attention.output.LayerNorm.weight")
    path = graph.save(tmp_path / "a.onnx", tf_dense(graph, graph.node("Relu", x), two, "dense"))
    result = flagscope.scan(
        path, config={"model_type": "bert", "num_attention_heads": 2}, **OPTIONS
    )
    assert [pair.between for pair in result.result.pairs] == ["relu"]
    assert result.result.family == "graph"
