"""Trains deep linear networks under weight decay, and records A - B."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import principal_sines
from flagscope.lab.linear import Regression, covariances, linear_gradients
from flagscope.lab.networks import initial_network
from flagscope.lab.training import batch_indices

MOMENTS = 40
# Length of the window at the end, in units of 2λt, over which an angle's rate is fitted.
_ANGLE_WINDOW = 2.0


def step_count(s: dict[str, Any]) -> int:
    """Steps until 2λt reaches `until`, where t counts η, or η / (1 - β) with momentum."""
    pace = s["step"] / (1 - s.get("beta", 0.0))
    return MOMENTS * math.ceil(s["until"] / (2 * s["decay"] * pace) / MOMENTS)


@dataclass
class RidgeRun:
    """The training of one cell, and its records."""

    settings: dict[str, Any]
    task: Regression
    weights: list[Float[Tensor, "seeds out in"]] = field(init=False)
    driven: list[Float[Tensor, "seeds d d"]] = field(init=False)

    def carry_out(self, report: Callable[[float], None]) -> dict[str, Any]:
        """Train to the end, and return the rates and the series to draw."""
        s = self.settings
        d_in, d_out = self.task.inputs.shape[1], self.task.targets.shape[1]
        widths = [d_in, *[s["width"]] * (s["depth"] - 1), d_out]
        drawn = initial_network(widths, s["seeds"]).weights
        # The centred targets of c classes span c - 1 directions, the dimension of the signal.
        signal = min(d_out - 1, s["width"] - 1)
        self.weights = [w.detach() for w in drawn]
        self.driven = [torch.zeros_like(d) for d in self._differences()]
        start = [d.clone() for d in self._differences()]
        advance, steps = self._optimiser(), step_count(s)
        moments, sizes, corrected, sines, bounds, misses = [], [], [], [], [], []
        for n in range(steps + 1):
            if n % (steps // MOMENTS) == 0:
                moments.append(n)
                now = self._differences()
                free = [d - e for d, e in zip(now, self.driven, strict=True)]
                law = [(1 - s["step"] * s["decay"]) ** (2 * n) * d for d in start]
                sizes.append([_norm(d) for d in now])
                corrected.append([_norm(d) for d in free])
                misses.append(
                    max(
                        float((_norm(d - e) / _norm(e)).max())
                        for d, e in zip(free, law, strict=True)
                    )
                )
                angles = [dominant_angle(a, b, signal) for a, b in self._grams()]
                sines.append([sine for sine, _ in angles])
                bounds.append([bound for _, bound in angles])
                report(n / steps)
            if n < steps:
                advance(n)
        return _summary(s, moments, sizes, corrected, sines, bounds, misses)

    def _grams(self) -> list[tuple[Tensor, Tensor]]:
        return [(w1 @ w1.mT, w2.mT @ w2) for w1, w2 in pairwise(self.weights)]

    def _differences(self) -> list[Float[Tensor, "seeds d d"]]:
        return [a - b for a, b in self._grams()]

    def _optimiser(self) -> Callable[[int], None]:
        s, data = self.settings, self.task
        kind, step, decay = s["kind"], s["step"], s["decay"]
        if kind in ("momentum", "adamw"):
            return self._with_state(kind)
        generators = [torch.Generator().manual_seed(7919 + seed) for seed in s["seeds"]]

        def descend(_: int) -> None:
            xx, yx = data.input_covariance, data.cross_covariance
            if kind == "noise":
                chosen = batch_indices(len(data.inputs), s["batch"], generators)
                xx, yx = covariances(data.inputs[chosen], data.targets[chosen])
            gradients = linear_gradients(self.weights, xx, yx)
            for i, (g1, g2) in enumerate(pairwise(gradients)):
                second = g1 @ g1.mT - g2.mT @ g2
                self.driven[i] = (1 - step * decay) ** 2 * self.driven[i] + step**2 * second
            self.weights = [
                (1 - step * decay) * w - step * g
                for w, g in zip(self.weights, gradients, strict=True)
            ]

        return descend

    def _with_state(self, kind: str) -> Callable[[int], None]:
        """PyTorch's momentum or AdamW, which act on each element separately."""
        s, data = self.settings, self.task
        if kind == "momentum":
            made: torch.optim.Optimizer = torch.optim.SGD(
                self.weights, lr=s["step"], momentum=s["beta"], weight_decay=s["decay"]
            )
        else:
            made = torch.optim.AdamW(self.weights, lr=s["step"], weight_decay=s["decay"])

        def advance(_: int) -> None:
            gradients = linear_gradients(self.weights, data.input_covariance, data.cross_covariance)
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.grad = gradient
            made.step()

        return advance


def _norm(x: Float[Tensor, "seeds d d"]) -> Float[Tensor, " seeds"]:
    return torch.linalg.matrix_norm(x)


def dominant_angle(a: Tensor, b: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Largest sine between the top r eigenvectors of A and of B, and the Davis-Kahan bound.

    ‖sin Θ‖ ≤ ‖A - B‖ / (β_r - α_{r+1}) in spectral norms, if the gap is positive; else 1.
    """
    (alpha, x), (beta, y) = torch.linalg.eigh(a), torch.linalg.eigh(b)
    sine = principal_sines(x[..., -r:], y[..., -r:]).amax(dim=-1)
    gap = beta[..., -r] - alpha[..., -r - 1]
    ratio = torch.linalg.matrix_norm(a - b, 2) / gap
    return sine, torch.where((gap > 0) & (ratio < 1), ratio, torch.ones_like(ratio))


def _summary(
    s: dict[str, Any],
    moments: list[int],
    sizes: list[list[Tensor]],
    corrected: list[list[Tensor]],
    sines: list[list[Tensor]],
    bounds: list[list[Tensor]],
    misses: list[float],
) -> dict[str, Any]:
    """Rates by pair and seed, and the series to draw."""
    pace = s["step"] / (1 - s.get("beta", 0.0))
    predicted = -2 * math.log1p(-pace * s["decay"])
    time = np.array(moments) * predicted
    d, free, sine, bound = (
        torch.stack([torch.stack(row) for row in series]).numpy()
        for series in (sizes, corrected, sines, bounds)
    )
    window = time >= s["until"] - _ANGLE_WINDOW
    early = time <= 2
    return {
        "time": time.tolist(),
        "ratio": (decay_rates(time, d)).tolist(),
        "ratio_early": decay_rates(time[early], d[early]).tolist(),
        "ratio_less_driven": decay_rates(time, free).tolist(),
        "angle_ratio": decay_rates(time[window], sine[window]).tolist(),
        "bound_ratio": decay_rates(time[window], bound[window]).tolist(),
        "within_bound": float(np.mean(sine <= bound * (1 + 1e-9))),
        "identity_miss": max(misses),
        "size": d[:, 0].T.tolist(),
        "sine": sine[:, 0].T.tolist(),
        "bound": bound[:, 0].T.tolist(),
        "growth": (d[-1] / d[0]).tolist(),
    }


def decay_rates(time: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Minus the slope of the logarithm against predicted time: measured over predicted rate.

    `series` has shape (moments, pairs, seeds); the result has shape (pairs, seeds).
    """
    centred = time - time.mean()
    return -np.tensordot(centred, np.log(series), axes=1) / (centred**2).sum()
