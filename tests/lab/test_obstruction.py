"""The derivation against brute force and backpropagation, the ledger, and the verdicts' rules."""

import pytest
import torch

from flagscope.errors import InputError
from flagscope.lab import Measured, Options
from flagscope.lab.experiments.obstruction.experiment import EXPERIMENT, RIDGE
from flagscope.lab.imbalance import (
    ImbalanceLedger,
    gradient_drive,
    homogeneity_drive,
    imbalance_matrix,
    mask_drive,
)
from flagscope.lab.neurons import drives, open_network
from flagscope.lab.training import Optimiser, mean_square, train

ACTIVATIONS = ("linear", "leaky:0.3", "relu", "tanh", "gelu", "gated:silu", "gated:relu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_drives_are_the_sums_of_the_derivation():
    z, p, d, h = (normal(2, 5, 3, seed=i) for i in range(4))
    masks, rest = torch.zeros(2, 3, 3).double(), torch.zeros(2, 3, 3).double()
    e = h - d * z
    for s in range(2):
        for n in range(5):
            for i in range(3):
                for j in range(3):
                    cross = p[s, n, i] * z[s, n, j] - p[s, n, j] * z[s, n, i]
                    masks[s, i, j] -= (d[s, n, i] - d[s, n, j]) * cross
                    rest[s, i, j] += p[s, n, i] * e[s, n, j] + e[s, n, i] * p[s, n, j]
    torch.testing.assert_close(mask_drive(z, p, d), masks)
    torch.testing.assert_close(homogeneity_drive(z, h, p, d), rest)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_terms_are_all_that_the_gradient_does(activation):
    network = open_network(activation, 6, 5, 3, seeds=[0, 1])
    x, y = normal(20, 6, seed=7), normal(20, 3, seed=8)
    output, neurons = network(x)
    loss = mean_square(output, y)
    terms = drives(neurons, loss)
    loss.backward()
    for maps, (masks, rest) in zip(network.pairs.values(), terms, strict=True):
        drive = gradient_drive(*maps)
        torch.testing.assert_close(masks + rest, drive, rtol=0, atol=1e-13)
        assert float(masks.diagonal(dim1=-2, dim2=-1).abs().max()) < 1e-15


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_short_step_moves_the_imbalance_as_the_flow_says(activation):
    network = open_network(activation, 6, 5, 3, seeds=[0])
    x, y, step, decay = normal(20, 6, seed=7), normal(20, 3, seed=8), 1e-7, 0.3
    before = {name: imbalance_matrix(*maps) for name, maps in network.pairs.items()}
    output, neurons = network(x)
    loss = mean_square(output, y)
    terms = drives(neurons, loss)
    loss.backward()
    Optimiser(step=step, decay=decay).build([*network.weights.values()]).step()
    for (name, maps), (masks, rest) in zip(network.pairs.items(), terms, strict=True):
        speed = (imbalance_matrix(*maps) - before[name]) / step
        predicted = -2 * decay * before[name] + masks + rest
        # one term of second order in the step, and the round-off of the difference
        torch.testing.assert_close(speed, predicted, rtol=0, atol=1e-5)


def booked(activation: str) -> dict[str, ImbalanceLedger]:
    network = open_network(activation, 6, 5, 3, seeds=[0, 1])
    x, y = normal(20, 6, seed=7), normal(20, 3, seed=8)
    ledgers = {n: ImbalanceLedger(*maps, 0.05, 0.02) for n, maps in network.pairs.items()}
    optimiser = Optimiser(step=0.05, decay=0.02).build([*network.weights.values()])

    def book(*_):
        for ledger in ledgers.values():
            ledger.book()

    optimiser.register_step_pre_hook(book)
    train(optimiser, lambda _: mean_square(network(x)[0], y), steps=80)
    return ledgers


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_ledger_adds_up_to_the_imbalance(activation):
    for name, ledger in booked(activation).items():
        whole = imbalance_matrix(ledger.write, ledger.read)
        parts = ledger.initial + ledger.driven + ledger.finite
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-13)
        diagonal = ledger.driven.diagonal(dim1=-2, dim2=-1).abs().max()
        everywhere = ledger.driven.abs().max()
        linear = activation == "linear" or name == "down-out"
        # up is as good as homogeneous whatever the gate; the gate only where it is a ReLU
        homogeneous = activation in ("leaky:0.3", "relu", "gated:relu") or name == "up-down"
        assert (everywhere < 1e-14) == linear
        assert (diagonal < 1e-14) == (linear or homogeneous)


def test_ledger_wants_gradients():
    network = open_network("relu", 4, 4, 2, seeds=[0])
    with pytest.raises(InputError, match="no gradient"):
        ImbalanceLedger(*network.pairs["1-2"], 0.1, 0.1).book()


def test_a_seed_does_not_depend_on_its_company():
    (cell, *_) = [c for c in EXPERIMENT.cells(Options(quick=True)) if c.name == "gated-silu"]
    short = {"steps": 20, "judged": 20, "moments": 2, "limit": 32, "width": 8}
    together = EXPERIMENT.measure(replaced(cell, **short, seeds=[3, 5]), lambda _: None)
    alone = EXPERIMENT.measure(replaced(cell, **short, seeds=[5]), lambda _: None)
    for one, other in zip(together["series"], alone["series"], strict=True):
        assert one["up-down"]["C"][1] == pytest.approx(other["up-down"]["C"][0], rel=1e-9)
        assert one["up-down"]["drive error"][0] < 1e-13


def replaced(cell, **settings):
    return type(cell)(cell.name, cell.settings | settings)


def planted(values: dict[str, list[float]]) -> list[Measured]:
    """Cells of two kinds of network with the C given, all else as the theory has it."""
    cells = {c.settings["activation"]: c for c in EXPERIMENT.cells(Options())
             if c.settings["decay"] == RIDGE}  # fmt: skip
    measured = []
    for name, commutators in values.items():
        n = len(commutators)
        cell = replaced(cells[name], seeds=list(range(n)), steps=10, judged=10)
        quantities = ("nu", "rho", "driven", "driven diagonal", "driven share", "drive error")
        pair = {q: [1e-16] * n for q in quantities}
        pair |= {"C": commutators, "initial diagonal": [1.0] * n}
        pair |= {"mask drive": [2.0] * n, "homogeneity drive": [0.5] * n}
        series = [{"step": 10, "1-2": pair}]
        measured.append(Measured(cell, {"pairs": ["1-2"], "series": series}, 1.0))
    return measured


@pytest.mark.parametrize(
    ("linear", "relu", "verdicts"),
    [
        ([1e-7, 1.1e-7, 1.2e-7], [0.7, 0.8, 0.9], ("confirmed", "confirmed")),
        ([1e-3, 1.1e-3, 1.2e-3], [0.7, 0.8, 0.9], ("refuted", "confirmed")),
        ([1e-7, 1.1e-7, 1.2e-7], [0.01, 0.012, 0.011], ("confirmed", "refuted")),
        ([1e-7, 1.1e-7, 1.2e-7], [0.01, 0.8, 0.4], ("confirmed", "open")),
    ],
)
def test_verdicts_follow_the_intervals(linear, relu, verdicts):
    findings = EXPERIMENT.conclude(planted({"linear": linear, "relu": relu}))
    assert tuple(f.verdict for f in findings[:2]) == verdicts
    assert f"The least C of a single seed is {min(relu):.2g}, " in findings[1].words
    (ledger,) = [f for f in findings if "found at the end" in f.claim]
    assert "relu 0.25." in ledger.words
    (terms,) = [f for f in findings if f.claim.startswith("The masks and the failure")]
    assert terms.estimates[0].n == len(linear)  # seeds, not networks
