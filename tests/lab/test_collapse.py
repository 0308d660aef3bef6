import json
from itertools import pairwise
from math import inf

import numpy as np
import pytest
import torch
from torch import nn

from flagscope.diagnose import alignment_levels
from flagscope.errors import InputError
from flagscope.lab import Cell, Estimate, Measured, Options
from flagscope.lab.data import Images
from flagscope.lab.experiments.collapse.experiment import EXPERIMENT
from flagscope.lab.experiments.collapse.findings import arrivals, configuration_verdict
from flagscope.lab.experiments.collapse.residual_networks import initial_residual_network
from flagscope.lab.experiments.collapse.terminal_phase import (
    Perceptrons,
    SmallResNets,
    balanced_part,
    measure,
    pair_grades,
    terminal_phase,
)
from flagscope.lab.rank_rule import lab_rule
from flagscope.lab.training import Optimiser

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(n=60, classes=3, pixels=16):
    """Noisy copies of one picture a class, easy to tell apart."""
    labels = torch.arange(n) % classes
    inputs = 0.5 * normal(classes, pixels, seed=1)[labels] + 0.5 * normal(n, pixels, seed=2)
    return Images("planted", inputs.float(), labels, classes)


# Residual networks against modules of PyTorch -----------------------------------------------------


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        stride = 2 if after > before else 1
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.pad, self.stride = after - before, stride

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = x.new_zeros(len(x), self.pad, *x.shape[2:])
        return torch.relu(y + torch.cat([x, zeros], dim=1))


def as_module(network, seed):
    """One seed of the batched network as ordinary modules."""
    channels = [network.stem.weight.shape[1], *(b[0].weight.shape[1] for b in network.blocks)]
    module = nn.Sequential(
        nn.Conv2d(1, channels[0], 3, padding=1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU(),
        *(Block(a, b) for a, b in pairwise(channels)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], network.weight.shape[1]),
    ).double()  # fmt: skip
    blocks = [m for m in module if isinstance(m, Block)]
    layers = [(module[0], module[1], network.stem)]
    for block, (first, second) in zip(blocks, network.blocks, strict=True):
        layers += [(block.conv1, block.bn1, first), (block.conv2, block.bn2, second)]
    with torch.no_grad():
        for convolution, norm, layer in layers:
            convolution.weight.copy_(layer.weight[seed])
            norm.weight.copy_(layer.gain[seed])
            norm.bias.copy_(layer.shift[seed])
        module[-1].weight.copy_(network.weight[seed])
        module[-1].bias.copy_(network.bias[seed])
    return module


@pytest.fixture
def network():
    found = initial_residual_network([3, 5, 5, 7], 4, seeds=[0, 1, 2], dtype=torch.float64)
    with torch.no_grad():
        for i, parameter in enumerate(found.parameters):
            parameter += 0.1 * normal(*parameter.shape, seed=i)
    return found


def test_batched_residual_network_is_that_of_modules(network):
    x = normal(6, 8, 8, seed=9)
    own = normal(3, 6, 8, 8, seed=10)
    for seed in range(3):
        module = as_module(network, seed)
        torch.testing.assert_close(network(x)[seed], module(x[:, None]), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(
            network(own)[seed], module(own[seed][:, None]), rtol=1e-11, atol=1e-12
        )
        torch.testing.assert_close(
            network.features(x)[seed], module[:-1](x[:, None]), rtol=1e-11, atol=1e-12
        )


def test_seeds_of_a_residual_network_do_not_mix(network):
    network(normal(6, 8, 8, seed=9))[1].square().sum().backward()
    for parameter in network.parameters:
        assert parameter.grad[1].abs().max() > 0
        assert not parameter.grad[[0, 2]].any()
    alone = initial_residual_network([3, 5], 4, seeds=[2])
    among = initial_residual_network([3, 5], 4, seeds=[0, 2])
    for one, other in zip(alone.parameters, among.parameters, strict=True):
        assert torch.equal(one[0], other[1])


def test_pairs_of_a_residual_network_fold_the_normalisation(network):
    x = normal(6, 8, 8, seed=9)
    pairs = network.pairs(x)
    assert list(pairs) == ["block1", "block2", "block3", "last"]
    for seed in range(3):
        module = as_module(network, seed)
        h = module[2](module[1](module[0](x[:, None])))
        block = module[3]
        raw = block.conv1(h)
        # A change of the input through folded weights alone is that of the normalised output.
        w1 = pairs["block1"][0][seed].reshape(block.conv1.weight.shape)
        folded = nn.functional.conv2d(h, w1, stride=2, padding=1)
        normalised = block.bn1(raw)
        shift = (normalised - folded).detach()
        assert shift.std((0, 2, 3)).max() < 1e-12
        w2 = pairs["block1"][1][seed]
        expected = block.conv2.weight.detach().permute(0, 2, 3, 1).reshape(-1, 5)
        torch.testing.assert_close(w2, expected)
        last = module[5]
        inner = torch.relu(last.bn1(last.conv1(module[4](module[3](h)))))
        scale = last.bn2.weight / (last.conv2(inner).var((0, 2, 3), correction=0) + 1e-5).sqrt()
        expected = (scale[:, None] * last.conv2.weight.flatten(1)).detach()
        torch.testing.assert_close(pairs["last"][0][seed], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(pairs["last"][1][seed], network.weight[seed].detach())


# Training and measuring ---------------------------------------------------------------------------


def test_balanced_part_takes_as_many_of_each_class():
    data = images()
    uneven = Images("uneven", data.inputs[:50], data.labels[:50], 3)
    part = balanced_part(uneven, per_class=20)
    assert torch.bincount(part.labels).tolist() == [16, 16, 16]
    assert balanced_part(uneven, per_class=4).inputs.shape == (12, 16)


@pytest.mark.parametrize("loss", ["mse", "ce"])
@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_collapse_comes_on_easy_data(kind, loss):
    data = images()
    seeds = [0, 1]
    nets = Perceptrons([16, 12, 12, 3], seeds) if kind == "mlp" else SmallResNets([4, 8], 3, seeds)
    values = terminal_phase(
        nets, data, seeds=seeds, loss=loss, batch=30, steps=150, records=4,
        optimiser=Optimiser(step=0.05, momentum=0.9, decay=1e-3), report=lambda _: None,
    )  # fmt: skip
    series = values["series"]
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["steps"][0] == 0
    assert values["steps"][-1] == 150
    assert all(len(run) == len(values["steps"]) for runs in series.values() for run in runs)
    assert all(run[-1] == 1.0 for run in series["accuracy"])
    assert all(run[-1] < min(0.1, run[0]) for run in series["nc1"])
    assert ("last/balanced basis" in series) == (kind == "mlp")
    # The seeds are not copies of each other.
    assert series["nc1"][0] != series["nc1"][1]


def test_measured_quantities_are_those_of_the_network():
    data = images()
    nets = Perceptrons([16, 12, 12, 3], [0, 1])
    with torch.no_grad():
        row = measure(nets, data, 2)[1]
    w = [weight[1].detach().double() for weight in nets.network.weights]
    h = data.inputs.double()
    for weight in w[:-1]:
        h = torch.relu(h @ weight.mT)
    y, k = data.labels, 3
    assert row["accuracy"] == pytest.approx(float(((h @ w[2].mT).argmax(1) == y).double().mean()))
    mu = torch.stack([h[y == c].mean(0) for c in range(k)])
    m = mu - mu.mean(0)
    within = (h - mu[y]).mT @ (h - mu[y]) / len(h)
    between = torch.linalg.pinv(m.mT @ m / k, rtol=1e-8)
    # Features are those of a float32 network.
    assert row["nc1"] == pytest.approx(float((within @ between).trace() / k), rel=1e-4)
    assert row["nc3"] == pytest.approx(float((w[2] / w[2].norm() - m / m.norm()).norm()), rel=1e-5)
    u = torch.linalg.svd(w[1])[0][:, :2]
    v = torch.linalg.svd(w[2])[2][:2].mT
    assert row["last/subspace"] == pytest.approx(float((u.mT @ v).square().sum() / 2), rel=1e-9)


def test_balanced_grades_do_not_see_scales_of_neurons():
    w1, w2 = normal(2, 12, 16, seed=1), normal(2, 9, 12, seed=2)
    scales = normal(12, seed=3).exp()
    before = pair_grades(w1, w2, classes=5)
    after = pair_grades(scales[:, None] * w1, w2 / scales, classes=5)
    for one, other in zip(before, after, strict=True):
        for grade in ("balanced subspace", "balanced basis"):
            assert other[grade] == pytest.approx(one[grade], rel=1e-9)
        assert abs(other["subspace"] - one["subspace"]) > 0.01
    assert before[0]["rank"] == alignment_levels(w1, w2, rule=lab_rule())[0].rank


def test_pictures_must_be_square():
    with pytest.raises(InputError, match="15 pixels"):
        SmallResNets([4], 3, [0])(torch.ones(2, 15))


# Verdicts -----------------------------------------------------------------------------------------


def estimate(low, high=None):
    high = low if high is None else high
    return Estimate("", (low + high) / 2, low, high, 5)


@pytest.mark.parametrize(
    ("nc1", "nc4", "subspace", "basis", "verdict"),
    [
        (0.01, 1.0, 0.95, 0.3, "confirmed"),
        (0.01, 1.0, (0.95, 1.0), 0.3, "confirmed"),
        ((-0.01, 0.05), (0.995, 1.0), 0.95, 0.3, "confirmed"),
        (0.01, 1.0, 0.5, 0.3, "refuted"),
        (0.01, 1.0, 0.97, 0.95, "refuted"),
        (0.01, 1.0, (0.85, 0.97), 0.3, "open"),
        (0.01, 1.0, 0.97, (0.85, 0.97), "open"),
        (0.5, 1.0, 0.95, 0.3, "open"),
        (0.01, 0.9, 0.95, 0.3, "open"),
        ((0.05, 0.2), 1.0, 0.95, 0.3, "open"),
    ],
)
def test_the_rule_of_the_verdict(nc1, nc4, subspace, basis, verdict):
    values = [
        estimate(*x) if isinstance(x, tuple) else estimate(x) for x in (nc1, nc4, subspace, basis)
    ]
    assert configuration_verdict(*values) == verdict


def test_one_seed_leaves_the_verdict_open():
    one = [Estimate("", x, None, None, 1) for x in (0.01, 1.0, 0.95, 0.3)]
    assert configuration_verdict(*one) == "open"


def planted(**series):
    names = ("nc1", "nc2", "nc3", "nc4", "last/rank", "last/subspace", "last/basis")
    full = {name: [[0.5] * 4, [0.5] * 4] for name in names} | series
    settings = {"network": "mlp", "loss": "ce", "decay": 0.0, "seeds": [0, 1]}
    return Measured(Cell("planted", settings), {"steps": [0, 1, 10, 100], "series": full}, 1.0)


def test_arrival_is_for_good():
    m = planted(
        nc1=[[9, 0.01, 9, 0.01], [9, 0.01, 0.01, 0.01]], nc4=[[1, 1, 1, 1], [0, 0, 0, None]]
    )
    first, second = arrivals(m)
    assert (first["NC1"], second["NC1"]) == (100, 1)
    assert (first["NC4"], second["NC4"]) == (0, inf)
    assert list(first)[:2] == ["NC4", "NC1"]


def test_the_order_of_levels_is_judged_by_seed():
    up = [[0, 0, 0.95, 0.95]] * 2
    late = [[0, 0, 0, 0.95]] * 2
    ordered = planted(**{"last/rank": up, "last/subspace": up})
    swapped = planted(**{"last/rank": late, "last/subspace": up})
    verdicts = [EXPERIMENT.conclude([m])[-1].verdict for m in (ordered, swapped, planted())]
    assert verdicts == ["confirmed", "refuted", "open"]


def test_a_quantity_that_is_missing_leaves_a_finding_open():
    m = planted(**{"last/basis": [[0.5, 0.5, 0.5, None], [0.5] * 4]})
    finding = EXPERIMENT.conclude([m])[0]
    assert finding.verdict == "open"
    assert "no last/basis" in finding.words


def test_quick_cells_measure_conclude_and_draw():
    cells = EXPERIMENT.cells(Options(quick=True))
    assert len(cells) == len({cell.name for cell in cells}) == 8
    chosen = [cells[0], cells[-1]]
    short = [
        Cell(c.name, c.settings | {"steps": 6, "records": 3, "per_class": 5}, c.cost)
        for c in chosen
    ]
    measured = [Measured(c, EXPERIMENT.measure(c, lambda _: None), 1.0) for c in short]
    again = EXPERIMENT.measure(short[0], lambda _: None)
    assert again == measured[0].values
    findings = EXPERIMENT.conclude(measured)
    assert len(findings) == 3
    table = EXPERIMENT.table(measured)
    assert list(table.columns) == ["cell", "seed", "step", "quantity", "value"]
    assert np.isfinite(table.value).all()
    assert set(EXPERIMENT.draw(measured, findings)) == {name for name, _ in EXPERIMENT.figures}
