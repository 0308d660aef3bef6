"""Trainings of linear networks with ridge: settings, starts and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from flagscope.lab.data import load_images
from flagscope.lab.experiments.attractor.limits import (
    nuclear_certificate,
    survival_threshold,
    surviving_value,
)
from flagscope.lab.experiments.attractor.records import STRENGTHS
from flagscope.lab.experiments.attractor.runs import (
    Weights,
    departures,
    descend,
    ends,
    leading_sine,
    planted_flag,
    product,
    ranks,
    relative_imbalance,
    whitened_targets,
)
from flagscope.lab.linear import class_regression
from flagscope.lab.networks import initial_network
from flagscope.lab.training import recording_times

INPUTS, WIDTH, OUTPUTS = 10, 12, 8
# λ between the thresholds of the strengths, by depth.
DECAYS = {2: (0.1, 0.3, 0.5, 0.7, 0.9, 1.1), 3: (0.03, 0.1, 0.2, 0.3, 0.4, 0.5)}
SMALL = 0.03
# Dimensions of V and U at a planted strict flag.
FLAG = (2, 4)
_MOMENTS = 50
# Quantities recorded at the start.
_AT_START = ("ranks", "imbalance", "strict_flags", "norm")


def cell_settings(*, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of every cell."""
    for depth, decays in DECAYS.items():
        step = {2: 0.1, 3: 0.05}[depth]
        for decay in decays[1::2] if quick else decays:
            # Dead directions fall like e^{-λt}, the gaps to the thresholds are 0.1 or so.
            until = 40 / min(decay, 0.1)
            base = {"depth": depth, "decay": decay, "step": step, "until": until}
            yield f"depth{depth}-decay{decay:g}", base | {"kind": "whitened"}
            if depth == 3 and decay >= 0.1 and survival_threshold(decay, 3) < STRENGTHS[0]:
                yield f"small-decay{decay:g}", base | {"kind": "small"}
    for depth in DECAYS:
        # Short steps: their contribution to A - B is of the order of the step.
        yield (
            f"no-ridge-depth{depth}",
            {"kind": "no ridge", "depth": depth, "decay": 0.0, "step": 0.01, "until": 40.0},
        )
    yield (
        "no-loss",
        {"kind": "no loss", "depth": 2, "decay": 0.3, "step": 0.1, "until": 20.0},
    )
    for decay in (0.0, 0.3) if quick else (0.0, 0.1, 0.3, 0.5):
        yield (
            f"flag-decay{decay:g}",
            {"kind": "flag", "depth": 2, "decay": decay, "step": 0.1, "until": 400.0},
        )
    # Long, since λ = 0.3 is close to the strongest direction of the digits.
    until = 1000.0 if quick else 4000.0
    for decay in (0.05, 0.35) if quick else (0.02, 0.05, 0.12, 0.2, 0.3):
        yield (
            f"images-decay{decay:g}",
            {"kind": "images", "depth": 2, "decay": decay, "step": 0.2, "until": until},
        )
    yield "orbits", {"kind": "orbits"}


def _task(s: dict[str, Any]) -> tuple[Weights, Tensor, Tensor]:
    """Initial weights, E x xᵀ and E y xᵀ."""
    seeds, kind = s["seeds"], s["kind"]
    if kind == "images":
        task = class_regression(load_images(s["data"]))
        xx, yx = task.input_covariance, task.cross_covariance
        inputs, width, outputs = xx.shape[-1], 16, yx.shape[-2]
    else:
        inputs, width, outputs = INPUTS, WIDTH, OUTPUTS
        strengths = STRENGTHS[: FLAG[0]] if kind == "flag" else STRENGTHS
        targets = [7919 + seed for seed in seeds]
        xx = torch.eye(inputs, dtype=torch.float64)
        yx = whitened_targets(strengths, inputs=inputs, outputs=outputs, seeds=targets)
    if kind == "flag":
        return planted_flag(yx, width=width, write=FLAG[0], read=FLAG[1], seed=seeds[0]), xx, yx
    widths = [inputs, *[width] * (s["depth"] - 1), outputs]
    scale = SMALL if kind == "small" else "lecun"
    weights = [w.detach() for w in initial_network(widths, seeds, scale=scale).weights]
    if kind == "no loss":
        xx, yx = torch.zeros_like(xx), torch.zeros_like(yx)
    return weights, xx, yx


def _leading(s: dict[str, Any]) -> int:
    """Dimension of the leading spaces whose angle is tracked: number of survivors, at least 1."""
    if s["kind"] in ("flag", "images"):
        return FLAG[0] if s["kind"] == "flag" else 1
    return max(1, sum(surviving_value(t, s["decay"], s["depth"]) is not None for t in STRENGTHS))


def train_with_ridge(s: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Initial and final measurements of every seed, and the course of a few numbers."""
    start, xx, yx = _task(s)
    steps, leading = round(s["until"] / s["step"]), _leading(s)
    course: dict[str, list[Any]] = {
        name: [] for name in ("time", "imbalance", "sine", "write", "read")
    }

    def record(n: int, now: Weights) -> None:
        course["time"].append(n * s["step"])
        course["imbalance"].append(relative_imbalance(now[0], now[1]))
        course["sine"].append(leading_sine(now[0], now[1], leading))
        course["write"].append(ranks(now[0]))
        course["read"].append(ranks(now[1]))

    end, driven = descend(
        start, xx, yx,
        step=s["step"], decay=s["decay"], steps=steps,
        record=record, moments=recording_times(steps, _MOMENTS), report=report,
    )  # fmt: skip
    law = (1 - s["step"] * s["decay"]) ** (2 * steps)
    rows = zip(
        s["seeds"], ends(start), ends(end), departures(start, end, driven, law),
        course["sine"][0], course["sine"][-1], strict=True,
    )  # fmt: skip
    runs = [
        {"seed": seed, "leading_sine_start": first, "leading_sine": last}
        | after
        | {f"{name}_start": before[name] for name in _AT_START}
        | departure
        for seed, before, after, departure, first, last in rows
    ]
    if s["kind"] == "images":
        excess, gap = nuclear_certificate(product(end), xx, yx, s["decay"])
        for run, a, b in zip(runs, excess.tolist(), gap.tolist(), strict=True):
            run |= {"residual_excess": a, "gap": b}
    return {
        "runs": runs,
        "course": course,
        "largest_strength": float(torch.linalg.matrix_norm(yx, 2).max()),
    }
