"""Neural collapse and the levels of alignment: the second comes, does the third?

Networks are trained far beyond zero error, and NC1 to NC4 of the features are measured beside the
grades of the three levels of every adjacent pair. The claim is judged on the *last* pair, which
ends in the classifier: it is the one that neural collapse speaks of.

- Level 1 (rank) is read at the participation ratios of the two maps.
- Levels 2 and 3 are read at the K - 1 leading directions, the dimension to which collapse confines
  the features. A participation ratio that rounds to 8 in one map and to 9 in the other would
  otherwise keep level 2 from being reached, whatever the spaces.
- Level 3 asks for two things: Grams that commute, and matched blocks of singular directions that
  agree. Grams on one common space nearly commute whatever their bases, so the first says little
  once level 2 is there. Beside it stands the commutation *within* the dominant space, with the
  common part centred away; and beside the agreement of the blocks what it would be if bases were
  turned at random in the common space.
- At exact collapse the classifier's singular values are all equal. Its bases then mean nothing, and
  level 3 would hold with level 2: blocks of values that agree within some 2 % count as wholes.
- Raw grades depend on the scales of neurons, which ReLU leaves free. *Balanced* grades are read
  after they are fixed by diag A = diag B. The last pair of a residual network has no such freedom.
- Weight decay acts on all parameters alike, biases and normalisations included.

**What was known when.** Thresholds stood before the full run. Trial runs with λ = 2e-3 chose sizes,
and one moved the resolution of blocks from 0.01 to 0.003, since nearly all values fell into one.
The commutation within the dominant space was added then; no verdict rests on it. The interval of
the order became Clopper and Pearson's after the results were in, which changed no verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import torch

from flagscope.lab.data import load_images
from flagscope.lab.experiment import (
    Cell,
    Estimate,
    Experiment,
    Finding,
    Measured,
    Options,
    Prediction,
    Verdict,
    beyond_the_paper,
)
from flagscope.lab.experiments.collapse.terminal_phase import (
    Perceptrons,
    SmallResNets,
    balanced_part,
    terminal_phase,
)
from flagscope.lab.figures import COLOURS, draw_band, new_figure
from flagscope.lab.intervals import SHARE, mean_interval, share_interval
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.lab.training import Optimiser

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Fixed before measuring. A level is reached where its grade is at least 0.9 (the tolerance of
# `alignment_levels`); collapse has come where features spread within a class by a tenth of the
# distance between classes and the nearest class mean decides as the classifier does.
REACHED = 0.9
COLLAPSED = {"nc1": (0.0, 0.1), "nc4": (0.99, 1.0)}
# What counts as the arrival of each quantity: (name, least, greatest value).
ARRIVALS = (
    ("NC1", "nc1", 0.0, 0.1),
    ("NC2", "nc2", 0.0, 0.2),
    ("NC3", "nc3", 0.0, 0.2),
    ("NC4", "nc4", 0.99, 1.0),
    ("level 1", "last/rank", REACHED, 1.0),
    ("level 2", "last/subspace", REACHED, 1.0),
    ("level 3", "last/basis", REACHED, 1.0),
)
DECAY = 2e-3
# Beside the grades of the last pair that the verdict rests on: other pairs, finer readings.
_SHOWN = (
    "/subspace", "/basis", "last/blocks", "last/blocks chance", "last/commutation", "last/within",
    "last/balanced subspace", "last/balanced basis",
)  # fmt: skip
_LABELS = {
    "nc1": "NC1, tr(Σ_W Σ_B⁺)/K",
    "nc2": "NC2, distance of the class means to a simplex",
    "nc3": "NC3, self-duality",
    "nc4": "NC4, agreement with the nearest class mean",
    "rank": "level 1, rank",
    "subspace": "level 2, subspace",
    "basis": "level 3, basis",
    "balanced subspace": "level 2, balanced",
    "balanced basis": "level 3, balanced",
    "commutation": "commutation of the Grams",
    "within": "commutation within the dominant space",
    "blocks": "agreement of blocks",
    "blocks chance": "agreement of blocks by chance",
}
# All else is a grade or a share, in [0, 1].
_BOUNDS = {"nc1": None, "nc2": (0.0, sqrt(2)), "nc3": (0.0, 2.0)}
_NAMES = {"mlp": "perceptron", "resnet": "ResNet", "mse": "squared error", "ce": "cross-entropy"}


class Collapse(Experiment):
    """NC1 to NC4 beside levels 1 to 3 of the pair that ends in the classifier."""

    name = "collapse"
    title = "Neural collapse and the levels of alignment"
    claim = (
        "Where neural collapse comes, the last pair of maps reaches level 2 (its dominant spaces "
        "coincide) and does not reach level 3 (a common basis)."
    )
    source = "arXiv 2605.09861; NC1 to NC4 after Papyan, Han and Donoho, PNAS 2020"
    budget_minutes = 10.0
    rank_rule = LAB_RULE
    figures = (
        (
            "collapse",
            "NC1 to NC4 over training: mean of the seeds, band from least to greatest; 1 - NC4 of "
            "less than 1e-4, no sample at all, is drawn there.",
        ),
        (
            "levels",
            "Grades of the three levels of the last pair over training, in the same runs; dotted: "
            "the grade from which a level counts as reached.",
        ),
        ("arrivals", "When each quantity arrived for good, seed by seed; at the right, never."),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One for each network, loss and decay."""
        found = []
        for network in ("mlp", "resnet"):
            for loss in ("mse", "ce"):
                for decay in (DECAY, 0.0):
                    settings = _settings(network, options) | {
                        "loss": loss, "decay": decay, "data": options.data or "digits",
                    }  # fmt: skip
                    name = f"{network}-{loss}-{'decay' if decay else 'free'}"
                    found.append(Cell(name, settings, cost=2.0 if network == "resnet" else 1.0))
        return found

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train all seeds of one configuration and measure on the way."""
        s = cell.settings
        images = balanced_part(load_images(s["data"], dtype=torch.float32), s["per_class"])
        if s["network"] == "mlp":
            widths = [images.inputs.shape[1], *s["hidden"], images.classes]
            networks = Perceptrons(widths, s["seeds"])
        else:
            networks = SmallResNets(s["channels"], images.classes, s["seeds"])
        return terminal_phase(
            networks, images, seeds=s["seeds"], loss=s["loss"],
            optimiser=Optimiser(step=s["step"], decay=s["decay"], momentum=s["momentum"]),
            steps=s["steps"], batch=s["batch"], records=s["records"], report=report,
        )  # fmt: skip

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """A verdict for every configuration, and one on the order in which levels are reached."""
        return (*(_configuration(m) for m in measured), *beyond_the_paper(_order(measured)))

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row a cell, seed, step and quantity."""
        import pandas as pd

        rows = [
            (m.cell.name, seed, step, quantity, value)
            for m in measured
            for quantity, runs in m.values["series"].items()
            for seed, run in zip(m.cell.settings["seeds"], runs, strict=True)
            for step, value in zip(m.values["steps"], run, strict=True)
        ]
        return pd.DataFrame(rows, columns=["cell", "seed", "step", "quantity", "value"])

    def draw(
        self,
        measured: Sequence[Measured],
        findings: Sequence[Finding],
    ) -> dict[str, Figure]:
        """Courses of both kinds, and when each arrived."""
        collapse = {"NC1": "nc1", "NC2": "nc2", "NC3": "nc3", "1 - NC4": "nc4"}
        levels = {"level 1": "last/rank", "level 2": "last/subspace", "level 3": "last/basis"}
        return {
            "collapse": _courses(measured, collapse, log=True),
            "levels": _courses(measured, levels, log=False),
            "arrivals": _arrival_figure(measured),
        }


def _settings(network: str, options: Options) -> dict[str, Any]:
    """Sizes that fit the budget."""
    quick = options.quick
    common = {
        "network": network, "momentum": 0.9, "step": 0.05, "batch": 64,
        "records": 8 if quick else 30, "per_class": 20 if quick else 60,
    }  # fmt: skip
    if network == "mlp":
        seeds = options.seeds or (2 if quick else 6)
        own = {"hidden": [64, 64], "steps": 150 if quick else 10_000}
    else:
        seeds = options.seeds or (2 if quick else 4)
        own = {"channels": [8, 16, 32], "steps": 40 if quick else 5000}
    return common | own | {"seeds": list(range(seeds))}


def _final(m: Measured, quantity: str) -> Estimate:
    """Mean over seeds at the end of training."""
    runs = m.values["series"][quantity]
    pair, _, grade = quantity.rpartition("/")
    label = _LABELS.get(grade, grade) + (f", {pair} pair" if pair else "")
    return mean_interval(label, [run[-1] for run in runs], bounds=_BOUNDS.get(quantity, SHARE))


def configuration_verdict(
    nc1: Estimate, nc4: Estimate, subspace: Estimate, basis: Estimate
) -> Verdict:
    """Whether level 2 came and level 3 did not, decided by 95 % intervals at the end of training.

    Open where collapse itself is not established, or an interval holds the grade from which a
    level counts as reached.

    Examples
    --------
    >>> sure = lambda x: Estimate("", x, x, x, 5)
    >>> configuration_verdict(sure(0.01), sure(1.0), sure(0.99), sure(0.3))
    'confirmed'
    >>> configuration_verdict(sure(0.01), sure(1.0), sure(0.5), sure(0.3))
    'refuted'
    >>> configuration_verdict(sure(0.01), sure(1.0), sure(0.99), sure(0.95))
    'refuted'
    >>> configuration_verdict(sure(2.0), sure(1.0), sure(0.99), sure(0.3))
    'open'
    """
    inside = [
        _within(estimate, *COLLAPSED[name]) for name, estimate in (("nc1", nc1), ("nc4", nc4))
    ]
    if not all(inside):
        return "open"
    second, third = _within(subspace, REACHED, 1.0), _within(basis, REACHED, 1.0)
    if second is False or third is True:
        return "refuted"
    return "confirmed" if second and third is False else "open"


def _within(estimate: Estimate, low: float, high: float) -> bool | None:
    """Whether the true mean is in the band; None where the interval cannot tell.

    NC1 is never negative, so an interval that reaches below 0 is not held against it.
    """
    if estimate.low is None or estimate.high is None:
        return None
    bottom = max(estimate.low, 0.0)
    if low <= bottom and estimate.high <= high:
        return True
    return False if bottom > high or estimate.high < low else None


def _configuration(m: Measured) -> Finding:
    s = m.cell.settings
    where = f"{_NAMES[s['network']]}, {_NAMES[s['loss']]}, " + (
        f"weight decay {s['decay']:g}" if s["decay"] else "no weight decay"
    )
    claim = f"Level 2 comes and level 3 does not: {where}."
    prediction = Prediction(
        f"given collapse, the grade of level 2 is at least {REACHED} at the end of training and "
        "that of level 3 below it", None, "arXiv 2605.09861; theory §3, levels",
    )  # fmt: skip
    names = ("nc1", "nc2", "nc3", "nc4", "last/rank", "last/subspace", "last/basis")
    blank = [q for q in names if any(run[-1] is None for run in m.values["series"][q])]
    if blank:
        words = f"{where}: in some seed there is no {', '.join(blank)} at the end of training."
        return Finding(claim, prediction, (), "open", words)
    e = {name: _final(m, name) for name in names}
    verdict = configuration_verdict(e["nc1"], e["nc4"], e["last/subspace"], e["last/basis"])
    came = all(_within(e[name], *COLLAPSED[name]) for name in COLLAPSED)
    words = (
        f"{where}: collapse {'came' if came else 'is not established'} (NC1 {e['nc1'].value:.2g}, "
        f"NC4 {e['nc4'].value:.3f}), by which it is judged; {_means_text(e)} At the end level 1 "
        f"stands at {e['last/rank'].value:.2f}, level 2 at {e['last/subspace'].value:.2f}, "
        f"level 3 at {e['last/basis'].value:.2f}."
    )
    others = [
        _final(m, q)
        for q, runs in m.values["series"].items()
        if q.endswith(_SHOWN) and q not in e and all(run[-1] is not None for run in runs)
    ]
    return Finding(claim, prediction, (*e.values(), *others), verdict, words)


def _means_text(e: dict[str, Estimate]) -> str:
    """How far the class means and the classifier are from the simplex of full collapse."""
    parts = [
        f"{name} {'fell' if e[quantity].value <= high else 'did not fall'} to {high} "
        f"({e[quantity].value:.2g})"
        for name, quantity, _, high in ARRIVALS
        if quantity in ("nc2", "nc3")
    ]
    return f"{', '.join(parts)}."


def arrivals(m: Measured) -> list[dict[str, float]]:
    """For each seed the step from which each quantity stays in its band; infinity if it never does.

    In order of arrival.
    """
    found = []
    for i in range(len(m.cell.settings["seeds"])):
        steps = {}
        for name, quantity, low, high in ARRIVALS:
            run = m.values["series"][quantity][i]
            steps[name] = inf
            for step, value in zip(reversed(m.values["steps"]), reversed(run), strict=True):
                if value is None or not low <= value <= high:
                    break
                steps[name] = step
        found.append(dict(sorted(steps.items(), key=lambda item: item[1])))
    return found


def _order(measured: Sequence[Measured]) -> Finding:
    """Whether levels come in their order, over all seeds that reach level 2."""
    orders = [(m.cell.name, a) for m in measured for a in arrivals(m)]
    second = [a for _, a in orders if a["level 2"] < inf]
    ordered = [a["level 1"] <= a["level 2"] <= a["level 3"] for a in second]
    early = [a["NC1"] <= a["level 2"] for a in second]
    verdict: Verdict = "open"
    estimates: tuple[Estimate, ...] = ()
    if second:
        estimates = (
            share_interval("share of seeds with level 1 no later than 2, and 2 than 3", ordered),
            share_interval("share of seeds with NC1 no later than level 2", early),
        )
        share = estimates[0].value
        verdict = "confirmed" if share == 1 else "refuted" if share < 0.5 else "open"
    lines = "; ".join(f"{m.cell.name}: {_orders_text(m)}" for m in measured)
    return Finding(
        claim="The levels are reached in their order: rank, subspace, basis.",
        prediction=Prediction(
            "in every seed that reaches level 2, level 1 came no later and level 3 no earlier",
            1.0, "theory §3, levels",
        ),
        estimates=estimates,
        verdict=verdict,
        words=f"{len(second)} of {len(orders)} seeds reach level 2. "
        f"Order of arrival, with the number of seeds: {lines}.",
    )  # fmt: skip


def order_text(steps: dict[str, float]) -> str:
    """What arrived, in order; "=" between what was first seen at one measurement.

    Examples
    --------
    >>> order_text({"NC4": 3, "NC1": 8, "level 2": 8, "level 3": inf})
    'NC4 < NC1 = level 2'
    """
    came = [(step, name) for name, step in steps.items() if step < inf]
    groups = [" = ".join(name for _, name in group) for _, group in groupby(came, key=_first)]
    return " < ".join(groups) or "nothing"


def _first(pair: tuple[float, str]) -> float:
    return pair[0]


def _orders_text(m: Measured) -> str:
    """The orders that occur, with the number of seeds."""
    counts = Counter(order_text(a) for a in arrivals(m))
    return ", ".join(f"{order} ({n})" for order, n in counts.most_common())


def _courses(measured: Sequence[Measured], quantities: dict[str, str], *, log: bool) -> Figure:
    columns = min(4, len(measured))
    figure, axes = new_figure(-(-len(measured) // columns), columns, width=3.2, height=2.5)
    for ax, m in zip(axes.flat, measured, strict=False):
        for (label, quantity), colour in zip(quantities.items(), COLOURS, strict=False):
            runs = m.values["series"][quantity]
            if any(value is None for run in runs for value in run):
                continue
            if label.startswith("1 -"):
                # A step below one sample in all, so that zero has a place on a log scale.
                runs = [[max(1 - value, 1e-4) for value in run] for run in runs]
            draw_band(ax, [max(1, t) for t in m.values["steps"]], runs, colour=colour, label=label)
        ax.set_xscale("log")
        if log:
            ax.set_yscale("log")
        else:
            ax.axhline(REACHED, color=COLOURS[6], ls=":", lw=1)
            ax.set_ylim(0, 1.03)
        ax.set_title(m.cell.name, fontsize=9)
        ax.set_xlabel("step")
    axes[0, 0].legend(fontsize=7)
    return figure


def _arrival_figure(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(width=6.0, height=0.45 * len(measured) + 1.5)
    ax = axes[0, 0]
    for k, (name, *_) in enumerate(ARRIVALS):
        points = [
            (min(max(1.0, a[name]), 2.0 * m.values["steps"][-1]), row + 0.09 * (k - 3))
            for row, m in enumerate(measured)
            for a in arrivals(m)
        ]
        x, y = zip(*points, strict=True)
        ax.plot(x, y, "o", ms=4, color=COLOURS[k], label=name, alpha=0.8)
    ax.set_xscale("log")
    ax.set_xlabel("step (twice the last: never)")
    ax.set_yticks(range(len(measured)), [m.cell.name for m in measured])
    ax.set_ylim(len(measured) - 0.5, -0.5)
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


EXPERIMENT = Collapse()
