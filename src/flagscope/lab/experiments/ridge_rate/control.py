"""Measures alignment under weight decay with a loss, with a loss without signal, and with none.

The law of ‖A - B‖ holds in all three. They differ in the quantities measured here: the imbalance
relative to the Grams, and the sines between their dominant spaces.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import principal_sines
from flagscope.lab.experiments.ridge_rate.training import MOMENTS, decay_rates, step_count
from flagscope.lab.linear import Regression, linear_gradients
from flagscope.lab.networks import initial_network

Loss = Literal["signal", "zero", "none"]
QUANTITIES = ("size", "relative", "trace_relative", "sine")
# Length of the window at the end, in units of 2λt, over which the settled rate is fitted.
WINDOW = 2.0


def measure_control(
    settings: dict[str, Any], task: Regression, report: Callable[[float], None]
) -> dict[str, Any]:
    """Run gradient descent with weight decay on linear networks, all seeds at once.

    Parameters
    ----------
    settings
        Settings of the cell; `loss` is "signal" (the task's targets), "zero" (its inputs, targets
        zero) or "none" (no gradient at all).
    task
        The regression.
    report
        Called with the fraction done.
    """
    s = settings
    d_in, d_out = task.inputs.shape[1], task.targets.shape[1]
    widths = [d_in, *[s["width"]] * (s["depth"] - 1), d_out]
    weights = [w.detach() for w in initial_network(widths, s["seeds"]).weights]
    # The centred targets of c classes span c - 1 directions, the dimension of the signal.
    signal = min(d_out - 1, s["width"] - 1)
    steps = step_count(s)
    moments: list[int] = []
    rows: list[list[dict[str, Tensor]]] = []
    for n in range(steps + 1):
        if n % (steps // MOMENTS) == 0:
            moments.append(n)
            rows.append([alignment_of(w1, w2, signal) for w1, w2 in pairwise(weights)])
            report(n / steps)
        if n < steps:
            gradients = _gradients(weights, task, s["loss"])
            weights = [
                (1 - s["step"] * s["decay"]) * w - s["step"] * g
                for w, g in zip(weights, gradients, strict=True)
            ]
    return _summary(s, moments, rows)


def alignment_of(
    write: Float[Tensor, "seeds d m1"], read: Float[Tensor, "seeds m2 d"], r: int
) -> dict[str, Float[Tensor, " seeds"]]:
    """‖A - B‖, also relative to the Grams in two norms, and the largest sine of the top spaces.

    Parameters
    ----------
    write, read
        W1 and W2.
    r
        Dimension of the compared dominant spaces of A and B.

    Examples
    --------
    >>> import torch
    >>> write, read = torch.tensor([[[2.0], [0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> found = alignment_of(write, read, 1)
    >>> [round(found[name].item(), 4) for name in ("size", "relative", "trace_relative", "sine")]
    [4.1231, 0.8246, 1.0, 1.0]
    """
    a, b = write @ write.mT, read.mT @ read
    size = torch.linalg.matrix_norm(a - b)
    traces = a.diagonal(dim1=-2, dim2=-1).sum(-1) + b.diagonal(dim1=-2, dim2=-1).sum(-1)
    (_, x), (_, y) = torch.linalg.eigh(a), torch.linalg.eigh(b)
    return {
        "size": size,
        "relative": size / (torch.linalg.matrix_norm(a) + torch.linalg.matrix_norm(b)),
        "trace_relative": torch.linalg.matrix_norm(a - b, "nuc") / traces,
        "sine": principal_sines(x[..., -r:], y[..., -r:]).amax(dim=-1),
    }


def _gradients(weights: list[Tensor], task: Regression, loss: Loss) -> list[Tensor]:
    if loss == "none":
        return [torch.zeros_like(w) for w in weights]
    cross = task.cross_covariance
    targets = cross if loss == "signal" else torch.zeros_like(cross)
    return linear_gradients(weights, task.input_covariance, targets)


def _summary(
    s: dict[str, Any], moments: list[int], rows: list[list[dict[str, Tensor]]]
) -> dict[str, Any]:
    """Series of the first pair, and for every pair the rates and the final values."""
    time = -2 * np.log1p(-s["step"] * s["decay"]) * np.array(moments)
    series = {
        name: torch.stack([torch.stack([pair[name] for pair in row]) for row in rows]).numpy()
        for name in QUANTITIES
    }
    late = time >= s["until"] - WINDOW
    summary: dict[str, Any] = {"time": time.tolist()}
    for name, values in series.items():
        summary[name] = values[:, 0].T.tolist()
        summary[f"{name}_start"], summary[f"{name}_end"] = values[0].tolist(), values[-1].tolist()
    summary["law_ratio"] = decay_rates(time, series["size"]).tolist()
    summary["relative_ratio"] = decay_rates(time[late], series["relative"][late]).tolist()
    return summary
