"""What one batch of each task says about a pair: the baselines that need data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flagscope.lab.experiments.merge_prediction.fine_tuning import Tuned, map_names, with_update
from flagscope.lab.experiments.merge_prediction.tasks import Batch, loss, performance
from flagscope.lab.experiments.merge_prediction.weight_measures import Pairs, energy_cosine
from flagscope.lab.gpt import GPTShape

Moments = dict[str, Float[Tensor, "m m"]]


def data_measures(
    base: Mapping[str, Tensor],
    tuned: Sequence[Tuned],
    batches: Sequence[Batch],
    shape: GPTShape,
    pairs: Pairs,
) -> dict[str, list[float | None]]:
    """Every measure for every pair, by name.

    - `gradient_cosine`: of the two losses' gradients at the base, by the parameters that are tuned.
    - `activation_overlap`: cosine of the uncentred second moments of what each map reads at the
      base, averaged over maps.
    - `response`: ‖ΔW x‖²/(‖ΔW‖² ‖x‖²) of one task's update on the other's inputs, averaged over
      maps and both directions.
    - `cross_loss`: how much one task's update alone raises the other's loss, averaged over both
      directions.

    References
    ----------
    Zhang et al., Unraveling LoRA interference: orthogonal subspaces for robust model merging, ACL
    2025, for the response.
    """
    gradients = [_gradient(base, list(tuned[0].update), drawn, shape) for drawn in batches]
    moments = [input_moments(base, drawn, shape) for drawn in batches]
    before = [performance(base, drawn, shape)[1] for drawn in batches]
    networks = [with_update(base, t.update) for t in tuned]

    def rise(i: int, j: int) -> float:
        return performance(networks[j], batches[i], shape)[1] - before[i]

    return {
        "gradient_cosine": [energy_cosine(gradients[i], gradients[j]) for i, j in pairs],
        "activation_overlap": [_overlap(moments[i], moments[j]) for i, j in pairs],
        "response": [
            (_response(tuned[j], moments[i]) + _response(tuned[i], moments[j])) / 2
            for i, j in pairs
        ],
        "cross_loss": [(rise(i, j) + rise(j, i)) / 2 for i, j in pairs],
    }


class _Inputs(TorchFunctionMode):
    """Records the second moments of what goes into each `addmm`, in order of application."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.addmm:
            x = args[1].double()
            self.moments.append(x.mT @ x / len(x))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def input_moments(base: Mapping[str, Tensor], drawn: Batch, shape: GPTShape) -> Moments:
    """E[x xᵀ] of the inputs of each map, by the map's name."""
    with _Inputs() as inputs:
        loss(base, drawn, shape)
    return dict(zip(map_names(shape), inputs.moments, strict=True))


def _gradient(
    base: Mapping[str, Tensor], names: Sequence[str], drawn: Batch, shape: GPTShape
) -> dict[str, Tensor]:
    leaves = {name: base[name].clone().requires_grad_() for name in names}
    value = loss({**base, **leaves}, drawn, shape)
    return dict(zip(names, torch.autograd.grad(value, list(leaves.values())), strict=True))


def _overlap(first: Moments, second: Moments) -> float:
    cosines = [
        (x * second[name]).sum() / (x.norm() * second[name].norm()) for name, x in first.items()
    ]
    return float(torch.stack(cosines).mean())


def _response(update: Tuned, moments: Moments) -> float:
    shares = []
    for name, moment in moments.items():
        w = update.update[name]  # (inputs, outputs)
        scale = w.square().sum() * moment.trace()
        shares.append(((moment @ w) * w).sum() / scale if scale > 0 else torch.zeros_like(scale))
    return float(torch.stack(shares).mean())
