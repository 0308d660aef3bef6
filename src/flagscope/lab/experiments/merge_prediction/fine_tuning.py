"""Trains a base on all tasks for a short time, and fine-tunes it on each alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from flagscope.lab.experiments.merge_prediction.tasks import batch, loss
from flagscope.lab.gpt import GPTShape, State, initial_state
from flagscope.lab.training import Optimiser, train

State_ = dict[str, Tensor]
_MAPS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
# Share of the steps over which the step size grows from zero.
_WARMUP = 0.1


@dataclass(frozen=True)
class Recipe:
    """Settings of a training: steps, sequences a step, and the largest step size."""

    steps: int
    batch: int
    rate: float

    def rate_at(self, step: int) -> float:
        """Step size: linear growth, then a linear fall to zero."""
        warmup = max(1, round(_WARMUP * self.steps))
        return self.rate * min((step + 1) / warmup, 1 - step / self.steps)


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned network as its differences from the base.

    Attributes
    ----------
    update
        What was added to each parameter, in float64; parameters that stayed are left out.
    learnt
        For LoRA, what the update would be if A had started at zero: s B (A - A_0), in the layout
        of the parameters. None for full fine-tuning.
    """

    update: State_
    learnt: State_ | None


def map_names(shape: GPTShape) -> list[str]:
    """Names of the weight matrices, in the order in which the network applies them."""
    return [
        f"transformer.h.{layer}.{name}.weight" for layer in range(shape.n_layer) for name in _MAPS
    ]


def base_network(shape: GPTShape, tasks: Sequence[int], recipe: Recipe, *, seed: int) -> State_:
    """A network trained on all tasks at once, its sequences divided among them."""
    state = initial_state(shape, torch.Generator().manual_seed(seed))
    leaves = {name: weight.requires_grad_() for name, weight in state.items()}
    share = max(1, recipe.batch // len(tasks))
    _descend(
        leaves.values(),
        lambda generator: loss(leaves, batch(tasks, share, generator), shape),
        recipe,
        _stream(seed, 0),
    )
    return {name: weight.detach() for name, weight in leaves.items()}


def fully_tuned(base: State, task: int, shape: GPTShape, recipe: Recipe, *, seed: int) -> Tuned:
    """Fine-tune all parameters on one task."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in base.items()}
    _descend(
        leaves.values(),
        lambda generator: loss(leaves, batch([task], recipe.batch, generator), shape),
        recipe,
        _stream(seed, 1 + task),
    )
    update = {
        name: weight.detach().double() - base[name].double() for name, weight in leaves.items()
    }
    return Tuned(update, None)


def lora_tuned(
    base: State, task: int, shape: GPTShape, recipe: Recipe, *, seed: int, rank: int, alpha: float
) -> Tuned:
    """Fine-tune low-rank factors of every weight matrix on one task.

    A starts as PEFT starts it, uniform within ±1/√(inputs), from one seed for all tasks, as two
    strangers' adapters do who left the default; B starts at zero.

    References
    ----------
    E. Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = alpha / rank
    first: dict[str, Float[Tensor, "r in"]] = {}
    for name in map_names(shape):
        inputs = base[name].shape[0]
        first[name] = (2 * torch.rand(rank, inputs, generator=generator) - 1) / math.sqrt(inputs)
    a = {name: weight.clone().requires_grad_() for name, weight in first.items()}
    b = {name: torch.zeros(base[name].shape[1], rank).requires_grad_() for name in first}

    def adapted() -> State_:
        # The lab's GPT stores maps as (in, out), the transpose of PEFT's B A.
        sums = {name: base[name] + scale * (b[name] @ a[name]).mT for name in first}
        return {**base, **sums}

    _descend(
        [*a.values(), *b.values()],
        lambda drawing: loss(adapted(), batch([task], recipe.batch, drawing), shape),
        recipe,
        _stream(seed, 1 + task),
    )
    update, learnt = {}, {}
    for name, start in first.items():
        up, down = b[name].detach().double(), a[name].detach().double()
        update[name] = scale * (up @ down).mT
        learnt[name] = scale * (up @ (down - start.double())).mT
    return Tuned(update, learnt)


def tuned_networks(
    base: State,
    chosen: Mapping[str, Any],
    shape: GPTShape,
    tasks: Sequence[int],
    report: Callable[[float], None],
) -> list[Tuned]:
    """One fine-tuned network for each task, as the settings of a cell say."""
    recipe, made = Recipe(**chosen["recipe"]), []
    for task in tasks:
        if chosen["tuning"] == "lora":
            made.append(
                lora_tuned(base, task, shape, recipe, seed=chosen["seed"], **chosen["lora"])
            )
        else:
            made.append(fully_tuned(base, task, shape, recipe, seed=chosen["seed"]))
        report((task + 1) / len(tasks))
    return made


def with_update(base: State, update: Mapping[str, Tensor]) -> State_:
    """The network with an update added, in the precision of the base."""
    return {
        name: (weight.double() + update[name]).to(weight.dtype) if name in update else weight
        for name, weight in base.items()
    }


def _stream(seed: int, number: int) -> Generator:
    """A generator of its own for each training of a seed."""
    return torch.Generator().manual_seed((seed << 8) + number)


def _descend(
    parameters: Iterable[Tensor],
    objective: Callable[[Generator], Tensor],
    recipe: Recipe,
    generator: Generator,
) -> None:
    optimiser = Optimiser("adamw", step=recipe.rate).build(list(parameters))

    def at(step: int) -> Tensor:
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate_at(step)
        return objective(generator)

    train(optimiser, at, steps=recipe.steps)
