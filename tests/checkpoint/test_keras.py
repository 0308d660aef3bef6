"""Keras files: names, orientation and order; the pairs of the same network in PyTorch, traced."""

from __future__ import annotations

import json
import re
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import flagscope
from checkpoint.keras_models import (
    FORMATS,
    Layer,
    batch_norm,
    convolution,
    dense,
    h5py,
    write,
)
from checkpoint.test_contract import UsualTypes
from checkpoint.test_onnx_wiring import (
    NUMBERS,
    OPTIONS,
    Convolutions,
    Flat,
    Gated,
    agree,
    randomised,
    truth,
)
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import MissingExtraError


@pytest.mark.parametrize("kind", FORMATS)
def test_sequential_model(tmp_path, kind):
    net = randomised(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(),
                                   nn.Linear(8, 8, bias=False), nn.Linear(8, 8)))  # fmt: skip
    layers = [Layer("InputLayer", "x"), dense(net[0], "a", "gelu"), Layer("Dropout", "drop"),
              dense(net[2], "b"), Layer("ReLU", "act"), dense(net[4], "c"),
              dense(net[5], "d")]  # fmt: skip
    path = write(tmp_path / "net", layers, kind)
    result = flagscope.scan(path, **OPTIONS).result
    agree(result.pairs, truth(net, 2, 8))
    assert [pair.name for pair in result.pairs] == ["a-b", "b-c", "c-d"]
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.read("b.kernel"), net[2].weight.T)
        assert torch.equal(checkpoint.read("b.bias"), net[2].bias)
        assert not any("iteration" in name for name in checkpoint.tensors)


@pytest.mark.parametrize("kind", FORMATS)
def test_functional_model_with_convolutions(tmp_path, kind):
    net = randomised(Convolutions())
    layers = [
        Layer("InputLayer", "x"),
        # In an order of names that is not that of the graph.
        convolution(net.b, "a_last", "relu", ("pool",)),
        convolution(net.a, "first", inputs=("x",)),
        batch_norm(net.norm, "norm", ("first",), axis=[3] if kind == "h5 of keras 2" else -1),
        Layer("Activation", "act", config={"activation": "relu"}, inputs=("norm",)),
        Layer("MaxPooling2D", "pool", inputs=("act",)),
        Layer("GlobalAveragePooling2D", "mean", inputs=("a_last",)),
        dense(net.c, "out", inputs=("mean",)),
    ]
    path = write(tmp_path / "net", layers, kind, outputs=("out",))
    result = flagscope.scan(path, **OPTIONS).result
    assert [pair.name for pair in result.pairs] == ["first-a_last", "a_last-out"]
    agree(result.pairs, truth(net, 1, 6, 8, 8))


@pytest.mark.parametrize("kind", FORMATS)
def test_flattened_convolution(tmp_path, kind):
    net = randomised(Flat(last=True))
    layers = [Layer("InputLayer", "x"), convolution(net.a, "a", "relu"), Layer("Flatten", "flat"),
              dense(net.b, "b")]  # fmt: skip
    agree(flagscope.scan(write(tmp_path / "net", layers, kind), **OPTIONS).result.pairs,
          truth(net, 1, 3, 6, 6))  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_product_of_two_layers(tmp_path, kind):
    net = randomised(Gated())
    layers = [Layer("InputLayer", "x"), dense(net.gate, "gate", "swish", ("x",)),
              dense(net.up, "up", inputs=("x",)), Layer("Multiply", "times", inputs=("gate", "up")),
              dense(net.down, "down", inputs=("times",))]  # fmt: skip
    path = write(tmp_path / "net", layers, kind, outputs=("down",))
    agree(flagscope.scan(path, **OPTIONS).result.pairs, truth(net, 2, 8))


@pytest.mark.parametrize("kind", FORMATS)
def test_branches_are_no_chain(tmp_path, kind):
    """`dense_1` follows `dense` in name alone: both read the input, and a sum ends both."""
    modules = [randomised(nn.Linear(8, 8)) for _ in range(4)]
    layers = [Layer("InputLayer", "x"), dense(modules[0], "dense", inputs=("x",)),
              dense(modules[1], "dense_1", inputs=("x",)),
              Layer("Add", "add", inputs=("dense", "dense_1")),
              dense(modules[2], "dense_2", "tanh", inputs=("add",)),
              dense(modules[3], "dense_3", inputs=("dense_2",))]  # fmt: skip
    path = write(tmp_path / "net", layers, kind, outputs=("dense_3",))
    result = flagscope.scan(path, **OPTIONS).result
    assert [(p.name, p.freedom) for p in result.pairs] == [("dense_2-dense_3", "permutation")]
    assert any("not across: Add (behind dense, dense_1)" in note for note in result.notes)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("why", ["output", "two readers", "shared"])
def test_no_freedom_where_others_look(tmp_path, kind, why):
    one, two, three = (randomised(nn.Linear(8, 8)) for _ in range(3))
    layers = [Layer("InputLayer", "x"), dense(one, "a", "relu", ("x",)),
              dense(two, "b", "relu", ("a",)), dense(three, "c", "relu", ("a",))]  # fmt: skip
    outputs = {"output": ("a", "b"), "two readers": ("b", "c"), "shared": ("b",)}[why]
    if why != "two readers":
        layers.pop()
    if why == "shared":
        layers[1].calls = 2
    result = flagscope.scan(write(tmp_path / "n", layers, kind, outputs=outputs), **OPTIONS).result
    assert {(pair.between, pair.freedom) for pair in result.pairs} == {("relu", "none")}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (Layer("Lambda", "f", config={"function": ["gQ==", None, None]}), "Lambda"),
        (Layer("Ours>Strange", "f"), "Strange"),
        (Layer("Ours>ReLU", "f"), "ReLU"),
        (Layer("Activation", "f", config={"activation": {"class_name": "Ours>ReLU", "config": {}}}),
         "activation Ours>ReLU"),
        (Layer("LayerNormalization", "f"), "LayerNormalization"),
        (Layer("Activation", "f", config={"activation": "softmax"}), "activation softmax"),
        (Layer("Activation", "f", config={"activation": {"class_name": "function"}}),
         "activation function"),
    ],
)  # fmt: skip
def test_what_is_not_read_ends_a_chain_and_is_named(tmp_path, kind, layer, named):
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    layers = [Layer("InputLayer", "x"), dense(one, "a"), layer, dense(two, "b")]
    result = flagscope.scan(write(tmp_path / "net", layers, kind), **OPTIONS).result
    assert not result.pairs
    assert any(f"not across: {named} (behind a)" in note for note in result.notes)


@pytest.mark.parametrize("kind", FORMATS)
def test_models_inside_models(tmp_path, kind):
    net = randomised(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(),
                                   nn.Linear(8, 8)))  # fmt: skip
    inner = Layer("Sequential", "inner", layers=(dense(net[0], "a", "relu"),
                                                 dense(net[2], "b", "tanh")))  # fmt: skip
    path = write(tmp_path / "net", [Layer("InputLayer", "x"), inner, dense(net[4], "c")], kind)
    result = flagscope.scan(path, **OPTIONS).result
    agree(result.pairs, truth(net, 2, 8))
    assert [pair.name for pair in result.pairs] == ["inner.a-inner.b", "inner.b-c"]


@pytest.mark.parametrize("kind", FORMATS)
def test_attention(tmp_path, kind):
    torch.manual_seed(0)
    d, heads, size = 8, 2, 3
    kernels = {part: torch.randn(d, heads, size) for part in ("query", "key", "value")}
    parts = {part: {"kernel": kernel, "bias": torch.randn(heads, size)}
             for part, kernel in kernels.items()}  # fmt: skip
    out = torch.randn(heads, size, d)
    parts["attention_output"] = {"kernel": out, "bias": torch.randn(d)}
    layers = [Layer("InputLayer", "x"),
              Layer("MultiHeadAttention", "mha", parts=parts, inputs=("x", "x"))]  # fmt: skip
    path = write(tmp_path / "net", layers, kind, outputs=("mha",))
    found = flagscope.scan(path, **OPTIONS).result
    state = {f"mha.{part[0]}_proj.weight": kernel.reshape(d, -1).T.contiguous()
             for part, kernel in kernels.items()}  # fmt: skip
    state["mha.o_proj.weight"] = out.reshape(-1, d).T.contiguous()
    expected = flagscope.scan(state, heads=heads, **OPTIONS).result
    assert [pair.name for pair in found.pairs] == [pair.name for pair in expected.pairs]
    assert {(pair.between, pair.freedom) for pair in found.pairs} == {("linear", "gl")}
    for one, two in zip(found.pairs, expected.pairs, strict=True):
        for key in NUMBERS:
            assert getattr(one, key) == pytest.approx(getattr(two, key), rel=1e-6)
    assert len(found.heads) == len(expected.heads) > 0
    assert not found.unmapped


def test_weights_without_a_model(tmp_path):
    """Without a configuration the order is not known, whatever the names suggest."""
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for name in ("dense", "dense_1"):
            file[f"layers/{name}/vars/0"] = np.eye(4, dtype=np.float32)
            file[f"layers/{name}/vars/1"] = np.ones(4, np.float32)
        file["optimizer/vars/0"] = np.ones(3)
    with open_checkpoint(tmp_path / "a.weights.h5") as checkpoint:
        assert list(checkpoint.tensors) == ["dense.kernel", "dense.bias", "dense_1.kernel",
                                            "dense_1.bias"]  # fmt: skip
        assert any("no configuration" in note for note in checkpoint.notes)
    assert not flagscope.scan(tmp_path / "a.weights.h5", **OPTIONS).result.pairs


def test_quantised_kernel_is_not_taken_for_weights(tmp_path):
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    layers = [Layer("InputLayer", "x"), dense(one, "a"), dense(two, "b")]
    layers[1].variables["kernel"] = layers[1].variables["kernel"].to(torch.int8)
    result = flagscope.scan(write(tmp_path / "net", layers, "h5"), **OPTIONS).result
    assert not result.pairs


def test_tensorflow_model_of_transformers(tmp_path):
    """Names and orientation by transformers' own rule, for BERT and GPT-2."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    bert = transformers.BertModel(transformers.BertConfig(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=24,
        vocab_size=30, max_position_embeddings=9))  # fmt: skip
    gpt2 = transformers.GPT2Model(transformers.GPT2Config(
        n_embd=16, n_head=2, n_layer=2, vocab_size=30, n_positions=9))  # fmt: skip
    for net, prefix in ((bert, "tf_bert_model/bert"), (gpt2, "tfgpt2_model/transformer")):
        folder = tmp_path / type(net).__name__
        folder.mkdir()
        net.config.to_json_file(folder / "config.json")
        root = prefix.partition("/")[2]
        state = {k: v for k, v in net.state_dict().items() if not k.endswith("position_ids")}
        with h5py.File(folder / "tf_model.h5", "w") as file:
            for name, tensor in state.items():
                parts = re.sub(r"(?<!\w)(layer|h)\.", r"\1|", name).split(".")
                value = tensor.numpy()
                if "LayerNorm" in name or ".ln_" in name or name.startswith("ln_"):
                    parts[-1] = {"weight": "gamma", "bias": "beta"}[parts[-1]]
                elif isinstance(net.get_submodule(name.rpartition(".")[0]), nn.Linear):
                    parts[-1] = parts[-1].replace("weight", "kernel")
                    value = value.T
                elif name.endswith("bias"):
                    value = value[None]  # a Conv1D's
                elif "embeddings" in name or name.startswith("w"):
                    parts[-1] = "embeddings"
                file[f"{root}/{prefix}/{'/'.join(parts).replace('|', '_._')}:0"] = value
        with open_checkpoint(folder) as checkpoint:
            stem = f"{root}."
            names = {name.removeprefix(stem): name for name in checkpoint.tensors}
            assert names.keys() == state.keys()
            for name, tensor in state.items():
                assert torch.equal(checkpoint.read(names[name]), tensor), name
        found = flagscope.scan(folder, **OPTIONS).result
        expected = flagscope.scan(state, config=net.config.to_dict(), **OPTIONS).result
        assert found.family == expected.family != "unknown"
        assert len(found.pairs) == len(expected.pairs) > 0
        for one, two in zip(found.pairs, expected.pairs, strict=True):
            assert (one.name, one.freedom) == (two.name, two.freedom)
            assert one.overlap_ratio == pytest.approx(two.overlap_ratio, rel=1e-6)


class TestFile(UsualTypes):
    @pytest.fixture
    def format_name(self):
        return "keras"

    @pytest.fixture(params=["contiguous", "gzip", "big-endian"])
    def checkpoint(self, state, tmp_path, request):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, tensor in state.items():
                if name == "bfloat":
                    opaque = tensor.view(torch.int16).numpy().view("V2")
                    file.create_dataset(name, data=opaque).attrs["dtype"] = "bfloat16"
                    continue
                value = tensor.numpy()
                if request.param == "big-endian" and value.dtype.kind == "f":
                    value = value.astype(value.dtype.newbyteorder(">"))
                packed = request.param == "gzip" and value.size > 2
                file.create_dataset(name, data=value, compression="gzip" if packed else None)
        with open_checkpoint(tmp_path / "a.h5") as checkpoint:
            yield checkpoint


def test_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match="h5py") as error:
        open_checkpoint(tmp_path / "a.h5")
    assert "flagscope[keras]" in error.value.hint


def test_layer_given_as_an_activation(tmp_path):
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    leaky = {"module": "keras.layers", "class_name": "LeakyReLU", "registered_name": None,
             "config": {"name": "leaky", "negative_slope": 0.1}}  # fmt: skip
    layers = [Layer("InputLayer", "x"), dense(one, "a", leaky), dense(two, "b")]
    [pair] = flagscope.scan(write(tmp_path / "net", layers, "keras"), **OPTIONS).result.pairs
    assert (pair.between, pair.freedom) == ("leaky_relu", "scaling")


@pytest.mark.parametrize("module", ["ours.layers", None, "kerasfake"])
def test_class_of_ones_own_under_a_name_of_keras(tmp_path, module):
    """A class that is called Dense need not be one."""
    one, two = (randomised(nn.Linear(8, 8)) for _ in range(2))
    layers = [Layer("InputLayer", "x"), dense(one, "a"), dense(two, "b")]
    path = write(tmp_path / "net", layers, "keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][2]["module"] = module
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    result = flagscope.scan(path, **OPTIONS).result
    assert not result.pairs
    assert any("not across: Dense (behind a)" in note for note in result.notes)


def test_channels_first_and_a_map_that_grows_again(tmp_path):
    """Channels on axis 1, a global mean that is spread out again, and Keras's own flatten."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 1), nn.Linear(20, 7)

        def forward(self, x):
            x = torch.relu(self.a(x)).mean((2, 3), keepdim=True)
            x = torch.tanh(self.b(x)).repeat_interleave(2, 2).repeat_interleave(2, 3)
            return self.c(x.permute(0, 2, 3, 1).flatten(1))

    net = randomised(Net())
    first = {"data_format": "channels_first"}
    layers = [
        Layer("InputLayer", "x"), convolution(net.a, "a", "relu"),
        Layer("GlobalAveragePooling2D", "mean", config={**first, "keepdims": True}),
        convolution(net.b, "b", "tanh"), Layer("UpSampling2D", "up", config=first),
        Layer("Flatten", "flat", config=first), dense(net.c, "c"),
    ]  # fmt: skip
    for layer in layers[1], layers[3]:
        layer.config |= first
    result = flagscope.scan(write(tmp_path / "net", layers, "keras"), **OPTIONS).result
    assert [pair.name for pair in result.pairs] == ["a-b", "b-c"]
    assert [(pair.between, pair.freedom) for pair in result.pairs] == [
        ("relu", "scaling"), ("tanh", "permutation")]  # fmt: skip
    # The reader of the second pair as a map of each position: (s i) o.
    kernel = net.c.weight.T.reshape(4, 5, 7)
    merged = {"b.weight": net.b.weight[:, :, 0, 0],
              "c.weight": kernel.permute(2, 0, 1).reshape(28, 5)}  # fmt: skip
    [expected] = flagscope.scan(
        {"0.weight": merged["b.weight"], "1.weight": merged["c.weight"]}, **OPTIONS
    ).result.pairs
    assert result.pairs[1].overlap_ratio == pytest.approx(expected.overlap_ratio, rel=1e-6)
