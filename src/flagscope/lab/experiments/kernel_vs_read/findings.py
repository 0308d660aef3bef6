"""Rank correlations of both intersections with the fall of a loss, and their verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from flagscope.lab.experiment import (
    Estimate,
    Finding,
    Measured,
    Prediction,
)
from flagscope.lab.intervals import CORRELATION, band_verdict, mean_interval, share_interval

# Predicted sign of each observable's movement as the loss falls: written directions come to be
# read, and are no longer lost. Fixed before anything is measured.
SIGNS = {
    "read_exact": 1, "kernel_exact": -1,
    "read_count": 1, "kernel_count": -1,
    "read_soft": 1, "kernel_soft": -1,
}  # fmt: skip
_FORMS = {"soft": "soft", "count": "counted"}


def _correlation(m: Measured, seed: int, observable: str, target: str) -> float:
    """Signed Spearman correlation of an observable with the fall of a loss, over one training.

    0 for an observable that never moves, since it tracks nothing.
    """
    x = [moment[observable][seed] for moment in m.values["series"]]
    y = [-moment[target][seed] for moment in m.values["series"]]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return SIGNS[observable] * float(np.asarray(stats.spearmanr(x, y))[0])


def _correlations(
    measured: Sequence[Measured], observable: str, target: str
) -> Float[np.ndarray, "settings seeds"]:
    """Correlations for every setting and seed."""
    return np.array(
        [
            [_correlation(m, i, observable, target) for i in range(len(m.cell.settings["seeds"]))]
            for m in measured
        ]
    )


def _twice(
    name: str,
    values: Float[np.ndarray, "settings seeds"],
    bounds: tuple[float, float] = CORRELATION,
) -> list[Estimate]:
    """The mean with its interval over seeds, and with its interval over settings.

    The first covers other seeds in these settings, the second other settings. Neither contains the
    other, as settings share seeds and images.
    """
    return [
        mean_interval(f"{name}, over settings", values.mean(axis=1), bounds=bounds),
        mean_interval(f"{name}, over seeds", values.mean(axis=0), bounds=bounds),
    ]


def scores(measured: Sequence[Measured], target: str) -> list[Estimate]:
    """Mean correlation of each inexact observable with the fall of a loss."""
    return [
        estimate
        for name in SIGNS
        if not name.endswith("exact")
        for estimate in _twice(
            f"{name.replace('_', ', ')}: {target}", _correlations(measured, name, target)
        )
    ]


def tracking_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether each intersection tracks the training loss."""
    for side, words in (("read", "read space"), ("kernel", "kernel")):
        estimates = tuple(e for e in scores(measured, "loss") if e.name.startswith(side))
        yield Finding(
            f"The intersection with the {words} tracks training",
            Prediction(
                "mean signed rank correlation with the fall of the loss above 0.5, soft and "
                "counted",
                0.5,
                "fixed beforehand",
            ),
            estimates,
            band_verdict(estimates, 0.5, math.inf),
            "Correlated over the moments of each training; mean over depths, widths and tasks, "
            f"which are the settings. By task {_by_task(measured, side)}.",
            beyond=side == "kernel",
        )


def _by_task(measured: Sequence[Measured], side: str) -> str:
    """Means of the soft and the counted form on each task."""
    texts = []
    for task in dict.fromkeys(m.cell.settings["task"] for m in measured):
        chosen = [m for m in measured if m.cell.settings["task"] == task]
        means = [_correlations(chosen, f"{side}_{form}", "loss").mean() for form in _FORMS]
        texts.append(f"{task} {means[0]:.2f} and {means[1]:.2f}")
    return "; ".join(texts)


def comparison_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether the kernel tracks a loss better than the read space, and two controls."""
    for target in ("loss", "held-out loss"):
        estimates: list[Estimate] = []
        for form, words in _FORMS.items():
            kernel, read = (
                _correlations(measured, f"{side}_{form}", target) for side in ("kernel", "read")
            )
            estimates += _twice(f"kernel - read, {words}", kernel - read, (-2.0, 2.0))
        yield Finding(
            f"The kernel tracks the {target} better than the read space does",
            Prediction(
                "difference of the signed rank correlations above 0",
                0.0,
                "the kernel is invariant under GL(d), the read space is not",
            ),
            tuple(estimates),
            band_verdict(estimates, 0.0, math.inf),
            "Difference taken training by training. " + _no_larger_than(estimates),
        )
    yield from _control(measured)
    yield from _across_runs(measured)


def _no_larger_than(estimates: Sequence[Estimate]) -> str:
    bounds = [
        f"{max(abs(e.low), abs(e.high)):.2f} ({e.name.partition(', ')[2]})"
        for e in estimates
        if e.low is not None and e.high is not None
    ]
    return f"Largest difference that each interval allows: {', '.join(bounds)}." if bounds else ""


def _control(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Control on random labels, where nothing can be learnt about other images."""
    chosen = [m for m in measured if m.cell.settings["task"] == "shuffled"]
    estimates = tuple(scores(chosen, "held-out loss"))
    yield Finding(
        "Either intersection tells learning from memorising",
        Prediction(
            "on random labels, where the held-out loss rises, the signed rank correlation with its "
            "fall is not below 0",
            0.0,
            "control on a destroyed task; spec, section 6",
        ),
        estimates,
        band_verdict(estimates, 0.0, math.inf),
        "Below 0 the intersections grow as they do on true labels: they follow how far training "
        "has carried the weights, not what was learnt.",
    )


def _across_runs(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Comparison of trained networks of one shape, whose labels were corrupted to some degree."""
    shapes: dict[str, list[Measured]] = {}
    for m in measured:
        if m.cell.settings["task"] != "parity":
            shapes.setdefault(m.cell.name.rpartition("-")[2], []).append(m)
    estimates: list[Estimate] = []
    ranges: list[str] = []
    for observable in ("read_soft", "kernel_soft", "read_count", "kernel_count"):
        values: list[float] = []
        for group in shapes.values():
            ends = [(m.values["series"][-1], i) for m in group
                    for i in range(len(m.cell.settings["seeds"]))]  # fmt: skip
            x = [moment[observable][i] for moment, i in ends]
            y = [-moment["held-out loss"][i] for moment, i in ends]
            still = np.ptp(x) == 0 or np.ptp(y) == 0
            rho = 0.0 if still else float(np.asarray(stats.spearmanr(x, y))[0])
            values.append(SIGNS[observable] * rho)
        name = observable.replace("_", ", ")
        estimates.append(mean_interval(name, values, bounds=CORRELATION))
        ranges.append(f"{name}: {min(values):.2f} … {max(values):.2f}")
    yield Finding(
        "Among trained networks of one shape, better intersections mean a lower held-out loss",
        Prediction(
            "signed rank correlation with the held-out loss above 0 for each of the four",
            0.0,
            "fixed beforehand",
        ),
        tuple(estimates),
        band_verdict(estimates, 0.0, math.inf),
        "Runs differ in seed and in the share of their labels that is random: 0, ½, 1. Intervals "
        f"are over shapes, too few to decide anything. From shape to shape {'; '.join(ranges)}.",
    )


def exact_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether exact dimensions ever change in training."""
    for name in ("read_exact", "kernel_exact"):
        still = [
            bool(np.ptp([moment[name][i] for moment in m.values["series"]]) == 0)
            for m in measured
            for i in range(len(m.cell.settings["seeds"]))
        ]
        yield Finding(
            f"Without a notion of noise {name.replace('_exact', '')} intersections see nothing",
            Prediction(
                "the exact dimension never moves in training: stored maps have full rank",
                1.0,
                "spec, section 2",
            ),
            (share_interval(f"share of trainings in which {name} stayed", still),),
            "confirmed" if all(still) else "refuted",
            "Exact dimensions are set by the widths alone. One training in which they moved would "
            "refute it.",
        )
