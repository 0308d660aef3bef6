"""Learning rate and weight decay of each group of an optimiser, from what it saved of itself."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.groups.choice import is_optimiser
from flagscope.checkpoint.torch.objects import pairs_of
from flagscope.errors import CorruptFileError, InputError
from flagscope.series.rates.learning_rates import logged_rates
from flagscope.series.rates.saved import number, plain, saved_object
from flagscope.series.rates.schedule import GroupSchedule, Optimiser, Schedule

OPTIMISER = "optimizer.pt"
"""Name that Hugging Face's Trainer gives it."""
_MOST_GROUPS = 10_000
_MOST_STATES = 16  # tensors whose counts are read; they are as many for all that are trained


@dataclass(frozen=True)
class SavedGroup:
    """One group of parameters as an optimiser saved it.

    Attributes
    ----------
    learning_rate
        η after the scheduler's last move.
    decay
        λ; None where the optimiser has none.
    momentum, dampening, nesterov, betas
        As far as the optimiser has them.
    parameters
        Number of tensors in the group.
    names
        Their names, which PyTorch saves of an optimiser that was made from named parameters; None
        where there are none.
    """

    learning_rate: float
    decay: float | None
    momentum: float
    dampening: float
    nesterov: bool
    betas: tuple[float, float] | None
    parameters: int
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SavedOptimiser:
    """The groups of an optimiser, and what of it can be recognised.

    Attributes
    ----------
    groups
        In the order of the optimiser.
    optimiser
        "sgd" or "adamw"; None where it may be Adam as well, whose L2 decay has no decay time.
    step
        Number of updates done, where the file says it: by Lightning, or the largest count among the
        first 16 tensors, of optimisers that count (AdamW does, SGD does not).
    """

    groups: tuple[SavedGroup, ...]
    optimiser: Optimiser | None
    step: int | None = None


def read_optimiser(path: str | os.PathLike[str]) -> SavedOptimiser:
    """The groups in an optimizer.pt, or in a checkpoint of PyTorch Lightning. Nothing is run.

    No tensor of the optimiser's state is read.

    Raises
    ------
    UnsafeFileError, MissingFileError, CorruptFileError, SourceError
        If the file cannot be read safely, or holds no optimiser, or more than one.
    """
    saved, placed = saved_object(path)
    content = pairs_of(saved) or {}
    step = content.get("global_step")
    states = content.get("optimizer_states")
    if isinstance(states, (list, tuple)):
        if len(states) != 1:
            raise CorruptFileError(
                f"{path} holds {len(states)} optimisers.", hint="give the schedule by hand."
            )
        content = pairs_of(states[0]) or {}
    if not is_optimiser(content):
        raise CorruptFileError(
            f"{path} holds no optimiser.",
            hint="give optimizer.pt, or a checkpoint of Lightning.",
        )
    groups = content["param_groups"]
    if not isinstance(groups, (list, tuple)) or not 0 < len(groups) <= _MOST_GROUPS:
        raise CorruptFileError(f"{path} has no list of groups of parameters.", hint=DAMAGED)
    read = tuple(
        _group(pairs_of(group), placed, f"{path}, group {i}") for i, group in enumerate(groups)
    )
    whole = isinstance(step, int) and not isinstance(step, bool) and step >= 0
    done = step if whole else _updates(pairs_of(content["state"]) or {}, placed, path)
    return SavedOptimiser(read, _recognised([pairs_of(group) or {} for group in groups]), done)


def schedule_from_optimisers(
    saved: Mapping[int, SavedOptimiser],
    *,
    updates: int | None = None,
    optimiser: Optimiser | None = None,
    source: str = "optimizer.pt",
) -> Schedule:
    """A schedule from the optimisers that were saved with a series of checkpoints.

    Parameters
    ----------
    saved
        By number of updates done.
    updates
        Length of the training; the last saved step if None.
    optimiser
        Which it is, where the files cannot show it: "sgd" or "adamw".
    source
        Where they come from.

    Returns
    -------
    Schedule
        Groups "group 0", "group 1", … Their rates are known at the saved steps alone, see
        `logged_rates`; λ is exact.

    Raises
    ------
    InputError
        If nothing is given, the files differ in their groups, or λ changes along the series.
    """
    if not saved:
        raise InputError("no optimiser was given")
    first = saved[min(saved)]
    if any(len(each.groups) != len(first.groups) for each in saved.values()):
        raise InputError("the optimisers have different numbers of groups")
    groups = []
    for i, group in enumerate(first.groups):
        if len({each.groups[i].decay for each in saved.values()}) > 1:
            raise InputError(
                f"the weight decay of group {i} changes along the series",
                hint="a decay time needs a constant one; take a part of the series",
            )
        logged = {step: each.groups[i].learning_rate for step, each in saved.items()}
        groups.append(
            GroupSchedule(
                f"group {i}",
                logged_rates(logged, updates=max(updates or 0, max(saved), 1)),
                group.decay,
                momentum=group.momentum,
                dampening=group.dampening,
                nesterov=group.nesterov,
                betas=group.betas,
                members=f"{group.parameters} tensors"
                + ("" if group.names else ", whose names are not saved"),
                tensors=_own_names(group, first.groups),
            )
        )
    notes = (
        f"learning rates are known at {len(saved)} steps and interpolated between them: bounds "
        "hold if they only rise or only fall between two of them",
    )
    return Schedule(tuple(groups), optimiser or first.optimiser, source, notes)


def _group(group: Mapping[Any, Any] | None, placed: PlacedBytes, what: str) -> SavedGroup:
    if group is None or "lr" not in group:
        raise CorruptFileError(f"{what} has no learning rate.", hint=DAMAGED)
    rate = number(group["lr"], placed, f"the learning rate of {what}")
    decay = number(group.get("weight_decay"), placed, f"the weight decay of {what}")
    if rate is None or rate < 0 or (decay is not None and decay < 0):
        raise CorruptFileError(f"{what} has a negative learning rate or decay.", hint=DAMAGED)
    betas = plain(group.get("betas"))
    pair = (
        (float(betas[0]), float(betas[1]))
        if isinstance(betas, list) and len(betas) == 2 and all(isinstance(b, float) for b in betas)
        else None
    )
    parameters = group.get("params")
    return SavedGroup(
        learning_rate=rate,
        decay=decay,
        momentum=number(group.get("momentum"), placed, f"the momentum of {what}") or 0.0,
        dampening=number(group.get("dampening"), placed, f"the dampening of {what}") or 0.0,
        nesterov=group.get("nesterov") is True,
        betas=pair,
        parameters=len(parameters) if isinstance(parameters, (list, tuple)) else 0,
        names=_names(plain(group.get("param_names"))) or _names(plain(parameters)),
    )


def _names(value: Any) -> tuple[str, ...] | None:
    """Names of tensors: `param_names`, or `params` as torch.distributed.checkpoint saves it."""
    if not isinstance(value, list) or not value:
        return None
    return tuple(value) if all(isinstance(name, str) for name in value) else None


def _own_names(group: SavedGroup, groups: Sequence[SavedGroup]) -> tuple[str, ...] | None:
    """Names of a group's tensors that no other group has, as parts of modules may share one."""
    if group.names is None:
        return None
    others = {name for other in groups if other is not group for name in other.names or ()}
    return tuple(name for name in group.names if name not in others)


def _updates(
    states: Mapping[Any, Any], placed: PlacedBytes, path: str | os.PathLike[str]
) -> int | None:
    """The most updates that the state of any tensor counts; None where none counts."""
    counts = []
    for state in itertools.islice(states.values(), _MOST_STATES):
        own = pairs_of(state) or {}
        count = number(own.get("step"), placed, f"the step in {path}")
        if count is not None and count >= 0:
            counts.append(int(count))
    return max(counts, default=None)


def _recognised(groups: list[Mapping[Any, Any]]) -> Optimiser | None:
    """The optimiser by the settings that PyTorch's own ones save."""
    if all("dampening" in group and "nesterov" in group for group in groups):
        return "sgd"
    if all(group.get("decoupled_weight_decay") is True for group in groups):
        return "adamw"
    return None
