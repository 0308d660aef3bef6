"""A live model of a type that no family has gives what its own folder gives."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

import flagscope
from arch.contract import randomise
from checkpoint.test_packed import gptq
from flagscope.arch.trace import graph as traces
from flagscope.arch.trace import trace_graph
from flagscope.live import module_checkpoint


class Unknown(nn.Module):
    """A model of one's own with a configuration of an unknown type."""

    class Config:
        def to_dict(self):
            return {"model_type": "of_ones_own", "num_attention_heads": 4}

    def __init__(self, followed=True):
        super().__init__()
        self.config = self.Config()
        self.followed = followed
        attention = {name: nn.Linear(16, 16) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        mlp = {"gate_proj": nn.Linear(16, 24), "up_proj": nn.Linear(16, 24),
               "down_proj": nn.Linear(24, 16)}  # fmt: skip
        norms = {name: nn.RMSNorm(16) for name in ("input_layernorm", "post_attention_layernorm")}
        layer = {"self_attn": nn.ModuleDict(attention), "mlp": nn.ModuleDict(mlp), **norms}
        self.layers = nn.ModuleList([nn.ModuleDict(layer)])

    def forward(self, x):
        layer = self.layers[0]
        q, k, v = (
            layer["self_attn"][f"{name}_proj"](x).unflatten(-1, (4, 4)).transpose(1, 2)
            for name in "qkv"
        )
        if not self.followed:  # an operation of which the trace knows nothing
            q, k, v = (torch.fft.fft(one).real for one in (q, k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + layer["self_attn"]["o_proj"](y)
        mlp = layer["mlp"]
        inner = nn.functional.silu(mlp["gate_proj"](x)) * mlp["up_proj"](x)
        return x + mlp["down_proj"](inner if self.followed else torch.fft.fft(inner).real)


def shown(source, **options):
    result = flagscope.scan(source, workers=1, **options).result
    return result.family, [pair.name for pair in result.pairs], [
        (one.layer, one.space) for one in result.heads
    ]  # fmt: skip


def test_names_are_taken_where_they_map_more():
    model = Unknown(followed=False)
    x = torch.zeros(2, 5, 16)
    traced = trace_graph(model, example_inputs=x)
    assert not any(pair.kind in ("qk", "ov") for pair in traced.pairs)
    result = flagscope.scan(model, example_inputs=x, workers=1).result
    config = model.config.to_dict()
    assert shown(model, example_inputs=x) == shown(dict(model.state_dict()), config=config)
    assert result.family not in ("traced", "unknown")
    assert {pair.kind for pair in result.pairs} >= {"qk", "ov"}
    assert all(pair.freedom in ("none", "outer") for pair in result.pairs)
    assert any("tensor names gave more" in note for note in result.notes)


def test_the_trace_is_taken_where_it_maps_as_much():
    model = Unknown()
    x = torch.zeros(2, 5, 16)
    result = flagscope.scan(model, example_inputs=x, workers=1).result
    assert result.family == "traced"
    assert any(pair.freedom == "gl" for pair in result.pairs)


def test_names_are_no_matter_without_a_model_type():
    model = Unknown(followed=False)
    del model.config
    x = torch.zeros(2, 5, 16)
    assert flagscope.scan(model, example_inputs=x, workers=1).result.family == "traced"


def test_a_mere_guess_at_names_leaves_the_trace(monkeypatch):
    model = Unknown(followed=False)
    x = torch.zeros(2, 5, 16)
    inner = traces.build_graph

    def unfamiliar(*args, **kwargs):
        return replace(inner(*args, **kwargs), family="unknown")

    monkeypatch.setattr(traces, "build_graph", unfamiliar)
    _, module, _ = module_checkpoint(model)
    assert traces.module_graph(module, model.config.to_dict(), example_inputs=x).family == "traced"


def test_packed_layers_of_a_live_module_are_unpacked():
    class Unrunnable(nn.Module):
        def forward(self, x):
            raise RuntimeError("its kernels run elsewhere")

    state, config, _, _ = gptq()
    net, layer = Unrunnable(), nn.Module()
    for name, tensor in state.items():
        layer.register_buffer(name.removeprefix("fc."), tensor)
    net.add_module("0", layer)
    net.add_module("1", nn.Linear(48, 8))
    result = flagscope.scan(net, config=config, workers=1).result
    expected = flagscope.scan(dict(net.state_dict()), config=config, workers=1).result
    assert [pair.name for pair in result.pairs] == ["0-1"]
    assert [pair.model_dump() for pair in result.pairs] == [
        pair.model_dump() for pair in expected.pairs
    ]


MODELS = {
    "gpt_oss": (
        transformers.GptOssForCausalLM,
        transformers.GptOssConfig(
            vocab_size=64, hidden_size=32, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=2,
            num_experts_per_tok=1,
        ),
    ),
    "gpt_bigcode": (
        transformers.GPTBigCodeForCausalLM,
        transformers.GPTBigCodeConfig(
            vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=32, bos_token_id=0,
            eos_token_id=0,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_a_live_model_gives_no_less_than_its_folder(model, tmp_path):
    kind, config = MODELS[model]
    live = randomise(kind(config), 1).eval()
    live.save_pretrained(tmp_path)
    counts = []
    for source in (live, tmp_path):
        result = flagscope.scan(source, workers=1).result
        assert not result.failures
        counts.append((len(result.pairs), len(result.heads)))
    assert counts[0] >= counts[1]
    assert counts[0][0] >= 8
    assert counts[0][1] >= 2
