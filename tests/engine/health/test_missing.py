"""What is missing is said of names and config, and certain only of the layers of a family."""

from __future__ import annotations

import pytest

from flagscope.arch import build_graph
from flagscope.engine.health.missing import missing_parts
from flagscope.records import Missing

D, F = 16, 24
MATRICES = {f"self_attn.{n}_proj": (D, D) for n in "qkvo"}
MATRICES |= {"mlp.up_proj": (F, D), "mlp.gate_proj": (F, D), "mlp.down_proj": (D, F)}
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 6, "hidden_size": D, "hidden_act": "silu",
    "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": F, "vocab_size": 50,
}  # fmt: skip


def llama(layers: int = 6) -> dict[str, tuple[int, ...]]:
    shapes = {f"model.layers.{i}.{name}.weight": shape
              for i in range(layers) for name, shape in MATRICES.items()}  # fmt: skip
    return shapes | {f"model.layers.{i}.input_layernorm.weight": (D,) for i in range(layers)}


def found(shapes: dict[str, tuple[int, ...]], config: dict | None = CONFIG) -> list[Missing]:
    return missing_parts(shapes, build_graph(shapes, config), config)


def without(shapes: dict[str, tuple[int, ...]], start: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if not name.startswith(start)}


def test_nothing_is_missing_of_a_whole_model():
    assert found(llama()) == []
    assert found(llama(), None) == []


def test_a_gap_between_the_layers_of_a_family_is_certain():
    (one,) = found(without(llama(), "model.layers.3."))
    assert (one.check, one.layers, one.count, one.present) == ("layers", "3", 1, 5)
    assert (one.stack, one.certain) == ("model.layers.", True)


def test_layers_behind_the_last_one_are_missed_by_the_config():
    (one,) = found(llama(4))
    assert (one.layers, one.count, one.said) == ("4-5", 2, "num_hidden_layers = 6")
    assert one.certain
    assert found(llama(4), None) == []


@pytest.mark.parametrize(("layer", "certain"), [(0, False), (2, True), (5, False)])
def test_a_matrix_that_all_other_layers_have(layer: int, certain: bool):
    name = f"model.layers.{layer}.mlp.up_proj.weight"
    (one,) = found(without(llama(), name))
    assert (one.check, one.layers, one.names) == ("tensors", str(layer), [name])
    assert one.certain is certain


def test_a_layer_with_a_matrix_of_its_own_is_of_another_kind():
    shapes = without(llama(), "model.layers.2.mlp.up_proj.weight")
    assert found(shapes | {"model.layers.2.mlp.experts.weight": (F, D)}) == []


def test_vectors_may_differ():
    assert found(without(llama(), "model.layers.2.input_layernorm")) == []


def test_numbers_of_other_modules_have_gaps_by_design():
    vgg = {f"features.{i}.weight": (8, 8, 3, 3) for i in (0, 2, 5, 7, 10)}
    assert found(vgg, None) == []
    blocks = {f"net.{i}.{name}.weight": (8, 8) for i in (0, 1, 3, 4, 6) for name in "abcd"}
    (one,) = found(blocks, None)
    assert (one.layers, one.certain) == ("2,5", False)


def test_layers_that_share_their_weights_are_not_missed():
    shapes = {f"albert.encoder.albert_layer_groups.0.albert_layers.0.{name}.weight": (D, D)
              for name in ("attention.query", "attention.key", "attention.value",
                           "attention.dense", "ffn", "ffn_output")}  # fmt: skip
    config = {"model_type": "albert", "num_hidden_layers": 12, "num_attention_heads": 4,
              "hidden_size": D, "intermediate_size": D}  # fmt: skip
    assert found(shapes, config) == []


def test_a_number_in_a_name_or_a_config_does_not_size_anything():
    shapes = llama() | {"model.layers.999999.mlp.up_proj.weight": (F, D)}
    for one in found(shapes, None):
        assert one.count <= 10_000
        assert len(one.layers) < 200
    assert found(llama(), CONFIG | {"num_hidden_layers": 10**12}) == []
