"""What training_args.bin of a Hugging Face Trainer says of a training; the pickle is never run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

from flagscope.checkpoint.torch.objects import attributes
from flagscope.errors import CorruptFileError
from flagscope.series.rates.saved import plain, saved_object


@dataclass(frozen=True)
class TrainingArguments:
    """Settings of `transformers.TrainingArguments`, as plain values.

    Attributes
    ----------
    learning_rate, weight_decay, adam_beta1, adam_beta2
        Of the optimiser; λ is 0 by default in transformers.
    optim, lr_scheduler_type
        Names of the optimiser and of the scheduler, such as "adamw_torch" and "linear".
    warmup_steps, warmup_ratio
        Steps of the warm-up; a share of all steps where `warmup_steps` is below 1.
    max_steps, num_train_epochs
        Length of the training; `max_steps` is -1 where epochs decide.
    values
        Everything in the file that is a plain value, by name.
    """

    learning_rate: float
    weight_decay: float
    optim: str
    lr_scheduler_type: str
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    warmup_steps: float = 0.0
    warmup_ratio: float = 0.0
    max_steps: int = -1
    num_train_epochs: float = 3.0
    values: dict[str, Any] = field(default_factory=dict, repr=False)

    def warmup(self, updates: int) -> int:
        """Updates of the warm-up in a training of so many, as transformers counts them."""
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        return math.ceil(updates * (self.warmup_steps or self.warmup_ratio))

    def learning_rate_of(self, update: int, updates: int) -> float | None:
        """η of an update, counted from 0, by the scheduler's formula; None for other schedulers.

        Known are "linear", "cosine", "constant" and "constant_with_warmup" without further
        arguments.
        """
        if self.values.get("lr_scheduler_kwargs"):
            return None
        kind, warmup = self.lr_scheduler_type, self.warmup(updates)
        if kind == "constant":
            return self.learning_rate
        if kind not in ("linear", "cosine", "constant_with_warmup"):
            return None
        if update < warmup:
            return self.learning_rate * update / max(1, warmup)
        done = (update - warmup) / max(1, updates - warmup)
        factors = {
            "constant_with_warmup": 1.0,
            "linear": max(0.0, 1 - done),
            "cosine": max(0.0, 0.5 * (1 + math.cos(math.pi * done))),
        }
        return self.learning_rate * factors[kind]


def read_training_arguments(path: str | os.PathLike[str]) -> TrainingArguments:
    """The settings in a training_args.bin, whether a zip file of torch.save or a bare pickle.

    Raises
    ------
    UnsafeFileError
        If it names what reaches the system. Nothing is run.
    MissingFileError, CorruptFileError, SourceError
        If it is not there, damaged, or holds no training arguments.
    """
    saved, _ = saved_object(path)
    state = attributes(saved)
    if state is None or not {"learning_rate", "weight_decay"} <= state.keys():
        raise CorruptFileError(
            f"{path} holds no training arguments.",
            hint="give training_args.bin, which a Hugging Face Trainer writes.",
        )
    values = {name: plain(value) for name, value in state.items() if isinstance(name, str)}
    # Objects whose values are not plain: a mapping of the scheduler's arguments is one.
    kwargs = state.get("lr_scheduler_kwargs")
    values["lr_scheduler_kwargs"] = bool(kwargs)

    def checked(name: str, default: Any, kind: type) -> Any:
        value = values.get(name)
        if value is None and default is not None:
            return default
        numeric = (
            kind is not str and isinstance(value, (int, float)) and not isinstance(value, bool)
        )
        if not (numeric or (kind is str and isinstance(value, str))):
            raise CorruptFileError(f"{path} gives {name} as {str(value)[:60]!r}.")
        return kind(value)

    arguments = TrainingArguments(
        learning_rate=checked("learning_rate", None, float),
        weight_decay=checked("weight_decay", None, float),
        optim=checked("optim", "unknown", str),
        lr_scheduler_type=checked("lr_scheduler_type", "unknown", str),
        adam_beta1=checked("adam_beta1", 0.9, float),
        adam_beta2=checked("adam_beta2", 0.999, float),
        warmup_steps=checked("warmup_steps", 0.0, float),
        warmup_ratio=checked("warmup_ratio", 0.0, float),
        max_steps=checked("max_steps", -1, int),
        num_train_epochs=checked("num_train_epochs", 3.0, float),
        values=values,
    )
    if arguments.learning_rate < 0 or arguments.weight_decay < 0 or arguments.warmup_steps < 0:
        raise CorruptFileError(f"{path} gives a negative learning rate, weight decay or warm-up.")
    return arguments
