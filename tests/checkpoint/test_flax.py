"""Flax msgpack files: the state dict of the same model in PyTorch."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import flagscope
from checkpoint.test_contract import UsualTypes
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import UnknownDtypeError

msgpack = pytest.importorskip("msgpack")
OPTIONS = {"device": "cpu", "workers": 1, "rank": "participation"}


def array(tensor, dtype=None):
    """An array as flax.serialization packs it."""
    tensor = tensor.detach().contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    name = dtype or str(tensor.dtype).removeprefix("torch.")
    return msgpack.ExtType(1, msgpack.packb((tuple(tensor.shape), name, raw), use_bin_type=True))


def chunked(tensor, size):
    """A large array as flax.serialization splits it."""
    parts = tensor.reshape(-1).split(size)
    return {"__msgpack_chunked_array__": True,
            "shape": {str(i): n for i, n in enumerate(tensor.shape)},
            "chunks": {str(i): array(part) for i, part in enumerate(parts)}}  # fmt: skip


def nested(flat):
    tree = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        at = tree
        for part in parents:
            at = at.setdefault(part, {})
        at[last] = value
    return tree


def save(path, tree):
    path.write_bytes(msgpack.packb(tree, use_bin_type=True))
    return path


def as_flax(net: nn.Module) -> dict:
    """The inverse of the rule by which transformers loads Flax models in PyTorch."""
    flat = {}
    for name, tensor in net.state_dict().items():
        module, _, key = name.rpartition(".")
        owner = net.get_submodule(module)
        if key == "weight" and isinstance(owner, nn.Embedding):
            key = "embedding"
        elif key == "weight" and isinstance(owner, nn.LayerNorm):
            key = "scale"
        elif key == "weight":
            key = "kernel"
            tensor = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        flat[f"{module}.{key}"] = array(tensor)
    return nested(flat)


def models():
    import transformers as hf

    torch.manual_seed(0)
    sizes = {"vocab_size": 30}
    yield hf.BertModel(hf.BertConfig(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=24,
        max_position_embeddings=9, **sizes))  # fmt: skip
    yield hf.GPT2LMHeadModel(hf.GPT2Config(
        n_embd=16, n_head=2, n_layer=2, n_positions=9, bos_token_id=0, eos_token_id=0,
        **sizes))  # fmt: skip
    yield hf.ViTModel(hf.ViTConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=2,
                                   intermediate_size=24, image_size=8, patch_size=4))  # fmt: skip


@pytest.mark.parametrize("number", range(3))
def test_models_of_transformers(tmp_path, number):
    pytest.importorskip("transformers")
    net = list(models())[number]
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    net.config.to_json_file(tmp_path / "config.json")
    save(tmp_path / "flax_model.msgpack", as_flax(net))
    state = net.state_dict()
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensors.keys() == state.keys()
        for name, tensor in state.items():
            assert torch.equal(checkpoint.read(name), tensor), name
            if tensor.ndim == 2:
                assert torch.equal(checkpoint.read(name, (slice(1, 3), 2)), tensor[1:3, 2])
                assert torch.equal(checkpoint.read(name, (1,)), tensor[1])
    found = flagscope.scan(tmp_path, **OPTIONS).result
    expected = flagscope.scan(dict(state), config=net.config.to_dict(), **OPTIONS).result
    assert found.family == expected.family != "unknown"
    assert len(found.pairs) == len(expected.pairs) > 0
    for one, two in zip(found.pairs, expected.pairs, strict=True):
        assert (one.name, one.write, one.read, one.freedom) == (
            two.name, two.write, two.read, two.freedom)  # fmt: skip
        for key in ("overlap_ratio", "commutator_ratio", "gram_correlation", "imbalance"):
            a, b = getattr(one, key), getattr(two, key)
            assert a == (b if b is None else pytest.approx(b, rel=1e-6)), key


def test_training_state(tmp_path):
    """Parameters and statistics of a state; the optimizer's is left out."""
    w, mean = torch.randn(4, 6), torch.rand(6)
    tree = {"step": 7, "params": {"params": {"Dense_0": {"kernel": array(w)}}},
            "batch_stats": {"BatchNorm_0": {"mean": array(mean), "var": array(mean)}},
            "opt_state": {"0": {"mu": {"Dense_0": {"kernel": array(w)}}}, "1": None}}  # fmt: skip
    with open_checkpoint(save(tmp_path / "a.msgpack", tree)) as checkpoint:
        assert list(checkpoint.tensors) == ["Dense_0.weight", "BatchNorm_0.running_mean",
                                            "BatchNorm_0.running_var"]  # fmt: skip
        assert torch.equal(checkpoint.read("Dense_0.weight"), w.T)
        assert any("opt_state" in note for note in checkpoint.notes)


def test_array_in_chunks(tmp_path):
    w = torch.randn(7, 5)
    path = save(tmp_path / "a.msgpack", {"a": {"kernel": chunked(w, 4)}, "b": chunked(w, 35)})
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.read("a.weight"), w.T)
        assert torch.equal(checkpoint.read("a.weight", (slice(1, 4), slice(2, 6))), w.T[1:4, 2:6])
        assert torch.equal(checkpoint.read("b", (6,)), w[6])
        again = pickle.loads(pickle.dumps(checkpoint))
        assert torch.equal(again.read("a.weight"), w.T)


def test_convolutions_and_numbered_layers(tmp_path):
    state = {"Conv_0": torch.randn(8, 3, 5, 5), "Conv_1": torch.randn(4, 8, 3, 3)}
    tree = {"params": {name: {"kernel": array(w.permute(2, 3, 1, 0))} for name, w in state.items()}}
    path = save(tmp_path / "a.msgpack", tree)
    found = flagscope.scan(path, **OPTIONS).result
    [pair] = found.pairs
    assert (pair.kind, pair.d, pair.between, pair.freedom) == ("conv", 8, "unknown", "none")
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.read("Conv_0.weight"), state["Conv_0"])


def test_attention_with_an_axis_of_heads(tmp_path):
    torch.manual_seed(0)
    d, heads, size = 8, 2, 3
    kernels = {part: torch.randn(d, heads, size) for part in ("query", "key", "value")}
    out = torch.randn(heads, size, d)
    tree = {part: {"kernel": array(one), "bias": array(torch.randn(heads, size))}
            for part, one in kernels.items()}  # fmt: skip
    tree["out"] = {"kernel": array(out), "bias": array(torch.randn(d))}
    path = save(tmp_path / "a.msgpack", {"params": {"attn": tree}})
    found = flagscope.scan(path, **OPTIONS).result
    state = {f"attn.{part[0]}_proj.weight": kernel.reshape(d, -1).T.contiguous()
             for part, kernel in kernels.items()}  # fmt: skip
    state["attn.o_proj.weight"] = out.reshape(-1, d).T.contiguous()
    expected = flagscope.scan(state, heads=heads, **OPTIONS).result
    assert len(found.pairs) == len(expected.pairs) == 2 * heads
    for one, two in zip(found.pairs, expected.pairs, strict=True):
        assert (one.name, one.between, one.freedom) == (two.name, "unknown", "none")
        assert one.overlap_ratio == pytest.approx(two.overlap_ratio, rel=1e-6)
    assert len(found.heads) == len(expected.heads) > 0


def test_type_that_pytorch_lacks(tmp_path):
    path = save(tmp_path / "a.msgpack", {"a": array(torch.ones(4), "float4_e2m1fn")})
    with open_checkpoint(path) as checkpoint, pytest.raises(UnknownDtypeError):
        checkpoint.read("a")


class TestFile(UsualTypes):
    @pytest.fixture
    def format_name(self):
        return "flax"

    @pytest.fixture
    def checkpoint(self, state, tmp_path):
        path = save(tmp_path / "a.msgpack", {name: array(one) for name, one in state.items()})
        with open_checkpoint(path) as checkpoint:
            yield checkpoint
