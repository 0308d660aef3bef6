"""Modules outside of the layers are missed where the config's family has them, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

import flagscope
from engine.health.test_units import healthy, llama
from flagscope.arch import build_graph
from flagscope.arch.rules import load_families
from flagscope.report.health import health_text

UNTIED = {"tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"]}


def warnings(state: Any, config: dict[str, Any] | None) -> list[tuple[str, str]]:
    report = flagscope.scan(state, config=config, only="health")
    return [(one.code, one.plain) for one in report.findings if one.severity == "warning"]


@pytest.mark.parametrize("module", ["model.embed_tokens", "model.norm"])
def test_a_module_that_every_model_of_the_family_has(module: str):
    state, config = llama()
    assert warnings(state, config) == []
    del state[f"{module}.weight"]
    assert warnings(state, config) == [
        ("missing-tensors", f"{module} is missing, which the config asks for (model_type = llama).")
    ]


def test_the_headline_says_what_was_looked_for():
    state, config = llama()
    assert (
        "; outside the layers model.embed_tokens and model.norm are there, and what else may "
        in (health_text(flagscope.scan(state, config=config, only="health").result).headline)
    )
    # Without a config it is not known what there should be.
    del state["model.norm.weight"]
    assert healthy(state).outside is None
    assert healthy(state).missing == []
    headline = health_text(flagscope.scan(state, only="health", heads=4).result).headline
    assert headline.endswith("tensors outside the numbered layers are missing is not known")


@pytest.mark.parametrize(("said", "missing"), [
    (UNTIED, True),
    ({**UNTIED, "tie_word_embeddings": True}, False),
    ({"architectures": ["LlamaForCausalLM"]}, False),  # the config does not say whether it is tied
    ({"tie_word_embeddings": False}, False),  # nor here, whether the model has one
    ({**UNTIED, "architectures": ["LlamaModel"]}, False),
])  # fmt: skip
def test_an_unembedding_is_missed_where_the_config_says_that_it_is_not_tied(said, missing):
    state, config = llama()
    found = warnings(state, {**config, **said})
    assert [code for code, _ in found] == ["missing-tensors"] * missing
    if missing:
        assert "lm_head is missing" in found[0][1]
        assert "tie_word_embeddings = false" in found[0][1]
        # The config of the whole model, with the weights of the model without its head.
        bare = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        assert warnings(bare, {**config, **said}) == []


def test_a_module_of_a_live_model_is_not_missed():
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=50,
    )  # fmt: skip
    layers = transformers.LlamaModel(config)
    del layers.embed_tokens
    assert healthy(layers, config.to_dict()).outside is None


def test_an_encoder_needs_no_head_and_a_tied_table_one_name():
    config = transformers.T5Config(
        d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4, vocab_size=50
    )
    state = transformers.T5EncoderModel(config).state_dict()
    del state["shared.weight"]
    assert warnings(state, config.to_dict()) == []
    del state["encoder.embed_tokens.weight"]
    assert [code for code, _ in warnings(state, config.to_dict())] == ["missing-tensors"]


def test_a_packed_module_counts_as_there():
    state, config = llama()
    state["model.norm.base_layer.weight"] = state.pop("model.norm.weight")
    assert warnings(state, config) == []


def test_another_family_or_a_guess_asks_for_nothing():
    state, config = llama()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert build_graph(shapes, config).outside
    assert build_graph(shapes, None).outside == ()
    assert build_graph(shapes, {**config, "model_type": "unheard"}).outside == ()


def test_most_families_with_layers_say_what_lies_outside():
    stacks = [stack for family in load_families().values() for stack in family.stacks]
    assert len([stack for stack in stacks if stack.outside]) >= 40
