"""The schedule of a Hugging Face Trainer, from trainer_state.json and training_args.bin."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from flagscope.errors import CorruptFileError, InputError
from flagscope.series.rates.learning_rates import (
    MOST_UPDATES,
    LearningRates,
    known_rates,
    logged_rates,
)
from flagscope.series.rates.schedule import GroupSchedule, Optimiser, Schedule
from flagscope.series.rates.training_arguments import TrainingArguments, read_training_arguments
from flagscope.series.rates.undecayed import RULE
from flagscope.series.trainer_state import trainer_content

# Rates are logged in full; programs print some to six digits.
_SAME = 1e-5


def trainer_schedule(
    state: str | os.PathLike[str],
    arguments: str | os.PathLike[str] | None = None,
    *,
    decay: float | None = None,
    optimiser: Optimiser | None = None,
) -> Schedule:
    """The schedule that a Hugging Face Trainer left next to its checkpoints.

    trainer_state.json has learning rates at logged steps, and neither λ nor the optimiser; those
    are in training_args.bin, which is read without running it. Where its scheduler has a known
    formula that agrees with every logged rate, rates are exact; otherwise they are interpolated
    between the logged steps, with bounds.

    Parameters
    ----------
    state
        trainer_state.json, of the last checkpoint.
    arguments
        training_args.bin.
    decay, optimiser
        λ and the optimiser where there is no training_args.bin.

    Returns
    -------
    Schedule
        Groups "decayed" and "undecayed". What was not known is in its notes. Without λ the decay
        of "decayed" is None.

    Raises
    ------
    UnsafeFileError, MissingFileError, CorruptFileError, SourceError
        If a file is not there, damaged, or asks for code.
    InputError
        If λ is given and contradicts training_args.bin.
    """
    content = _state(Path(state))
    logged = _logged(content, state)
    done = max([*logged, content["global_step"]])
    settings = None if arguments is None else read_training_arguments(arguments)
    notes: list[str] = []
    if settings is None:
        notes.append("trainer_state.json says nothing of weight decay or of the optimiser")
        rates = logged_rates(logged, updates=max(done, 1))
        notes.append(_interpolated(logged))
    else:
        if decay is not None and decay != settings.weight_decay:
            raise InputError(
                f"training_args.bin gives weight decay {settings.weight_decay:g}, and {decay:g} "
                "was given"
            )
        decay = settings.weight_decay
        optimiser = optimiser or _optimiser(settings, notes)
        rates = _rates(settings, content, logged, max(done, 1), notes)
    betas = None if settings is None else (settings.adam_beta1, settings.adam_beta2)
    groups = (
        GroupSchedule("decayed", rates, decay, betas=betas, members=RULE),
        GroupSchedule("undecayed", rates, 0.0, betas=betas, members="biases, norms and vectors"),
    )
    source = "trainer_state.json" if settings is None else "trainer_state.json, training_args.bin"
    return Schedule(groups, optimiser, source, tuple(notes))


def _rates(
    settings: TrainingArguments,
    content: dict[str, Any],
    logged: dict[int, float],
    done: int,
    notes: list[str],
) -> LearningRates:
    """Rates by the scheduler's formula if that is what the log shows, else by the log."""
    planned = content["max_steps"] or max(settings.max_steps, 0)
    if planned and settings.learning_rate_of(0, planned) is not None:

        def rate(update: int) -> float:
            return settings.learning_rate_of(update, planned) or 0.0

        # Whether update s - 1 or update s is logged at step s depends on the release.
        tolerance = _SAME * settings.learning_rate
        for shift in (1, 0):
            if all(abs(rate(max(s - shift, 0)) - eta) <= tolerance for s, eta in logged.items()):
                if not logged:
                    notes.append(
                        "learning rates follow the scheduler's formula; none was logged to compare"
                    )
                return known_rates(rate, updates=done)
        notes.append(
            "the logged learning rates are not those of the scheduler in training_args.bin"
        )
    if not logged:
        raise InputError(
            f"no learning rate was logged, and the scheduler {settings.lr_scheduler_type!r} has no "
            "formula here",
            hint="give the learning rates by hand",
        )
    notes.append(_interpolated(logged))
    return logged_rates(logged, updates=done)


def _interpolated(logged: dict[int, float]) -> str:
    return (
        f"learning rates are known at {len(logged)} logged steps and interpolated between them: "
        "bounds hold if they only rise or only fall between two of them"
    )


def _optimiser(settings: TrainingArguments, notes: list[str]) -> Optimiser | None:
    if settings.optim.startswith(("adamw_", "paged_adamw_")):
        return "adamw"
    if settings.optim == "sgd":
        if settings.values.get("optim_args"):
            notes.append("arguments of the optimiser (optim_args) were not read")
            return None
        return "sgd"
    notes.append(f"for the optimiser {settings.optim!r} no decay time is known")
    return None


def _state(path: Path) -> dict[str, Any]:
    content = trainer_content(path)
    if not isinstance(content.get("log_history"), list):
        raise CorruptFileError(f"{path} has no log_history.", hint="give trainer_state.json")
    return content | {name: _count(content.get(name)) for name in ("global_step", "max_steps")}


def _logged(content: dict[str, Any], path: str | os.PathLike[str]) -> dict[int, float]:
    """Learning rate by step. Of several entries of one step the last counts, as after a resume."""
    rates: dict[int, float] = {}
    for entry in content["log_history"]:
        if not isinstance(entry, dict) or "learning_rate" not in entry:
            continue
        step, rate = _count(entry.get("step")), entry["learning_rate"]
        if isinstance(rate, bool) or not isinstance(rate, (int, float)):
            raise CorruptFileError(f"{path} gives a learning rate as {str(rate)[:60]!r}.")
        if not math.isfinite(rate) or rate < 0:
            raise CorruptFileError(f"{path} gives a learning rate of {rate}.")
        if step:
            rates[step] = float(rate)
    return rates


def _count(value: Any) -> int:
    """A step; 0 for what is not one."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 < value <= MOST_UPDATES else 0
