"""Which map is which."""

import pytest
import torch
from torch import nn

import flagscope
from comparison.change.networks import BERT, LLAMA, bert, compared, graphed, llama
from flagscope.comparison.change.changed_maps import changed_maps
from flagscope.comparison.change.pairing import named_maps, paired_maps


def test_maps_have_names_of_layer_and_role():
    _, graph = graphed(llama(), LLAMA)
    maps = named_maps(graph)
    assert set(maps) == {
        f"decoder.layer.{layer}.{role}"
        for layer in range(2)
        for role in ("q", "k", "v", "o", "up", "gate", "down")
    }
    assert maps["decoder.layer.0.q"].map.outputs == 32
    assert maps["decoder.layer.0.k"].map.outputs == 16
    assert maps["decoder.layer.0.o"].map.inputs == 32
    assert maps["decoder.layer.0.q"].write_freedom == "rotary"
    assert maps["decoder.layer.0.v"].write_freedom == "gl"
    assert maps["decoder.layer.0.q"].read_freedom == "none"


def test_names_of_tensors_do_not_matter():
    a = bert()
    b = {f"bert.{name}": value for name, value in a.items()}
    record = compared(a, b, BERT)
    assert record.identical == 12
    assert record.maps[0].tensor_a != record.maps[0].tensor_b
    assert record.mirrored().maps[0].tensor_a == record.maps[0].tensor_b


def test_different_architectures_share_no_map_of_one_shape_and_say_so():
    (a, graph_a), (b, graph_b) = graphed(bert(), BERT), graphed(llama(), LLAMA)
    record = changed_maps(a, b, graph_a, graph_b)
    assert record.maps == []
    assert len(record.unpaired_a) == 12
    assert len(record.unpaired_b) == 14
    assert record.change is None


def test_maps_of_another_shape_are_unpaired():
    wide = {**BERT, "intermediate_size": 40}
    less = {
        name: value[:40] if "intermediate" in name
        else value[:, :40] if name.endswith(".output.dense.weight") and "attention" not in name
        else value
        for name, value in bert().items()
    }  # fmt: skip
    (a, graph_a), (b, graph_b) = graphed(bert(), BERT), graphed(less, wide)
    record = changed_maps(a, b, graph_a, graph_b)
    assert record.identical == 8
    assert {name.rpartition(".")[2] for name in record.unpaired_a} == {"up", "down"}


@pytest.mark.parametrize("stacked", [False, True])
def test_experts_are_maps_of_their_own(stacked):
    config = {
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 32,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1,
        "intermediate_size": 24, "vocab_size": 20, "num_local_experts": 3, "head_dim": 8,
        "num_experts_per_tok": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 8,
    }  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    a = {
        name: value for name, value in llama(dtype=torch.float32).items()
        if "layers.1" not in name and "mlp" not in name
    }  # fmt: skip
    at = "model.layers.0."
    if stacked:
        a[f"{at}mlp.experts.gate_up_proj"] = torch.randn(3, 48, 32, generator=draw)
        a[f"{at}mlp.experts.down_proj"] = torch.randn(3, 32, 24, generator=draw)
        a[f"{at}mlp.gate.weight"] = torch.randn(3, 32, generator=draw)
    else:
        for expert in range(3):
            for name, shape in {"w1": (24, 32), "w2": (32, 24), "w3": (24, 32)}.items():
                a[f"{at}block_sparse_moe.experts.{expert}.{name}.weight"] = torch.randn(
                    *shape, generator=draw
                )
        a[f"{at}block_sparse_moe.gate.weight"] = torch.randn(3, 32, generator=draw)
    b = {name: value.clone() for name, value in a.items()}
    name = f"{at}mlp.experts.down_proj" if stacked else f"{at}block_sparse_moe.experts.1.w2.weight"
    (b[name][1] if stacked else b[name]).mul_(1.5)
    record = compared(a, b, config)
    moved = [change for change in record.maps if change.status == "ok"]
    assert [(change.role, change.expert) for change in moved] == [("down", 1)]
    assert moved[0].relative_a == pytest.approx(0.5, rel=1e-6)
    assert len({change.name for change in record.maps}) == 4 + 9
    assert paired_maps(*(graphed(side, config)[1] for side in (a, b))).unpaired_a == ()


def sequence(prefix="", seed=0):
    """Tensors of an nn.Sequential of three linear maps, with ReLUs between them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"0": (64, 20), "2": (64, 64), "4": (10, 64)}
    return {
        f"{prefix}{place}.{part}": torch.randn(shape[:axes], generator=generator)
        for place, shape in sizes.items()
        for part, axes in (("weight", 2), ("bias", 1))
    }


@pytest.mark.parametrize("prefix", ["", "net."])
def test_maps_of_a_sequence_are_called_as_they_are_stored(prefix):
    a = sequence()
    b = {f"{prefix}{name}": 1.01 * tensor for name, tensor in a.items()}
    b[f"{prefix}2.weight"] = sequence(seed=1)["2.weight"] + a["2.weight"]
    report = flagscope.compare(a, b)
    change = report.result.change
    assert [entry.tensor_a for entry in change.maps] == ["0.weight", "2.weight", "4.weight"]
    assert {entry.layer for entry in change.maps} == {None}
    (names,) = {tuple(entry.name for entry in change.maps)}
    assert names in [tuple(f"{start}{n}.weight" for n in (0, 2, 4)) for start in ("", prefix)]
    assert [row.map for row in change.layers] == list(names)
    assert f"most in {names[1]} (" in report.verdict.text
    assert "layer 0" not in report.verdict.text
    page = report.to_html()
    assert page.count(f'data-map="{names[1]}"') == page.count(f'data-key="{names[1]}"') == 1


def test_a_map_that_is_written_and_read_is_measured_once():
    """The trace of a module calls the axes of such a map otherwise on either side."""
    a = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    b = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    a.load_state_dict(sequence())
    b.load_state_dict(
        {name: 1.01 * tensor for name, tensor in sequence().items()}
        | {"2.weight": sequence(seed=1)["2.weight"] + sequence()["2.weight"]}
    )
    names = [entry.name for entry in flagscope.compare(a, b).result.change.maps]
    assert names == ["0.weight", "2.weight", "4.weight"]
