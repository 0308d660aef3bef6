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

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from flagscope.lab.data import load_images
from flagscope.lab.experiment import (
    Cell,
    Experiment,
    Finding,
    Measured,
    Options,
    beyond_the_paper,
)
from flagscope.lab.experiments.invariance.figures import movement_figure
from flagscope.lab.experiments.invariance.findings import (
    balance_findings,
    intersection_findings,
    label_findings,
    orthogonal_findings,
    output_findings,
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
from flagscope.lab.networks import initial_network
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.lab.training import Optimiser, cross_entropy, mean_square, train

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Groups of function-preserving changes that are tried on each network.
GROUPS = {
    "linear": ("orthogonal", "gl", "balanced"),
    # Its maps are rank-deficient, so no g balances them; they are balanced already.
    "ridge-linear": ("orthogonal", "gl"),
    "relu": ("permutation", "scaling"),
    "tanh": ("permutation",),
    "gpt": ("permutation", "orthogonal", "gl", "balanced"),
}
_KEPT = ("commutator_ratio", "gram_correlation", "intersection_exact", "kernel_intersection")


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
        """One cell for each kind of network."""
        seeds = list(range(options.seeds or (2 if options.quick else 5)))
        shared = {"data": options.data or "digits", "seeds": seeds, "limit": 96, "width": 32}
        if shared["data"] != "digits":  # the step size of ridge was chosen for the digits
            shared["largest_eigenvalue"] = 1.0
        names = [n for n in GROUPS if not options.quick or n not in ("tanh", "gpt")]
        own = {"steps": 60 if options.quick else 300}
        # 2λt = 40: directions killed by ridge are then below the accuracy of float32.
        ridge = {"step": 0.25, "decay": 0.05, "steps": 1600}
        settings = {
            n: shared | {"network": n} | (ridge if n == "ridge-linear" else own) for n in names
        }
        costs = {"gpt": 6.0, "ridge-linear": 2.0}
        return [Cell(n, settings[n], costs.get(n, 1.0)) for n in names]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Apply every group to every trained network: outputs, movements, and a few numbers."""
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
        """Judge the paper's statement, the statement that holds, and the gauge."""
        return (
            *output_findings(measured),
            *beyond_the_paper(*orthogonal_findings(measured), *label_findings(measured)),
            *intersection_findings(measured),
            *beyond_the_paper(*balance_findings(measured)),
        )

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """Largest relative movement, one row for each (network, seed, group, observable)."""
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
        """Draw movement in powers of ten, by observable and group."""
        return {"movement": movement_figure(measured)}


def _trained(settings: dict[str, Any]) -> list[Rewritable]:
    """One network for each seed; the bundled GPT, with different random changes for each seed."""
    if settings["network"] == "gpt":
        return [demo_model() for _ in settings["seeds"]]
    data = load_images(settings["data"], limit=settings["limit"])
    x = data.centred(largest=settings.get("largest_eigenvalue"))
    ridge = settings["network"] == "ridge-linear"
    # Two hidden layers give the first pair full rank; after ridge it has the labels' rank anyway.
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


EXPERIMENT = Invariance()
