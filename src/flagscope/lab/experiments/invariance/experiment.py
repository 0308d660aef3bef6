"""Invariance: which numbers survive rewriting a trained network with its function unchanged.

(g W1, W2 g⁻¹) computes what (W1, W2) does wherever g is a freedom of the network: any invertible g
between linear maps, in Q-K without rotary embedding and in V-O; positive factors and permutations
of the neurons across a ReLU; permutations across any other activation. The write space moves by g,
the read space by g⁻ᵀ. So their intersection, its angles, and all that depends on the Grams is kept
by orthogonal g, permutations among them, which are their own inverse transposes. What every g keeps
is W2 W1 and the ranks, hence the kernel intersection rank W1 - rank(W2 W1).

Two cases make the difference plain. Ridge carries a linear network to A = B: what is written is
exactly what is read, and a g that leaves the function alone makes the two spaces meet in nothing.
The other way round, A^{-1/2}(A^{1/2} B A^{1/2})^{1/2} A^{-1/2} has a root g that makes A = B: any
pair of full rank then looks perfectly aligned, and computes what it did.

**What was known when.** After the results were in, means came to be taken over seeds alone,
networks and draws averaged first, and what holds exactly to be judged by its worst case too; no
verdict changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flagscope.diagnose import labels
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
from flagscope.lab.experiments.invariance.rewriting import (
    OBSERVABLES,
    Rewritable,
    changed_pairs,
    demo_model,
    movements,
    number,
    perceptron,
)
from flagscope.lab.figures import COLOURS, new_figure
from flagscope.lab.intervals import band_verdict, mean_interval
from flagscope.lab.networks import initial_network
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.lab.training import Optimiser, cross_entropy, mean_square, train

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Network -> groups of function-preserving changes that are tried on it.
GROUPS = {
    "linear": ("orthogonal", "gl", "balanced"),
    # Its maps have come to lack rank, so that no g balances them: they are balanced already.
    "ridge-linear": ("orthogonal", "gl"),
    "relu": ("permutation", "scaling"),
    "tanh": ("permutation",),
    "gpt": ("permutation", "orthogonal", "gl", "balanced"),
}
# Eigenproblems of Gram matrices in float64, times the condition of the maps; float32 is stored by
# the ridge-linear networks alone, whose functional numbers are compared within 1e-4.
ROUND_OFF, ROUND_OFF_32, MOVED = 1e-6, 1e-4, 1e-3
_KEPT = ("commutator_ratio", "gram_correlation", "intersection_exact", "kernel_intersection")
_FUNCTIONAL = tuple(n for n in OBSERVABLES if labels("gl").get(n) == "functional")
_GAUGE = tuple(n for n in OBSERVABLES if n not in _FUNCTIONAL)
# Whole numbers may well stay where they are, and two generic spaces share no direction exactly.
_MUST_MOVE = tuple(
    n for n in _GAUGE if n not in ("intersection_exact", "intersection_beyond_chance")
)


class Invariance(Experiment):
    """Scans trained networks before and after changes that keep what they compute."""

    name = "invariance"
    title = "What survives a change of basis"
    claim = (
        "The dimension of write space ∩ read space is the reparameterisation invariant of a pair "
        "of layers."
    )
    source = "arXiv 2605.09861, the relative position as invariant"
    budget_minutes = 3
    rank_rule = LAB_RULE
    data_kind = "images"
    figures = (
        (
            "movement",
            "Largest relative movement of each observable under each group, outputs "
            "unchanged: mean over networks, trainings and draws. Empty: below 0.001. "
            "Blue: functional.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell a kind of network."""
        seeds = list(range(options.seeds or (2 if options.quick else 5)))
        shared = {"data": options.data or "digits", "seeds": seeds, "limit": 96, "width": 32}
        if shared["data"] != "digits":  # the step size of ridge was chosen for the digits
            shared["largest_eigenvalue"] = 1.0
        names = [n for n in GROUPS if not options.quick or n not in ("tanh", "gpt")]
        own = {"steps": 60 if options.quick else 300}
        # 2λt = 40: what ridge kills is then below the accuracy of float32.
        ridge = {"step": 0.25, "decay": 0.05, "steps": 1600}
        settings = {
            n: shared | {"network": n} | (ridge if n == "ridge-linear" else own) for n in names
        }
        costs = {"gpt": 6.0, "ridge-linear": 2.0}
        return [Cell(n, settings[n], costs.get(n, 1.0)) for n in names]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Every group on every trained network: outputs, movements, and a few numbers."""
        models = _trained(cell.settings)
        rows: list[dict[str, Any]] = []
        for done, (seed, model) in enumerate(zip(cell.settings["seeds"], models, strict=True)):
            before = model.pairs(model.state)
            for group in GROUPS[cell.settings["network"]]:
                changes = model.changes(group, seed=seed)
                state, outputs = model.rewritten(changes)
                after = model.pairs(state)
                own = changed_pairs(changes)
                moved = [movements(before[name], after[name]) for name in own]
                rows.append({
                    "seed": seed, "group": group, "outputs": outputs,
                    "moved": {n: max(m[n] for m in moved if n in m)
                              for n in OBSERVABLES if any(n in m for m in moved)},
                    "before": {n: [number(before[p], n) for p in own] for n in _KEPT},
                    "after": {n: [number(after[p], n) for p in own] for n in _KEPT},
                })  # fmt: skip
            report((done + 1) / len(models))
        return {"rows": rows}

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """The paper's statement, the one that holds, and the gauge."""
        return (
            *_unchanged(measured),
            *beyond_the_paper(*_orthogonal(measured), *_labels(measured)),
            *_intersection(measured),
            *beyond_the_paper(*_balanced(measured)),
        )

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row a (network, seed, group, observable): the largest relative movement."""
        import pandas as pd

        return pd.DataFrame(
            [
                (m.cell.name, row["seed"], row["group"], name, moved, row["outputs"])
                for m in measured
                for row in m.values["rows"]
                for name, moved in row["moved"].items()
            ],
            columns=["network", "seed", "group", "observable", "moved", "outputs moved"],
        )

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Observables by groups, the movement in powers of ten."""
        groups = [g for g in ("permutation", "orthogonal", "scaling", "gl", "balanced")
                  if _rows(measured, g)]  # fmt: skip
        image = np.array([[_typical(measured, g, n) for g in groups] for n in OBSERVABLES])
        figure, axes = new_figure(width=4.6, height=4.2)
        ax = axes[0, 0]
        ax.grid(visible=False)
        shown = ax.imshow(np.where(image < MOVED, np.nan, np.log10(image + 1e-300)),
                          aspect="auto", cmap="viridis")  # fmt: skip
        ax.set_xticks(range(len(groups)), groups, rotation=45, ha="right")
        ax.set_yticks(range(len(OBSERVABLES)), [n.replace("_", " ") for n in OBSERVABLES])
        for label, name in zip(ax.get_yticklabels(), OBSERVABLES, strict=True):
            label.set_color(COLOURS[0] if name in _FUNCTIONAL else COLOURS[6])
        figure.colorbar(shown, label="log10 of the relative movement")
        return {"movement": figure}


def _trained(settings: dict[str, Any]) -> list[Rewritable]:
    """One network a seed; the bundled GPT, once a seed, is changed by other draws."""
    if settings["network"] == "gpt":
        return [demo_model() for _ in settings["seeds"]]
    data = load_images(settings["data"], limit=settings["limit"])
    x = data.centred(largest=settings.get("largest_eigenvalue"))
    ridge = settings["network"] == "ridge-linear"
    # Two hidden layers give the first pair full rank; after ridge it is the labels' rank anyway.
    widths = [x.shape[1], *[settings["width"]] * (1 if ridge else 2), data.classes]
    activation = "linear" if ridge else settings["network"]
    network = initial_network(widths, settings["seeds"], activation=activation)
    if ridge:
        optimiser = Optimiser("sgd", step=settings["step"], decay=settings["decay"])
        train(
            optimiser.build(network.parameters),
            lambda _: mean_square(network(x), data.one_hot()),
            steps=settings["steps"],
        )
    else:
        train(
            Optimiser("adamw", step=3e-3, decay=1e-2).build(network.parameters),
            lambda _: cross_entropy(network(x), data.labels),
            steps=settings["steps"],
        )
    dtype = torch.float32 if ridge else torch.float64
    return [perceptron(network, i, x, dtype=dtype) for i in range(len(settings["seeds"]))]


def _rows(
    measured: Sequence[Measured], *groups: str, network: str | None = None
) -> list[dict[str, Any]]:
    return [
        row
        for m in measured
        for row in m.values["rows"]
        if (not groups or row["group"] in groups) and network in (None, m.cell.name)
    ]


def _typical(measured: Sequence[Measured], group: str, observable: str) -> float:
    values = [row["moved"].get(observable, 0.0) for row in _rows(measured, group)]
    return float(np.mean(values)) if values else 0.0


def _accurate(measured: Sequence[Measured], *groups: str) -> list[dict[str, Any]]:
    """Rows of networks in float64."""
    return [row for m in measured if m.cell.name != "ridge-linear"
            for row in _rows([m], *groups)]  # fmt: skip


def _by_seed(
    rows: Sequence[dict[str, Any]], quantity: Callable[[dict[str, Any]], float | None]
) -> list[float]:
    """For every seed the mean over networks and groups: seeds are what is independent."""
    found: dict[int, list[float]] = {}
    for row in rows:
        value = quantity(row)
        if value is not None:
            found.setdefault(row["seed"], []).append(value)
    return [float(np.mean(values)) for values in found.values()]


def _at_most(
    estimates: Sequence[Estimate], bounds: Sequence[float], largest: Sequence[float]
) -> Verdict:
    """Of exact statements: confirmed if no single one passes its bound, refuted if the mean does.

    A mean can hide one network that breaks what holds in the others.
    """
    together = len(estimates)
    verdicts = {
        band_verdict([e], -math.inf, bound, together=together)
        for e, bound in zip(estimates, bounds, strict=True)
    }
    if "refuted" in verdicts:
        return "refuted"
    every = all(x < bound for x, bound in zip(largest, bounds, strict=True))
    return "confirmed" if every and verdicts == {"confirmed"} else "open"


def _unchanged(measured: Sequence[Measured]) -> Iterator[Finding]:
    sorts = [("float64", 1e-12, _accurate(measured))]
    if stored := _rows(measured, network="ridge-linear"):
        sorts.append(("stored in float32", 1e-5, stored))
    estimates = tuple(
        mean_interval(f"outputs moved, {name}", _by_seed(rows, lambda row: row["outputs"]))
        for name, _, rows in sorts
    )
    bounds = [bound for _, bound, _ in sorts]
    largest = [max(row["outputs"] for row in rows) for _, _, rows in sorts]
    yield Finding(
        "No change made here alters what a network computes",
        Prediction(
            "outputs move by round-off alone: below 1e-12, and 1e-5 in float32",
            0.0,
            "spec, section 2",
        ),
        estimates,
        _at_most(estimates, bounds, largest),
        f"At most {' and '.join(f'{x:.0e}' for x in largest)} in any network. The premise of all "
        "that follows.",
    )


def _largest(row: dict[str, Any], names: Sequence[str]) -> float:
    return max(row["moved"].get(name, 0.0) for name in names)


def _orthogonal(measured: Sequence[Measured]) -> Iterator[Finding]:
    rows = _accurate(measured, "orthogonal", "permutation")
    moved = _by_seed(rows, lambda row: _largest(row, OBSERVABLES))
    estimates = (mean_interval("largest movement of any observable", moved),)
    most = max(_largest(row, OBSERVABLES) for row in rows)
    yield Finding(
        "Orthogonal changes and permutations move no observable",
        Prediction(f"largest relative movement below {ROUND_OFF:g}", 0.0, "spec, section 3"),
        estimates,
        _at_most(estimates, [ROUND_OFF], [most]),
        f"Of {len(OBSERVABLES)} observables, the intersection dimension among them; at most "
        f"{most:.0e} in any network.",
    )


def _labels(measured: Sequence[Measured]) -> Iterator[Finding]:
    rows = _accurate(measured, "gl", "scaling")
    by_seed = _by_seed(rows, lambda row: _largest(row, _FUNCTIONAL))
    still = (mean_interval("largest movement of a functional number", by_seed),)
    most = max(_largest(row, _FUNCTIONAL) for row in rows)
    yield Finding(
        "Ranks, kernel intersection and spectrum of W2 W1 survive every change",
        Prediction(
            f"movement under GL(d) and scalings below {ROUND_OFF:g}", 0.0, "spec, section 2.3"
        ),
        still,
        _at_most(still, [ROUND_OFF], [most]),
        f"These are what flagscope labels functional; at most {most:.0e} in any network.",
    )
    moved = tuple(mean_interval(name, _by_seed(rows, _moved(name))) for name in _MUST_MOVE)
    yield Finding(
        "All else is gauge: it moves though the function does not",
        Prediction(f"each number moves by more than {MOVED:g}", MOVED, "spec, section 2.4"),
        moved,
        band_verdict(moved, MOVED, math.inf),
        "Movement under GL(d) between linear maps and positive scalings across a ReLU, mean over "
        "the networks of a seed.",
    )


def _moved(name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda row: row["moved"].get(name)


def _intersection(measured: Sequence[Measured]) -> Iterator[Finding]:
    def changes(group: str, name: str) -> list[float]:
        return [
            after - before
            for row in _rows(measured, group, network="ridge-linear")
            for before, after in zip(row["before"][name], row["after"][name], strict=True)
            if before is not None and after is not None
        ]

    for name, claim, words in (
        ("intersection_exact", "dim(write ∩ read) is invariant under every change of basis",
         "Under g the write space moves by g and the read space by its inverse transpose: only "
         "orthogonal g keep how they lie. The read space is that of the rows of W2; under the "
         "diagonal action of the paper's appendix, and with the kernel of W2 in its place, the "
         "dimension is invariant."),
        ("kernel_intersection", "dim(write ∩ kernel) is invariant under every change of basis",
         "rank W1 - rank(W2 W1) knows nothing of the basis."),
    ):  # fmt: skip
        estimates: list[Estimate] = [
            mean_interval(f"change of {name} under {group}", values)
            for group in ("orthogonal", "gl")
            if (values := changes(group, name))
        ]
        start = [row["before"][name][0] for row in _rows(measured, "gl", network="ridge-linear")]
        yield Finding(
            claim,
            Prediction("no change of the dimension, whatever g", 0.0, "arXiv 2605.09861"),
            tuple(estimates),
            band_verdict(estimates, 0.0, 0.0),
            f"Linear networks trained with ridge to the end, where it is {start}. {words}",
            beyond=name == "kernel_intersection",
        )


def _balanced(measured: Sequence[Measured]) -> Iterator[Finding]:
    rows = _accurate(measured, "balanced")

    def commutator(row: dict[str, Any]) -> float:
        return max(row["after"]["commutator_ratio"])

    def missing(row: dict[str, Any]) -> float:
        return 1 - min(row["after"]["gram_correlation"])

    estimates = (
        mean_interval("largest C after balancing", _by_seed(rows, commutator)),
        mean_interval("largest 1 - ρ after balancing", _by_seed(rows, missing)),
    )
    largest = [max(commutator(row) for row in rows), max(missing(row) for row in rows)]
    raw = [value for row in rows for value in row["before"]["commutator_ratio"]]
    yield Finding(
        "Any raw alignment can be made perfect for nothing",
        Prediction(
            "after balancing C < 1e-9 and 1 - ρ < 1e-9 for every pair, outputs unchanged",
            0.0,
            "spec, section 2.4",
        ),
        estimates,
        _at_most(estimates, [1e-9, 1e-9], largest),
        f"As trained, C of these pairs lies between {min(raw):.2g} and {max(raw):.2g}: between "
        "linear maps it is the optimiser's choice of basis.",
    )


EXPERIMENT = Invariance()
