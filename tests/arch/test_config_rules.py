"""What family files may ask of a config: sizes under a flag or by stage, rotary by layer."""

import pytest
import torch
import transformers

from arch.cases import CASES, build, graph_of
from flagscope.arch import build_graph
from flagscope.arch.rules import load_families
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


# Where configs leave out what equals the default of their class, as older transformers wrote the
# parts of composite ones: these are the sections of the published SigLIP, LLaVA and Gemma 3 4B.
LEFT_OUT = {
    "siglip": {"text_config": {"model_type": "siglip_text_model"},
               "vision_config": {"model_type": "siglip_vision_model"}},
    "clip": {"text_config": {"model_type": "clip_text_model"},
             "vision_config": {"model_type": "clip_vision_model"}},
    "gemma3": {"text_config": {"model_type": "gemma3_text", "hidden_size": 2560},
               "vision_config": {"model_type": "siglip_vision_model"}},
    "llava": {"text_config": {"model_type": "llama"},
              "vision_config": {"model_type": "clip_vision_model"}},
}  # fmt: skip


@pytest.mark.parametrize("model_type", LEFT_OUT)
def test_what_a_section_leaves_out_is_the_default_of_its_class(model_type):
    config = {"model_type": model_type, **LEFT_OUT[model_type]}
    whole = transformers.AutoConfig.for_model(**config)
    for part in (whole.text_config, whole.vision_config):
        part.num_hidden_layers = 1
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(whole)
    graph = build_graph(shapes_of(model), config)
    text, vision = whole.text_config, whole.vision_config
    counts = {(h.stack, h.space): (h.count, h.rank) for h in graph.heads}
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    stack = "text" if model_type in ("siglip", "clip") else "decoder"
    shared = getattr(text, "num_key_value_heads", text.num_attention_heads)
    assert counts[stack, "q"] == (text.num_attention_heads, size)
    assert counts[stack, "k"] == (shared, size)
    if stack == "text":
        assert counts["vision", "q"][0] == vision.num_attention_heads


@pytest.mark.parametrize("case", CASES)
def test_defaults_of_sizes_are_those_of_the_config_class(case):
    """Families that have a default for a size take that of the class."""
    model, config = build(case)
    sizes = load_families()[graph_of(model.state_dict(), config).family].sizes
    defaults = type(model.config)()
    defaults = getattr(defaults, "text_config", defaults)
    for axis, names in {"h": "num_attention_heads", "g": "num_key_value_heads",
                        "k": "head_dim"}.items():  # fmt: skip
        for path in sizes.get(axis, ()):
            if path.startswith("model_type?"):
                assert int(path.partition("?")[2]) == getattr(defaults, names), (case, axis)


@pytest.mark.parametrize("listed", [[], None])
def test_llama4_leaves_every_fourth_layer_unturned_where_no_list_says(listed):
    text = transformers.Llama4TextConfig(
        num_hidden_layers=8, hidden_size=16, num_attention_heads=4, num_key_value_heads=2,
        head_dim=4, intermediate_size=8, intermediate_size_mlp=8, vocab_size=11,
        num_local_experts=2, no_rope_layers=listed,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.Llama4ForCausalLM(text)
    graph = build_graph(shapes_of(model), {**text.to_dict(), "no_rope_layers": listed})
    turned = [p.rotary is not None for p in graph.pairs if p.kind == "qk"]
    assert turned == [bool(one) for one in text.no_rope_layers]
    assert turned == [True, True, True, False] * 2


def test_cohere2_before_its_list_of_layers():
    text = transformers.Cohere2Config(num_hidden_layers=6, hidden_size=16, num_attention_heads=4,
                                      num_key_value_heads=2, intermediate_size=8,
                                      vocab_size=11)  # fmt: skip
    with torch.device("meta"):
        model = transformers.Cohere2ForCausalLM(text)
    older = {k: v for k, v in text.to_dict().items() if k != "layer_types"}
    graph = build_graph(shapes_of(model), {**older, "sliding_window_pattern": 3})
    turned = [p.rotary is not None for p in graph.pairs if p.kind == "qk"]
    assert turned == [True, True, False] * 2
    # as transformers counts them
    whole = transformers.Cohere2Config(num_hidden_layers=6, sliding_window_pattern=3)
    assert turned == [one == "sliding_attention" for one in whole.layer_types]


def test_the_language_model_of_several_parts_whose_type_is_unknown():
    """Its heads are told apart by its own config; no freedom is claimed."""
    model, config = build("llava")
    strange = {**config, "text_config": {**config["text_config"], "model_type": "strange"}}
    graph = build_graph(shapes_of(model), strange)
    assert {(h.space, h.count) for h in graph.heads} == {("q", 4), ("k", 2), ("v", 2), ("o", 4)}
    assert {p.freedom for p in graph.pairs} <= {"none", "outer"}
    assert any("'strange'" in note for note in graph.notes)
    assert all("vision" not in h.map.tensor for h in graph.heads)


def test_a_family_that_is_named_takes_the_language_models_config():
    model, config = build("gemma3-parts")
    strange = {**config, "text_config": {**config["text_config"], "model_type": "strange"}}
    graph = build_graph(shapes_of(model), strange, family="gemma3")
    assert graph.pairs == build_graph(shapes_of(model), config).pairs
