"""Trains networks of many seeds at once.

PyTorch's optimisers act on every element separately, so with a leading seed axis they train every
seed as if it were alone, provided that the loss is the sum over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from flagscope.errors import InputError


@dataclass(frozen=True)
class Optimiser:
    """An optimiser and its settings.

    Attributes
    ----------
    kind
        "sgd": w ← w - η (∇ + λ w), with momentum v ← β v + ∇ + λ w in place of the bracket.
        "adamw": Adam with decoupled decay, w ← (1 - ηλ) w - η m̂ / (√v̂ + ε).
    step
        η.
    decay
        λ; the ridge penalty is (λ/2) ‖w‖².
    momentum
        β of "sgd".
    betas
        Betas of "adamw".
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    step: float = 0.1
    decay: float = 0.0
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)

    def build(
        self, parameters: Sequence[Tensor], undecayed: Sequence[Tensor] = ()
    ) -> torch.optim.Optimizer:
        """PyTorch's optimiser for these parameters; `undecayed` ones, such as biases, come last."""
        groups = [{"params": list(parameters), "weight_decay": self.decay}]
        if undecayed:
            groups.append({"params": list(undecayed), "weight_decay": 0.0})
        if self.kind == "sgd":
            return torch.optim.SGD(groups, lr=self.step, momentum=self.momentum)
        if self.kind == "adamw":
            return torch.optim.AdamW(groups, lr=self.step, betas=self.betas)
        raise InputError(f"there is no optimiser {self.kind!r}", hint="sgd or adamw")


def train(
    optimiser: torch.optim.Optimizer,
    loss: Callable[[int], Float[Tensor, ""]],
    *,
    steps: int,
    record: Callable[[int], None] | None = None,
    at: Iterable[int] = (),
    report: Callable[[float], None] | None = None,
) -> None:
    """Run an optimiser.

    Parameters
    ----------
    optimiser
        Optimiser of the parameters on which the loss depends.
    loss
        Called with the number n of each step, 0 … steps - 1; returns the sum over seeds.
    steps
        Number of steps.
    record
        Called with n after n steps, for n in `at`; 0 and `steps` are possible.
    at
        Moments at which to record.
    report
        Called with the fraction done.

    Raises
    ------
    InputError
        If the loss is not finite any more.
    """
    moments = set(at)
    for n in range(steps + 1):
        if record is not None and n in moments:
            record(n)
        if n == steps:
            break
        optimiser.zero_grad()
        value = loss(n)
        value.backward()
        optimiser.step()
        if n % 100 == 0:
            if not torch.isfinite(value):
                raise InputError(
                    f"training diverged within {n} steps", hint="take a smaller step size"
                )
            if report is not None:
                report(n / steps)


def mean_square(output: Tensor, target: Tensor) -> Float[Tensor, ""]:
    """½ of the squared error, summed over outputs and seeds, averaged over examples."""
    return 0.5 * (output - target).square().sum() / output.shape[-2]


def cross_entropy(output: Tensor, labels: Tensor) -> Float[Tensor, ""]:
    """Cross entropy, averaged over examples, summed over seeds; labels (n,) or (seeds, n)."""
    wanted = labels.expand(output.shape[:-1]).reshape(-1)
    total = functional.cross_entropy(output.flatten(0, -2), wanted, reduction="sum")
    return total / output.shape[-2]


def batch_indices(
    n: int, size: int, generators: Sequence[torch.Generator]
) -> Int[Tensor, "seeds size"]:
    """Indices of a minibatch for every seed, drawn with replacement from the seed's generator.

    Examples
    --------
    >>> generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    >>> tuple(batch_indices(100, 8, generators).shape)
    (3, 8)
    """
    return torch.stack([torch.randint(n, (size,), generator=g) for g in generators])


def recording_times(steps: int, count: int, *, first: int = 1) -> list[int]:
    """0 and `count` moments evenly spaced in log n from `first` to `steps`, rounded.

    Examples
    --------
    >>> recording_times(1000, 4)
    [0, 1, 10, 100, 1000]
    """
    if count < 2 or steps <= first:
        return [0, steps]
    ratio = (steps / first) ** (1 / (count - 1))
    return sorted({0, steps, *(round(first * ratio**i) for i in range(count))})
