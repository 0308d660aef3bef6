"""Config and weights are held against each other in depth, as they are in width."""

from __future__ import annotations

from typing import Any

import pytest

from flagscope.arch import build_graph

transformers = pytest.importorskip("transformers")


def gpt2(layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (9, 8)}
    for i in range(layers):
        shapes |= {
            f"h.{i}.attn.c_attn.weight": (8, 24), f"h.{i}.attn.c_proj.weight": (8, 8),
            f"h.{i}.mlp.c_fc.weight": (8, 32), f"h.{i}.mlp.c_proj.weight": (32, 8),
        }  # fmt: skip
    return shapes


def notes(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> list[str]:
    return [note for note in build_graph(shapes, config).notes if "the config says" in note]


@pytest.mark.parametrize("key", ["n_layer", "num_hidden_layers"])
def test_a_part_of_a_checkpoint_says_so(key: str) -> None:
    config = {"model_type": "gpt2", "n_head": 2, key: 12}
    assert notes(gpt2(6), config) == [
        f"the config says 12 layers ({key}), and 6 are in this checkpoint under 'h.'"
    ]


def test_more_layers_than_the_config_has() -> None:
    (note,) = notes(gpt2(3), {"model_type": "gpt2", "n_head": 2, "n_layer": 1})
    assert note == (
        "the config says 1 layer (n_layer), and 3 are in this checkpoint under 'h.': do config and "
        "weights belong together?"
    )


@pytest.mark.parametrize("value", [3, None, "3", True, 3.0, [3]])
def test_nothing_is_said_of_what_fits_or_is_no_count(value: object) -> None:
    assert notes(gpt2(3), {"model_type": "gpt2", "n_head": 2, "n_layer": value}) == []


def test_a_model_of_no_known_family() -> None:
    shapes = {f"blocks.{i}.{w}.weight": (8, 8) for i in range(4) for w in ("w_a", "w_b")}
    (note,) = notes(shapes | {"start.weight": (8, 8)}, {"num_layers": 7})
    assert "7 layers (num_layers), and 4 are in this checkpoint under 'blocks.'" in note


def test_two_lists_of_layers_are_not_guessed_at() -> None:
    shapes = {f"{part}.{i}.w.weight": (8, 8) for part in ("left", "right") for i in range(4)}
    assert notes(shapes, {"num_layers": 7}) == []


def test_layers_that_predict_further_tokens_lie_behind_the_last() -> None:
    shapes = {}
    for i in range(3):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{n}.weight": s for n, s in (
            ("q_a_proj", (6, 16)), ("q_b_proj", (24, 6)), ("kv_a_proj_with_mqa", (10, 16)),
            ("kv_b_proj", (32, 6)), ("o_proj", (16, 16)))}  # fmt: skip
        shapes |= {f"{at}mlp.{n}_proj.weight": (16, 16) for n in ("gate", "up", "down")}
    config = {
        "model_type": "deepseek_v3", "num_attention_heads": 2, "hidden_size": 16,
        "kv_lora_rank": 6, "qk_nope_head_dim": 8, "num_hidden_layers": 2,
    }  # fmt: skip
    assert notes(shapes, config | {"num_nextn_predict_layers": 1}) == []
    assert len(notes(shapes, config)) == 1


def _bart() -> Any:
    return transformers.BartModel(transformers.BartConfig(
        d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=32,
        max_position_embeddings=32,
    ))  # fmt: skip


def _t5() -> Any:
    return transformers.T5Model(transformers.T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=3, num_heads=2, vocab_size=32
    ))  # fmt: skip


def _clip() -> Any:
    part = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    return transformers.CLIPModel(transformers.CLIPConfig(
        text_config={**part, "num_hidden_layers": 2, "vocab_size": 32, "bos_token_id": 0,
                     "eos_token_id": 1},
        vision_config={**part, "num_hidden_layers": 3, "image_size": 32, "patch_size": 16},
    ))  # fmt: skip


def _albert() -> Any:
    return transformers.AlbertModel(transformers.AlbertConfig(
        hidden_size=16, num_hidden_layers=5, num_attention_heads=2, intermediate_size=32,
        embedding_size=8, vocab_size=32,
    ))  # fmt: skip


@pytest.mark.parametrize("made", [_bart, _t5, _clip, _albert])
def test_models_of_two_stacks_and_of_one_shared_layer_fit_their_configs(made: Any) -> None:
    model = made()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert notes(shapes, model.config.to_dict()) == []


@pytest.mark.parametrize(("made", "dropped", "said"), [
    (_bart, "decoder.layers.2.", "3 layers (decoder_layers), and 2 are"),
    (_bart, "encoder.layers.1.", "2 layers (encoder_layers), and 1 is"),
    (_t5, "decoder.block.2.", "3 layers (num_decoder_layers), and 2 are"),
    (_clip, "vision_model.encoder.layers.2.",
     "3 layers (vision_config.num_hidden_layers), and 2 are"),
])  # fmt: skip
def test_each_stack_has_its_own_number(made: Any, dropped: str, said: str) -> None:
    model = made()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
              if not name.startswith(dropped)}  # fmt: skip
    (note,) = notes(shapes, model.config.to_dict())
    assert said in note
