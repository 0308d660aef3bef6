"""Layers that hold the same weights are named, and so are matrices of another scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from engine.health.test_units import State, at, healthy, llama
from flagscope.report.health import health_text


def copied(state: State, layer: int, other: int) -> None:
    """Give a layer the weights of another."""
    for name in [name for name in state if f".layers.{layer}." in name]:
        state[name] = state[name.replace(f".layers.{layer}.", f".layers.{other}.")].clone()


def test_a_layer_that_is_a_copy_is_named_once():
    state, config = llama(layers=8)
    copied(state, 7, 3)
    report = flagscope.scan(state, config=config, only="health")
    (first, _) = report.findings
    assert (first.code, first.severity) == ("duplicate-layers", "warning")
    assert first.plain == "Layers 3 and 7 hold the same weights."
    assert report.result.health is not None
    (group,) = report.result.health.equal_layers
    assert (group.stack, group.layers, group.tensors) == ("model.layers.", [3, 7], 9)


def test_several_groups_are_one_finding():
    state, config = llama(layers=8)
    copied(state, 6, 2)
    copied(state, 7, 3)
    report = flagscope.scan(state, config=config, only="health")
    assert [one.plain for one in report.findings if one.code == "duplicate-layers"] == [
        "2 groups of layers hold the same weights, such as layers 2 and 6."
    ]


@pytest.mark.parametrize("name", ["mlp.up_proj", "input_layernorm"])
def test_a_layer_that_differs_in_one_entry_is_no_copy(name: str):
    state, config = llama(layers=5)
    copied(state, 4, 1)
    state[at(4, name)].view(-1)[-1] += 0.5
    assert healthy(state, config).equal_layers == []


def test_layers_that_share_their_tensors_are_no_copies(tmp_path: Path):
    state, config = llama(layers=5)
    for name in [name for name in state if ".layers.4." in name]:
        state[name] = state[name.replace(".layers.4.", ".layers.1.")]
    assert healthy(state, config).equal_layers == []
    # A file that keeps what is shared, as torch.save does.
    torch.save(state, tmp_path / "shared.pt")
    assert healthy(tmp_path / "shared.pt", config).equal_layers == []
    # A file that stores both does not say that they were one.
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "a.safetensors")
    assert [one.layers for one in healthy(tmp_path / "a.safetensors", config).equal_layers] == [
        [1, 4]
    ]


def test_layers_without_a_matrix_of_their_own_are_no_copies():
    state = {f"norms.{i}.weight": torch.ones(20) for i in range(5)}
    state |= {f"empty.{i}.weight": torch.zeros(20, 20) for i in range(5)}
    assert healthy(state).equal_layers == []


@pytest.mark.parametrize("scale", [1e4, 1e-4, 1e-30, 1e25])
def test_a_matrix_of_another_scale_is_a_notice(scale: float):
    state, config = llama(layers=6)
    state[at(5, "mlp.up_proj")] *= scale
    report = flagscope.scan(state, config=config, only="health")
    (first,) = (one for one in report.findings if one.code == "scale-outliers")
    assert first.severity == "info"
    size = "larger" if scale > 1 else "smaller"
    assert first.plain.startswith(f"In layer 5, mlp.up_proj.weight is {size} than in the other")
    text = health_text(report.result)
    assert (text.wrong, text.notices) == ([], [first.plain])
    assert text.headline.startswith("nothing wrong in ")
    assert report.result.health is not None
    (one,) = report.result.health.scale_outliers
    assert one.factor == pytest.approx(max(scale, 1 / scale), rel=0.3)


@pytest.mark.parametrize(("layers", "scale", "name"), [
    (3, 1e6, "mlp.up_proj"),  # too few to know what is usual
    (6, 300.0, "mlp.up_proj"),
    (6, 1e6, "input_layernorm"),  # gains and biases differ that much in sound models
    (6, 0.0, "mlp.up_proj"),  # said as a matrix that is all zero
])  # fmt: skip
def test_what_is_no_outlier(layers: int, scale: float, name: str):
    state, config = llama(layers=layers)
    state[at(2, name)] *= scale
    assert healthy(state, config).scale_outliers == []


def test_scales_that_run_through_the_layers_are_no_outliers():
    state, config = llama(layers=8)
    for layer in range(8):
        state[at(layer, "mlp.up_proj")] *= 10.0**layer
    assert healthy(state, config).scale_outliers == []
