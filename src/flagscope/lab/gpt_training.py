"""Trains the small GPT of `flagscope.lab.gpt` on a text or on a destroyed task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer

from flagscope.lab.gpt import GPTShape, initial_state, logits
from flagscope.lab.text import Corpus, Task, windows

MOMENTUM = 0.9
_CLIP = 1.0


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of a training.

    Attributes
    ----------
    optimizer
        "adamw" with betas (0.9, 0.99), or "sgd" with momentum 0.9.
    steps, batch
        Number of steps, and of text windows per step.
    learning_rate
        Peak learning rate, after a linear warm-up over a twentieth of the steps; it then follows a
        cosine down to a tenth.
    decay
        Total weight decay τ = λ Σ_n η_n, where η_n is the effective step size (η/(1-β) under
        momentum β): weights without a gradient decay to about e^-τ of their start, under any
        optimiser. It is spread over the steps as a constant λ and acts on every parameter except
        the norms, including biases, since the conservation law requires a bias to decay like its
        matrix.
    """

    optimizer: Literal["adamw", "sgd"]
    steps: int
    batch: int
    learning_rate: float
    decay: float

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warmup = max(1, self.steps // 20)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def effective_rates(self) -> list[float]:
        """Effective step size of every step."""
        return [self.learning_rate_at(n) / (1 - self._momentum()) for n in range(self.steps)]

    def weight_decay(self) -> float:
        """The coefficient λ."""
        return self.decay / sum(self.effective_rates())

    def law(self, steps: Sequence[int]) -> list[float]:
        """Factor of A - B under the conservation law after so many steps: the square of a weight's
        decay, Π (1 - η_n λ)² without momentum.

        References
        ----------
        Gradient descent with an L2 penalty on a linear pair: theory §4.
        """
        decay, weight, velocity, left = self.weight_decay(), 1.0, 0.0, [1.0]
        for step in range(self.steps):
            velocity = self._momentum() * velocity + decay * weight
            weight -= self.learning_rate_at(step) * velocity
            left.append(weight**2)
        return [left[step] for step in steps]

    def _momentum(self) -> float:
        return MOMENTUM if self.optimizer == "sgd" else 0.0


def checkpoint_steps(last: int, *, per_decade: int = 3) -> list[int]:
    """Steps of the checkpoints: 0, 1, the last, and logarithmically spaced steps between.

    Examples
    --------
    >>> checkpoint_steps(100)
    [0, 1, 2, 5, 10, 22, 46, 100]
    """
    count = round(per_decade * math.log10(last))
    return sorted({0, *(round(last ** (i / max(1, count))) for i in range(count + 1)), last})


def trained(
    shape: GPTShape,
    corpus: Corpus,
    recipe: TrainingRecipe,
    *,
    task: Task = "real",
    seed: int,
    checkpoints: Sequence[int],
    report: Callable[[float], None] | None = None,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Train, and yield (step, weights) at each of the checkpoints, in order.

    A seed determines the initialisation and the choice of windows, whatever the task, decay and
    optimiser, so that runs can be compared in pairs. The weights are live: measure or copy them
    before requesting the next checkpoint. `report` takes the fraction done.
    """
    start = initial_state(shape, torch.Generator().manual_seed(seed))
    state = {name: weight.requires_grad_() for name, weight in start.items()}
    optimizer = _optimizer(state, recipe)
    generator = torch.Generator().manual_seed(2**32 + seed)  # independent of the weights
    wanted = set(checkpoints)
    for step in range(recipe.steps + 1):
        if step in wanted:
            yield step, {name: weight.detach() for name, weight in state.items()}
        if step == recipe.steps:
            return
        if report and step % 10 == 0:
            report(step / recipe.steps)
        window = windows(
            corpus, task, rows=recipe.batch, width=shape.n_positions + 1, generator=generator
        )
        scores = logits(state, window[:, :-1], shape)
        loss = functional.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(state.values(), _CLIP)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        optimizer.step()


def _optimizer(state: dict[str, Tensor], recipe: TrainingRecipe) -> Optimizer:
    norms = [weight for name, weight in state.items() if ".ln_" in name]
    maps = [weight for name, weight in state.items() if ".ln_" not in name]
    groups = [
        {"params": maps, "weight_decay": recipe.weight_decay()},
        {"params": norms, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.learning_rate, momentum=MOMENTUM, fused=True)
    return AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)
