"""Residual networks and plain MLPs, proven by function; and their structure on known files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from arch.contract import assert_proven, randomise
from arch.nets import ResNet, image
from flagscope.arch import build_graph

RESNET20 = Path(__file__).parents[3] / "shared/data/resnet20-cifar10/resnet20-12fca82f.th"

RESNETS = {
    "cifar, padded shortcuts": {"shortcut": "", "last": "linear"},
    "cifar, projected shortcuts": {"shortcut": "shortcut", "last": "linear"},
    "torchvision, basic": {},
    "torchvision, bottleneck": {"bottleneck": True},
}


def graph_of(module, config=None, **arguments):
    state = dict(module.state_dict())
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    return build_graph(shapes, config, **arguments), state


def runner(module, given):
    def run(changed):
        with torch.no_grad():
            return torch.func.functional_call(module, changed, given)

    return run


@pytest.mark.parametrize("case", RESNETS)
def test_resnets(case):
    module = randomise(ResNet(**RESNETS[case]), seed=4)
    graph, state = graph_of(module)
    assert graph.family == "resnet"
    assert graph.notes == graph.unmapped == ()
    done = assert_proven(graph, state, runner(module, image()), tolerance=1e-11)
    assert done == {"conv relu scaling", "conv relu permutation"}


@pytest.mark.parametrize("case", RESNETS)
def test_resnet_residual_pairs_meet_in_the_stream(case):
    """Zeroing channel j of all a stage's readers hides what its writers write there."""
    module = randomise(ResNet(**RESNETS[case], blocks=1), seed=5)
    graph, state = graph_of(module)
    run, residual = runner(module, image()), [p for p in graph.pairs if p.kind == "residual"]
    last = [p for p in residual if p.name.endswith(("fc", "linear"))]
    changed = dict(state)
    for group in last:
        read = group.read.map.read_matrices(changed[group.read.map.tensor]).clone()
        read[..., 1] = 0
        reader = group.read.map
        changed[reader.tensor] = reader.replace(changed[reader.tensor], read, view="read")
    reference = run(changed)
    for group in last:
        written = group.write.map.write_matrices(changed[group.write.map.tensor]).clone()
        for channel, moves in ((1, False), (2, True)):
            matrices = written.clone()
            matrices[:, channel] *= 3
            tensor = group.write.map.tensor
            scaled = changed | {tensor: group.write.map.replace(changed[tensor], matrices)}
            assert bool((run(scaled) - reference).abs().max() > 1e-3) == moves


def test_residual_pairs_of_a_bottleneck_network():
    graph, _ = graph_of(ResNet(bottleneck=True))
    names = {p.name: p for p in graph.pairs}
    assert "layer1.0.downsample.0-layer1.1.conv1" in names
    assert "layer1.1.conv3-layer2.0.downsample.0" in names
    assert "conv1-layer1.0.downsample.0" in names
    assert names["layer1.0.conv2-conv3"].write_norm.gain == "layer1.0.bn2.weight"
    assert names["layer1.0.downsample.0-layer1.1.conv1"].write_norm.name == "layer1.0.downsample.1"
    assert names["layer2.1.conv3-fc"].freedom == "outer"


def test_preactivation_is_not_taken_for_the_family():
    shapes = {f"layer{s}.0.conv{c}.weight": (8 * s, 8 if c == 1 else 8 * s, 3, 3)
              for s in (1, 2) for c in (1, 2)}  # fmt: skip
    shapes |= {"layer1.0.bn1.weight": (8,), "layer2.0.bn1.weight": (8,)}
    graph = build_graph(shapes, family="resnet")
    assert {p.freedom for p in graph.pairs} == {"none"}
    assert {p.write_norm for p in graph.pairs} == {None}
    assert any("pre-activation" in note for note in graph.notes)


def test_grouped_convolutions_are_left_out_and_named():
    shapes = {
        "layer1.0.conv1.weight": (8, 4, 1, 1),
        "layer1.0.conv2.weight": (8, 2, 3, 3),
        "layer1.0.conv3.weight": (4, 8, 1, 1),
    }
    graph = build_graph(shapes, family="resnet")
    assert [p.name for p in graph.pairs if p.kind == "conv"] == []
    assert sum("grouped" in note for note in graph.notes) == 2


@pytest.mark.skipif(not RESNET20.exists(), reason="the ResNet-20 file is not here")
def test_resnet20_as_its_authors_stored_it():
    stored = torch.load(RESNET20, map_location="cpu", weights_only=True)["state_dict"]
    graph = build_graph({k.removeprefix("module."): tuple(v.shape) for k, v in stored.items()})
    inner = [p for p in graph.pairs if p.kind == "conv"]
    assert [p.name for p in inner] == [
        f"layer{stage}.{block}.conv1-conv2" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    assert [p.layer for p in inner] == list(range(9))
    residual = [p for p in graph.pairs if p.kind == "residual"]
    assert len(residual) == 10
    assert residual[0].name == "conv1-layer1.0.conv1"
    assert residual[-1].name == "layer3.2.conv2-linear"
    assert graph.unmapped == graph.notes == ()


class LeadingName(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


MLPS = {
    "relu": (nn.ReLU, {"sequential relu scaling", "sequential relu permutation"}),
    "tanh": (nn.Tanh, {"sequential tanh permutation"}),
    "linear": (nn.Identity, {"sequential linear gl"}),
}


@pytest.mark.parametrize("activation", MLPS)
@pytest.mark.parametrize("wrapper", [nn.Sequential, LeadingName])
def test_plain_mlps(activation, wrapper):
    kind, expected = MLPS[activation]
    layers = [nn.Linear(3, 8), kind(), nn.Linear(8, 6, bias=False), kind(), nn.Linear(6, 4)]
    module = randomise(wrapper(*layers), seed=6)
    graph, state = graph_of(module, {"activation": activation})
    given = torch.randn(5, 3, generator=torch.Generator().manual_seed(7)).double()
    prefix = "net." if wrapper is LeadingName else ""
    assert graph.family == "mlp"
    assert [p.name for p in graph.pairs] == [
        f"{prefix}0-{prefix}2", f"{prefix}2-{prefix}4"
    ]  # fmt: skip
    assert assert_proven(graph, state, runner(module, given), tolerance=1e-11) == expected


def test_batchnorm_in_a_sequential_is_folded():
    layers = [nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)]
    module = randomise(nn.Sequential(*layers), seed=8)
    graph, state = graph_of(module, {"activation": "relu"})
    assert graph.pairs[0].write_norm.variance == "1.running_var"
    given = torch.randn(5, 3, generator=torch.Generator().manual_seed(9)).double()
    done = assert_proven(graph, state, runner(module, given), tolerance=1e-11)
    assert done == {"sequential relu scaling", "sequential relu permutation"}


def test_layernorm_in_a_sequential_ends_the_freedom():
    module = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4))
    graph, _ = graph_of(module, {"activation": "relu"})
    assert (graph.pairs[0].between, graph.pairs[0].freedom) == ("norm", "none")


def test_activations_are_unknown_from_weights_alone():
    graph, _ = graph_of(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)))
    assert (graph.pairs[0].between, graph.pairs[0].freedom) == ("unknown", "none")
    assert any("--config" in note for note in graph.notes)


def test_one_layer_alone_has_no_pair_and_says_so():
    graph = build_graph({"0.weight": (4, 3), "0.bias": (4,)})
    assert graph.pairs == ()
    assert graph.unmapped == ("0.weight",)
    assert any("no adjacent pair" in note for note in graph.notes)
