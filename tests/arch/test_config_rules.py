"""What family files may ask of a config: sizes under a flag or by stage, rotary by layer."""

import pytest

from arch.cases import build, graph_of
from flagscope.arch import build_graph
from flagscope.errors import ArchitectureError


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("case", "heads"), [("falcon", 1), ("falcon-several-kv", 2), ("falcon-all-kv-alibi", 4)]
)
def test_falcon_key_heads_follow_its_flags(case, heads):
    model, config = build(case)
    graph = graph_of(model.state_dict(), config)
    assert {h.count for h in graph.heads if h.space == "k"} == {heads}
    assert {h.count for h in graph.heads if h.space == "q"} == {4}


def test_swin_heads_and_widths_grow_by_stage():
    model, config = build("swin")
    graph = graph_of(model.state_dict(), config)
    queries = [(h.count, h.d) for h in graph.heads if h.space == "q"]
    assert queries == [(2, 8), (2, 8), (4, 16)]


def test_a_stage_whose_heads_do_not_fit_is_named():
    model, config = build("swin")
    with pytest.raises(ArchitectureError, match=r"num_heads'\[1\]"):
        build_graph(shapes_of(model), {**config, "num_heads": [2, 3]})
    with pytest.raises(ArchitectureError, match="positive integer"):
        build_graph(shapes_of(model), {**config, "num_heads": [2, -1]})


@pytest.mark.parametrize("case", ["llama4", "cohere2"])
def test_layers_without_rotary_embedding_are_free(case):
    model, config = build(case)
    pairs = [p for p in graph_of(model.state_dict(), config).pairs if p.kind == "qk"]
    assert [p.rotary is None for p in pairs] == [False, True]
    assert pairs[1].freedom == "gl"


def test_llama4_without_its_norm_of_queries_and_keys():
    model, config = build("llama4")
    graph = build_graph(shapes_of(model), {**config, "use_qk_norm": False})
    assert [p.freedom for p in graph.pairs if p.kind == "qk"] == ["rotary", "gl"]


def test_clip_towers_have_their_own_heads():
    model, config = build("clip")
    graph = graph_of(model.state_dict(), config)
    assert {(h.stack, h.count) for h in graph.heads} == {("text", 4), ("vision", 2)}


@pytest.mark.parametrize("case", ["mixtral", "deepseek_v3"])
def test_experts_are_named_and_numbered(case):
    model, config = build(case)
    pairs = [p for p in graph_of(model.state_dict(), config).pairs if p.write.map.batch == "e"]
    assert [m.expert for m in pairs[0].members] == [0, 1, 2, 3]
    assert [m.write_index for m in pairs[0].members] == [0, 1, 2, 3]
    assert pairs[0].members[3].name == f"layer.{pairs[0].layer}.expert.3.mlp.up"


def test_latent_attention_has_two_spaces_a_head_and_two_latent_ones():
    model, config = build("deepseek_v3")
    graph = graph_of(model.state_dict(), config)
    first = {p.name: p for p in graph.pairs if p.layer == 0}
    assert first["layer.0.qk"].d == config["qk_nope_head_dim"]
    assert first["layer.0.rope.qk"].d == config["qk_rope_head_dim"]
    assert {m.kv_head for m in first["layer.0.rope.qk"].members} == {0}
    assert first["layer.0.queries"].d == config["q_lora_rank"]
    assert first["layer.0.keysvalues"].d == config["kv_lora_rank"]
    assert first["layer.0.keysvalues"].read_norm.name.endswith("kv_a_layernorm")
    assert {h.space for h in graph.heads} == {"o"}
