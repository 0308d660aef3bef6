"""Obstruction: what an activation between two maps does to their imbalance, term by term.

Neuron i of the shared space has preactivation z_i = (W1 x)_i, value h_i = φ_i(z_i) and derivative
D_i = dh_i/dz_i; δ is the gradient of the loss at W2's output, p = W2ᵀ δ that at h; sums run over
the examples n. Backpropagation gives G1 = Σ (D∘p) xᵀ and G2 = Σ δ hᵀ, so that under gradient flow
with ridge λ, A = W1 W1ᵀ and B = W2ᵀ W2 obey

    dA/dt = -2λ A - Σ [(D∘p) zᵀ + z (D∘p)ᵀ]
    dB/dt = -2λ B - Σ [p hᵀ + h pᵀ].

Split h = D∘z + e. In d(A - B)/dt the terms with h and z then pair up,

    D_i p_i z_j + z_i D_j p_j - p_i D_j z_j - D_i z_i p_j = (D_i - D_j)(p_i z_j - p_j z_i),

and what is left is the failure of homogeneity, e = h - D∘z:

    d/dt (A - B)_ij = -2λ (A - B)_ij - Σ (D_i - D_j)(p_i z_j - p_j z_i) + Σ (p_i e_j + e_i p_j).

**Linear maps.** D = 1 and e = 0: both sums vanish, A - B decays, and with it the commutator, since
[A, B] = [A - B, B].

**Positively homogeneous activations** (ReLU, leaky ReLU): e = 0 by Euler. The first sum has no
diagonal: the diagonal obeys the linear law, and all else is driven by masks that differ between
neurons. At slope a below zero D_i - D_j is 0 or ±(1 - a): near the linear network the driven part
is proportional to 1 - a and C to its square.

**Smooth activations** (tanh, GELU): e ≠ 0, and the diagonal is driven by 2 Σ p_i e_i.

**Gated networks**, h = s(g)∘u: for up → down, z = u, D = s(g) and e = 0, so that up is as good as
homogeneous and its masks are the gates; for gate → down, z = g, D = u∘s'(g) and
e = u∘(s(g) - g∘s'(g)), zero for a ReLU gate only.

**Biases.** With z = W1 x + b and b under the same ridge, all this holds for A + b bᵀ in the place
of A; a bias without ridge adds 2λ b bᵀ.

**Gradient descent** w ← (1 - ηλ) w - η G multiplies A - B by (1 - ηλ)², adds η(1 - ηλ) times the
two sums, and η² (G1 G1ᵀ - G2ᵀ G2). The ledger books the three at every step; their sum is A - B to
round-off.

**What was known when.** Trial runs chose the step size and the centring of the images; over the
ways to prepare them the final C of GELU ranged from 0.10 to 0.80, and that of tanh varies with the
seed. The part on ν and ρ was restated, as what does align, after the data had refuted its first
form, that bases stay random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flagscope.geometry import commutation_defect, commutator_ratio, gram_correlation, pair_spectra
from flagscope.lab.data import load_images
from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options
from flagscope.lab.experiments.obstruction.figures import figures
from flagscope.lab.experiments.obstruction.findings import findings
from flagscope.lab.imbalance import ImbalanceLedger, gradient_drive, imbalance_matrix, with_gradient
from flagscope.lab.neurons import COST, STEP, WIDTH, OpenNetwork, drives, open_network
from flagscope.lab.training import Optimiser, mean_square, recording_times, train

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RIDGE, STRONG = 5e-3, 2e-2
# Ridge λ and length of training in units of 2λt = 10, by activation. Three train for twice as
# long, to see whether they stall or only take longer.
PLAN: dict[str, tuple[float, int]] = {
    "linear": (RIDGE, 1),
    **{f"leaky:{slope}": (RIDGE, 1) for slope in (0.9999, 0.999, 0.99, 0.9, 0.7, 0.4, 0.1)},
    **dict.fromkeys(("relu", "tanh", "gelu"), (RIDGE, 2)),
    "gated:silu": (RIDGE, 1),
    **{f"{name}@strong": (STRONG, 1) for name in ("relu", "tanh", "gelu")},
}
# With a larger ridge, 2λt = 10 is reached sooner: a coarse version of the same.
QUICK_RIDGE = (STRONG, 1)
QUICK = ("linear", "leaky:0.9999", "leaky:0.999", "relu", "gelu", "gated:silu")


class Obstruction(Experiment):
    """Trains perceptrons that differ only in their activation, with ridge and full batches."""

    name = "obstruction"
    title = "Activations obstruct the alignment of bases"
    claim = (
        "Under ridge the write and read Grams of a linear pair come to commute; an activation "
        "between the maps keeps them from it."
    )
    source = "arXiv 2605.09861, the commutator obstruction"
    budget_minutes = 14
    figures = (
        (
            "over-training",
            "C, ν and ρ of the first hidden pair over training; mean and range of "
            "the seeds. Dashed: the Haar value.",
        ),
        (
            "slope",
            "C at the end against 1 - slope of a leaky ReLU, one line a seed; dashed: a square.",
        ),
        (
            "parts",
            "Norm of the parts of A - B over training: what is left of its initial value, "
            "what the gradients drove, what finite steps added.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each activation and ridge, with all seeds in one tensor program."""
        plan = dict.fromkeys(QUICK, QUICK_RIDGE) if options.quick else PLAN
        seeds = list(range(options.seeds or (2 if options.quick else 5)))
        settings = {"data": options.data or "digits", "width": WIDTH, "step": STEP, "seeds": seeds}
        settings |= {"limit": 64, "moments": 8} if options.quick else {"limit": 256, "moments": 40}
        if settings["data"] != "digits":  # the step size was chosen for the digits
            settings["largest_eigenvalue"] = 1.0
        cells: list[Cell] = []
        for key, (decay, times) in plan.items():
            name, _, _ = key.partition("@")
            judged = round(5 / (STEP * decay))  # 2λt = 10
            own = {"activation": name, "decay": decay, "judged": judged, "steps": times * judged}
            cost = own["steps"] * COST.get(name, 1.0)
            cells.append(Cell(key.replace(":", "-").replace("@", "-"), settings | own, cost))
        return cells

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train, and record the observables of the pairs and the parts of A - B."""
        s = cell.settings
        data = load_images(s["data"], limit=s["limit"])
        # Centred, so that the large curvature of the mean image does not require small steps.
        x, y = data.centred(largest=s.get("largest_eigenvalue")), data.one_hot()
        network = open_network(s["activation"], x.shape[1], s["width"], data.classes, s["seeds"])
        optimiser = Optimiser(step=s["step"], decay=s["decay"]).build([*network.weights.values()])
        ledgers = {
            name: ImbalanceLedger(*maps, step=s["step"], decay=s["decay"])
            for name, maps in network.pairs.items()
        }

        def book(*_: Any) -> None:  # after gradients are computed, before weights change
            for ledger in ledgers.values():
                ledger.book()

        optimiser.register_step_pre_hook(book)
        series: list[dict[str, Any]] = []

        def record(n: int) -> None:
            shrink = (1 - s["step"] * s["decay"]) ** (2 * n)
            series.append({"step": n, **_recorded(network, x, y, ledgers, shrink)})

        train(
            optimiser,
            lambda _: mean_square(network(x)[0], y),
            steps=s["steps"],
            record=record,
            at=[*recording_times(s["steps"], s["moments"], first=10), s["judged"]],
            report=report,
        )
        return {"pairs": list(ledgers), "series": series}

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge the cells by the predictions and rules in `findings`."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (activation, ridge, pair, seed, step, quantity)."""
        import pandas as pd

        return pd.DataFrame(
            [
                (*_place(m), pair, seed, moment["step"], quantity, values[i])
                for m in measured
                for moment in m.values["series"]
                for pair in m.values["pairs"]
                for quantity, values in moment[pair].items()
                for i, seed in enumerate(m.cell.settings["seeds"])
            ],
            columns=["activation", "ridge", "pair", "seed", "step", "quantity", "value"],
        )

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the figures of `figures`."""
        return figures(measured)


def _place(measured: Measured) -> tuple[str, float]:
    return measured.cell.settings["activation"], measured.cell.settings["decay"]


def _recorded(
    network: OpenNetwork,
    x: Tensor,
    y: Tensor,
    ledgers: dict[str, ImbalanceLedger],
    shrink: float,
) -> dict[str, Any]:
    """All quantities recorded at one moment, as lists of one number for each seed."""
    output, neurons = network(x)
    loss = mean_square(output, y)
    inside = drives(neurons, loss)
    for weight in network.weights.values():
        weight.grad = None
    loss.backward()
    errors = (output - y).detach().square().sum(-1).mean(-1) / 2
    record: dict[str, Any] = {"loss": errors.tolist()}
    for (name, ledger), (mask, inhomogeneity) in zip(ledgers.items(), inside, strict=True):
        record[name] = _of_pair(ledger, mask, inhomogeneity, shrink)
    return record


def _of_pair(
    ledger: ImbalanceLedger, mask: Tensor, inhomogeneity: Tensor, shrink: float
) -> dict[str, list[float | None]]:
    (write, gradient), read = with_gradient(ledger.write), ledger.read.detach()
    spectra = pair_spectra(write, read)
    whole = imbalance_matrix(write, read)
    drive = gradient_drive(ledger.write, ledger.read)
    booked = ledger.initial + ledger.driven + ledger.finite
    inner = (ledger.driven * whole).sum((-2, -1))
    values = {
        "C": commutator_ratio(spectra),
        "nu": commutation_defect(spectra),
        "rho": gram_correlation(spectra),
        "imbalance": _norm(whole),
        "diagonal": _diagonal_norm(whole),
        # The initial value under the law of the linear pair.
        "decayed": _norm(ledger.initial),
        "decayed diagonal": _diagonal_norm(ledger.initial),
        "initial": _norm(ledger.initial) / shrink,
        "initial diagonal": _diagonal_norm(ledger.initial) / shrink,
        "driven": _norm(ledger.driven),
        "driven diagonal": _diagonal_norm(ledger.driven),
        "finite": _norm(ledger.finite),
        "driven share": inner / whole.square().sum((-2, -1)),
        "ledger error": _norm(booked - whole) / _norm(whole),
        "mask drive": _norm(mask),
        "homogeneity drive": _norm(inhomogeneity),
        # Relative to the terms that cancel, since a linear network has no drive at all.
        "drive error": _norm(mask + inhomogeneity - drive) / _norm(gradient @ write.mT),
    }
    return {name: [float(v) for v in value.tolist()] for name, value in values.items()}


def _norm(matrix: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrix)


def _diagonal_norm(matrix: Tensor) -> Tensor:
    return torch.linalg.vector_norm(matrix.diagonal(dim1=-2, dim2=-1), dim=-1)


EXPERIMENT = Obstruction()
