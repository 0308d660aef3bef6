"""Trainings of small linear networks, saved as their trainers save them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from flagscope.lab.data import load_images
from flagscope.lab.linear import Regression, class_regression, covariances

UPDATES, CHECKPOINTS, WIDTH = 1000, 13, 12
PEAK = 0.2
_WARM_UP = 300

# Names of Hugging Face's schedulers, and their formulas.
SCHEDULES: dict[str, Callable[[int], float]] = {
    "constant": lambda _: 1.0,
    "constant_with_warmup": lambda n: min(1.0, n / _WARM_UP),
    "cosine": lambda n: max(0.0, 0.5 * (1 + math.cos(math.pi * n / UPDATES))),
}


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes
    ----------
    schedule
        A name in `SCHEDULES`.
    decays
        λ of each layer; layers of one λ next to each other are one group.
    optimiser
        "sgd" or "adamw".
    peak
        Largest learning rate.
    momentum
        Of SGD.
    batch
        Examples of an update; None for all of them.
    """

    schedule: str
    decays: tuple[float, ...]
    optimiser: str = "sgd"
    peak: float = PEAK
    momentum: float = 0.0
    batch: int | None = None

    def rate(self, update: int) -> float:
        """η of an update, counted from 0."""
        return self.peak * SCHEDULES[self.schedule](update)

    def groups(self, net: nn.Sequential) -> list[dict[str, object]]:
        """Groups of parameters, each with its names, as PyTorch takes and saves them."""
        named = list(net.named_parameters())
        return [
            {"params": [one for one, own in zip(named, self.decays, strict=True) if own == decay],
             "weight_decay": decay}
            for decay in dict.fromkeys(self.decays)
        ]  # fmt: skip

    def made(self, net: nn.Sequential) -> torch.optim.Optimizer:
        if self.optimiser == "adamw":
            return torch.optim.AdamW(self.groups(net), lr=self.peak)
        return torch.optim.SGD(self.groups(net), lr=self.peak, momentum=self.momentum)


@cache
def task() -> Regression:
    return class_regression(load_images(), features=24)


def save_training(training: Training, seed: int, folder: Path) -> None:
    """Train, and save weights and optimiser at 13 evenly spaced numbers of updates."""
    torch.manual_seed(seed)
    data = task()
    widths = [data.inputs.shape[1], *[WIDTH] * (len(training.decays) - 1), data.targets.shape[1]]
    net = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))
    for layer in net:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)  # pyright: ignore[reportArgumentType]
    optimizer = training.made(net)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, SCHEDULES[training.schedule])
    steps = {round(UPDATES * i / (CHECKPOINTS - 1)) for i in range(CHECKPOINTS)}
    whole = data.input_covariance.float(), data.cross_covariance.float()
    for n in range(UPDATES + 1):
        if n in steps:
            inner = folder / f"checkpoint-{n}"
            inner.mkdir(parents=True)
            save_file(net.state_dict(), inner / "model.safetensors")
            torch.save(optimizer.state_dict(), inner / "optimizer.pt")
        optimizer.zero_grad()
        _loss(net, *(whole if training.batch is None else _batch(training.batch))).backward()
        optimizer.step()
        scheduler.step()


def _batch(size: int) -> tuple[Tensor, Tensor]:
    data = task()
    chosen = torch.randint(len(data.inputs), (size,))
    xx, yx = covariances(data.inputs[chosen].float(), data.targets[chosen].float())
    return xx, yx


def _loss(net: nn.Sequential, xx: Tensor, yx: Tensor) -> Tensor:
    """½ E ‖y - W x‖² up to a constant, of the product W of all layers."""
    product = torch.linalg.multi_dot([layer.weight for layer in reversed(net)])  # pyright: ignore[reportArgumentType]
    return 0.5 * (product @ xx * product).sum() - (product * yx).sum()


def add_trainer_files(training: Training, folder: Path) -> None:
    """What Hugging Face's Trainer leaves next to the weights and the optimiser."""
    made = transformers.TrainingArguments(
        output_dir=str(folder / "out"), use_cpu=True, report_to=[], disable_tqdm=True,
        optim="sgd" if training.optimiser == "sgd" else "adamw_torch",
        learning_rate=training.peak, lr_scheduler_type=training.schedule, max_steps=UPDATES,
        warmup_steps=_WARM_UP if "warmup" in training.schedule else 0,
        weight_decay=max(training.decays),
    )  # fmt: skip
    for path in folder.glob("checkpoint-*"):
        number = int(path.name.rpartition("-")[2])
        logged = [{"step": n, "learning_rate": training.rate(n)} for n in range(10, number + 1, 10)]
        state = {"global_step": number, "max_steps": UPDATES, "log_history": logged}
        (path / "trainer_state.json").write_text(json.dumps(state))
        torch.save(made, path / "training_args.bin")
