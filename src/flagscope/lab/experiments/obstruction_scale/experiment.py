"""Obstruction over the scale of the loss: how strong a ridge leaves an activation in the way?

**The equivalence.** Under the loss c·L with ridge c·λ gradient descent with step η / c takes
w ← w - (η/c)(c ∇L + c λ w) = w - η(∇L + λ w): the same weights at every step n, and the same
2λt = 2 (cλ)(η/c) n. So C, ρ and ν depend on λ and the scale c of the loss through λ/c alone:
exactly with the step adjusted, and under gradient flow without. With c a power of two the factors
are exact in binary arithmetic, and the weights agree in every bit.

**What to expect over λ/c.** The ridge sets how large weights can be. tanh z = z - z³/3 + …: the
failure of homogeneity is e = h - D z = 2 z³/3, and masks differ by z_i² - z_j²; both vanish faster
than z, so that small weights make the network linear and the pair commutes. GELU is z/2 + z²/√(2π):
its first correction is of order z² and not z³, so that it goes more slowly. ReLU is homogeneous: it
knows no scale, D_i - D_j is 0 or ±1 whatever the weights, and no ridge makes it linear.

**Where the signal dies.** Above some λ/c the weights decay to zero before anything is learnt. What
is left is decay without a loss: A and B shrink by one factor, and C stays near what random weights
have. A large C there is no obstruction. So every claim here is about networks that live: those that
explain a twentieth of the targets' size at the end.

**What was known when.** A prototype had shown C = 0.002 for tanh with a fifth of the loss. A trial
with three seeds chose the grid, and had shown that tanh loses its obstruction between λ/c = 0.005
and 0.01, that ReLU and GELU keep theirs, and that all networks are dead at 0.25. The equivalence,
the control without adjusted step, the ratio 0.0075 and the long run at 0.01 were new. In that run C
rose, so a long run at 0.025 was added; a trial of both to 2λt = 100, five seeds, had C between 0.03
and 0.11 at 0.01, and of 4e-4 at 0.025. Which parts are the paper's was settled after the results
were in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flagscope.geometry import commutation_defect, commutator_ratio, gram_correlation, pair_spectra
from flagscope.lab.data import load_images
from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options
from flagscope.lab.experiments.obstruction_scale.figures import figures
from flagscope.lab.experiments.obstruction_scale.findings import EQUAL, findings
from flagscope.lab.neurons import COST, STEP, WIDTH, OpenNetwork, open_network
from flagscope.lab.training import Optimiser, mean_square, train

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ACTIVATIONS = ("linear", "relu", "tanh", "gelu")
# λ over the scale of the loss: two decades.
RATIOS = (2.5e-3, 5e-3, 7.5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1)
QUICK_RATIOS = (1e-2, 2.5e-2, 2.5e-1)
# 2λt at the end; and, by λ / scale, that of the runs which test whether a small C persists.
UNTIL = 10.0
LONG = {1e-2: 30.0, EQUAL: 50.0}
MOMENTS = 20


class ObstructionScale(Experiment):
    """Trains perceptrons over λ / scale of the loss, and at equal ratios of different scales."""

    name = "obstruction-scale"
    title = "The obstruction over the scale of the loss"
    claim = (
        "An activation between two maps keeps their write and read Grams from commuting, "
        "generically: at whatever strength of the ridge, as long as the network learns."
    )
    source = "arXiv 2605.09861, the commutator obstruction; theory, section 7"
    budget_minutes = 7
    figures = (
        (
            "over-ratio",
            "C, ν and ρ of the first hidden pair at 2λt = 10 over λ / scale of the loss, one line "
            "a seed, and how much of the targets the network explains.",
        ),
        (
            "over-time",
            "C of tanh and ReLU over training, one colour for each λ / scale; mean and range.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each activation, ratio, scale and step, with all seeds in one program."""
        seeds = list(range(options.seeds or (2 if options.quick else 5)))
        common = {"data": options.data or "digits", "width": WIDTH, "seeds": seeds}
        common |= {"limit": 64 if options.quick else 256}
        if common["data"] != "digits":  # the step size was chosen for the digits
            common["largest_eigenvalue"] = 1.0
        return [
            Cell(name, common | own, _steps(own) * COST.get(own["activation"], 1.0))
            for name, own in _settings(quick=options.quick)
        ]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train, and record the first hidden pair."""
        s = cell.settings
        data = load_images(s["data"], limit=s["limit"])
        # Centred, so that the large curvature of the mean image does not require small steps.
        x, y = data.centred(largest=s.get("largest_eigenvalue")), data.one_hot()
        network = open_network(s["activation"], x.shape[1], s["width"], data.classes, s["seeds"])
        optimiser = Optimiser(step=s["step"], decay=s["decay"]).build([*network.weights.values()])
        steps, series = _steps(s), []

        def record(n: int) -> None:
            time = 2 * s["decay"] * s["step"] * n
            series.append({"time": time, **recorded(network, x, y)})

        train(
            optimiser,
            lambda _: s["scale"] * mean_square(network(x)[0], y),
            steps=steps,
            record=record,
            at=[round(steps * i / MOMENTS) for i in range(MOMENTS + 1)],
            report=report,
        )
        return {"series": series}

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge the cells by the predictions and rules in `findings`."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (cell, seed, 2λt), with the observables in columns."""
        import pandas as pd

        keys = ("activation", "kind", "ratio", "scale", "step")
        return pd.DataFrame(
            [
                {key: m.cell.settings[key] for key in keys}
                | {"seed": seed, "time": moment["time"]}
                | {name: values[i] for name, values in moment.items() if name != "time"}
                for m in measured
                for moment in m.values["series"]
                for i, seed in enumerate(m.cell.settings["seeds"])
            ]
        )

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the figures of `figures`."""
        return figures(measured)


def recorded(network: OpenNetwork, x: Tensor, y: Tensor) -> dict[str, list[float]]:
    """Observables of the first hidden pair, and the explained share of the targets."""
    with torch.no_grad():
        write, read = (w.detach() for w in network.pairs["1-2"])
        spectra = pair_spectra(write, read)
        a, b = write @ write.mT, read.mT @ read
        size = torch.linalg.matrix_norm(a), torch.linalg.matrix_norm(b)
        errors = (network(x)[0] - y).square().sum(-1).mean(-1)
        values_by_name = {
            "C": commutator_ratio(spectra),
            "nu": commutation_defect(spectra),
            "rho": gram_correlation(spectra),
            "relative imbalance": torch.linalg.matrix_norm(a - b) / (size[0] + size[1]),
            "write norm": size[0],
            "explained": 1 - errors / y.square().sum(-1).mean(),
        }
    return {name: [float(v) for v in values] for name, values in values_by_name.items()}


def _settings(*, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The grid, the same ratio at other scales of the loss, and a long run."""
    base = {"kind": "grid", "scale": 1.0, "step": STEP, "until": UNTIL}
    for activation in ACTIVATIONS:
        own = base | {"activation": activation}
        for ratio in QUICK_RATIOS if quick else RATIOS:
            yield f"{activation}-ratio{ratio:g}", own | {"ratio": ratio, "decay": ratio}
        # (scale of the loss, step); λ is proportional to the scale.
        for kind, scale, step in (
            ("quarter", 0.25, STEP / 0.25),
            ("fifth", 0.2, STEP / 0.2),
            ("same-step", 0.2, STEP),
        ):
            if not quick or kind == "quarter":
                yield (
                    f"{activation}-{kind}",
                    own
                    | {"kind": kind, "scale": scale, "step": step}
                    | {"ratio": EQUAL, "decay": EQUAL * scale},
                )
    if not quick:
        for ratio, until in LONG.items():
            yield (
                "tanh-long" if ratio != EQUAL else "tanh-long-equal",
                base
                | {"activation": "tanh", "kind": "long", "until": until}
                | {"ratio": ratio, "decay": ratio},
            )


def _steps(s: dict[str, Any]) -> int:
    return round(s["until"] / (2 * s["decay"] * s["step"]))


EXPERIMENT = ObstructionScale()
