"""Rates of ‖A - B‖ of deep linear networks under several schedules, fitted in decay time.

    python -m benchmarks.rate_linear

Layers of 12 neurons on scikit-learn's digits, full-batch gradient descent with L2, ten seeds, 13
checkpoints. Prediction: 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from flagscope.lab.data import load_images
from flagscope.lab.linear import class_regression, linear_gradients
from flagscope.lab.networks import initial_network
from flagscope.series.rates import GroupSchedule, fitted_rate, known_rates

UPDATES, CHECKPOINTS = 1000, 13


def cosine(n: int) -> float:
    return 0.1 * (1 + math.cos(math.pi * n / UPDATES)) + 0.002


def warmed_up(n: int) -> float:
    return 0.2 * min(1.0, (n + 1) / 300)


def constant(n: int) -> float:  # noqa: ARG001
    return 0.2


SCHEDULES: dict[str, Callable[[int], float]] = {
    "constant": constant, "warm-up": warmed_up, "cosine": cosine,
}  # fmt: skip


def trained_imbalances(
    rate: Callable[[int], float], decays: Sequence[float], seeds: Sequence[int]
) -> tuple[list[int], np.ndarray]:
    """Steps, and ‖A - B‖ by step, pair and seed, with λ of each layer."""
    task = class_regression(load_images())
    widths = [task.inputs.shape[1], *[12] * (len(decays) - 1), task.targets.shape[1]]
    weights = [w.detach() for w in initial_network(widths, list(seeds)).weights]
    steps = [round(UPDATES * i / (CHECKPOINTS - 1)) for i in range(CHECKPOINTS)]
    rows = []
    for n in range(UPDATES + 1):
        if n in steps:
            differences = [w1 @ w1.mT - w2.mT @ w2 for w1, w2 in pairwise(weights)]
            rows.append([torch.linalg.matrix_norm(d).numpy() for d in differences])
        gradients = linear_gradients(weights, task.input_covariance, task.cross_covariance)
        weights = [
            (1 - rate(n) * decay) * w - rate(n) * g
            for w, g, decay in zip(weights, gradients, decays, strict=True)
        ]
    return steps, np.array(rows)


def rates(name: str, decays: Sequence[float], pair: int, seeds: Sequence[int]) -> np.ndarray:
    """Fitted rates by seed, in the time of the pair's write map; NaN where there is none."""
    steps, sizes = trained_imbalances(SCHEDULES[name], decays, seeds)
    rates = known_rates(SCHEDULES[name], updates=UPDATES)
    time = GroupSchedule("own", rates, decays[pair]).decay_time(steps)
    fits = [fitted_rate(time, sizes[:, pair, i].tolist()) for i in range(len(seeds))]
    return np.array([math.nan if fit.rate is None else fit.rate for fit in fits])


if __name__ == "__main__":
    seeds = range(10)
    for name in SCHEDULES:
        for pair in range(2):
            found = rates(name, [0.01] * 3, pair, seeds)
            print(f"{name}, pair {pair + 1}: mean {found.mean():.4f}, "
                  f"{found.min():.4f} to {found.max():.4f}", flush=True)  # fmt: skip
    for pair, what in enumerate(("group λ = 0.01", "across the groups", "group λ = 0.005")):
        for name in SCHEDULES:
            found = rates(name, [0.01, 0.01, 0.005, 0.005], pair, seeds)
            known = found[~np.isnan(found)]
            print(f"two groups, {name}, {what}: {len(known)} of 10 have a rate, mean "
                  f"{known.mean():.4f}, {known.min():.4f} to {known.max():.4f}" if len(known)
                  else f"two groups, {name}, {what}: none has a rate", flush=True)  # fmt: skip
