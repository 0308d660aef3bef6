"""Rates of a series of checkpoints, from scans and samples of its steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch

from flagscope.checkpoint import Checkpoint, open_checkpoint
from flagscope.errors import FlagscopeError
from flagscope.records import PairRecord
from flagscope.records.pairs import MapReference
from flagscope.records.series import SeriesFault
from flagscope.records.series_rates import SeriesRates, SeriesRotation
from flagscope.series.compared import Compared
from flagscope.series.rates.rates_of import rates_of
from flagscope.series.rates.rotation import Rotation, rotations
from flagscope.series.rates.schedule import GroupSchedule, Schedule
from flagscope.series.rates.undecayed import decayed_by_trainer
from flagscope.series.schedules import updates_of
from flagscope.series.step import Step

Imbalances = Mapping[str, float]
_SPAN = re.compile(r"(\d*):(\d*)|(\d+)")
# Where a training began anew, what comes after is not of one decay time with what was before.
_ANEW = ("restart", "rolled-back")
_ENOUGH = 8  # checkpoints with updates, from which on the initialisation is not needed
_NOT_MEANT = ("gap", "mixed-dtype")  # faults that leave a step what its name says


def sound_steps(steps: Sequence[Step], faults: Sequence[SeriesFault]) -> list[Step]:
    """Steps with a number of updates that no fault names, up to where the training began anew."""
    named = {name for one in faults if one.code not in _NOT_MEANT for name in one.steps}
    anew = {name for one in faults if one.code in _ANEW for name in one.steps}
    kept: dict[int, Step] = {}
    for step in steps:
        if step.place.name in anew:
            break
        number = updates_of(step)
        if number is not None and step.fault is None and step.place.name not in named:
            kept.setdefault(number, step)
    return [kept[number] for number in sorted(kept)]


def may_have_law(pair: PairRecord) -> bool:
    """Whether nothing but a linear map lies, or may lie, between two maps as they are stored."""
    return pair.between in ("linear", "unknown") and not pair.folded and pair.kind != "residual"


def imbalances(step: Step, pairs: Sequence[PairRecord]) -> dict[str, float]:
    """‖A - B‖ of the linear pairs of a step, from their scan and the norms of their maps.

    ‖A‖ = ‖W‖² / √(participation ratio), and a scan gives ‖A - B‖ / (‖A‖ + ‖B‖).

    Raises
    ------
    FlagscopeError
        If the maps cannot be read.
    """
    found: dict[str, float] = {}
    wanted = [pair for pair in pairs if may_have_law(pair) and pair.imbalance is not None]
    if not wanted:
        return found
    with open_checkpoint(step.place.source, revision=step.place.revision) as checkpoint:
        known: dict[tuple[str, str], float | None] = {}
        for pair in wanted:
            sizes = []
            sides = ((pair.write, pair.participation_write), (pair.read, pair.participation_read))
            for map_, participation in sides:
                square = _square(checkpoint, map_, known)
                if square is not None and participation:
                    sizes.append(square / np.sqrt(participation))
            if len(sizes) == 2 and pair.imbalance is not None:
                found[pair.name] = float(pair.imbalance * sum(sizes))
    return found


def _square(
    checkpoint: Checkpoint, map_: MapReference, known: dict[tuple[str, str], float | None]
) -> float | None:
    """‖W‖²; None of a tensor that is stored with a scale, or a slice of another form."""
    key = map_.tensor, map_.slice
    if key not in known:
        index = _index(map_.slice)
        plain = map_.tensor in checkpoint.tensors and checkpoint.scale_name(map_.tensor) is None
        known[key] = None
        if index is not None and plain:
            part = checkpoint.read(map_.tensor, index)
            if part.is_floating_point():
                known[key] = float(part.to(torch.float64).square().sum())
    return known[key]


def _index(text: str) -> tuple[slice | int, ...] | None:
    parts: list[slice | int] = []
    for part in text.removeprefix("[").removesuffix("]").split(", "):
        span = _SPAN.fullmatch(part)
        if span is None:
            return None
        if span[3]:
            parts.append(int(span[3]))
        else:
            parts.append(slice(*(int(end) if end else None for end in (span[1], span[2]))))
    return tuple(parts)


def series_rates(
    steps: Sequence[Step],
    scans: Mapping[str, Sequence[PairRecord]],
    series: Compared,
    schedule: Schedule | None,
    *,
    reason: str,
    read: Callable[[Step, Sequence[PairRecord]], Imbalances],
) -> SeriesRates:
    """Rates of ‖A - B‖ of linear pairs in decay time; under AdamW also how far matrices turn.

    Parameters
    ----------
    steps
        Those to use, each with a number of updates.
    scans
        Pairs by the name of the step.
    series
        Samples that were compared.
    schedule, reason
        Of the training; or None, and why.
    read
        ‖A - B‖ by pair, of a step and its pairs; `imbalances`, or what was kept of it.
    """
    first = {pair.name: pair for step in steps[::-1] for pair in scans.get(step.place.name, ())}
    pairs = [name for name, pair in first.items() if may_have_law(pair)]
    open_ = {name for name in pairs if first[name].between == "unknown"}
    notes: list[str] = [] if schedule is not None else [reason]
    decays = schedule is not None and any(group.decay for group in schedule.groups)
    values: dict[int, dict[str, float | None]] = {}
    used = _without_start(steps)
    if decays and len(used) < len(steps):
        notes.append(
            "the initialisation is left out of the rates: the first gradients are large, and what "
            "they put into A - B in second order is not decay"
        )
    for step in used:
        own: Imbalances = {}
        if decays:
            try:
                own = read(step, scans.get(step.place.name, ()))
            except FlagscopeError as error:
                notes.append(f"{step.place.name}: its maps were not read: {error}")
        # Without decay there is an answer without a number.
        values[updates_of(step) or 0] = {name: own.get(name) for name in pairs}
    found = rates_of(values, schedule, groups=_groups([first[name] for name in pairs], schedule))
    rates = [
        one.model_copy(update={"predicted": None}) if one.pair in open_ else one
        for one in found.rates
    ]
    if open_:
        notes.append(
            f"what lies between the maps of {len(open_):,} pairs is not known: no rate of them is "
            "predicted"
        )
    others = len(first) - len(pairs)
    if others:
        notes.append(
            f"{others:,} pairs have no such law: more than a linear map lies between their maps, "
            "or a norm is folded into one"
        )
    turned = [] if schedule is None or schedule.optimiser != "adamw" else _rotations(
        steps, series, schedule
    )  # fmt: skip
    return found.model_copy(
        update={"rates": rates, "notes": [*found.notes, *notes], "rotations": turned}
    )


def _without_start(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps that have updates, where they are enough; otherwise all."""
    trained = [step for step in steps if updates_of(step)]
    return trained if len(trained) >= _ENOUGH else steps


def _groups(
    pairs: Sequence[PairRecord], schedule: Schedule | None
) -> dict[str, tuple[str | None, str | None]]:
    """Groups of the two maps of each pair, where names say which they are in."""
    if schedule is None or not schedule.named:
        return {}
    tensors = dict.fromkeys(map_.tensor for pair in pairs for map_ in (pair.write, pair.read))
    known = {tensor: schedule.group_of(tensor) for tensor in tensors}
    names = {tensor: None if group is None else group.name for tensor, group in known.items()}
    return {pair.name: (names[pair.write.tensor], names[pair.read.tensor]) for pair in pairs}


def _rotations(steps: Sequence[Step], series: Compared, schedule: Schedule) -> list[SeriesRotation]:
    usable = [step for step in steps if any(step is one for one in series.steps)]
    numbers = [updates_of(step) or 0 for step in usable]
    if len(usable) < 2 or numbers[-1] > min(len(group.rates) for group in schedule.groups):
        return []
    shapes = usable[0].headers
    decayed = _decayed({one.name: len(shapes[one.name].shape) for one in series.moving}, schedule)
    turns = [
        turn
        for name, group in decayed.items()
        for turn in _turns(name, dict(zip(numbers, usable, strict=True)), group)
    ]
    return [_median(start, stop, turns) for start, stop in pairwise(numbers)] if decayed else []


def _decayed(dimensions: Mapping[str, int], schedule: Schedule) -> dict[str, GroupSchedule]:
    """The matrices that are known to decay, by the names of their groups or by Trainer's rule."""
    if schedule.named:
        groups = {name: schedule.group_of(name) for name, size in dimensions.items() if size > 1}
    else:
        rule = decayed_by_trainer(dimensions.items())
        groups = {name: schedule.only_decayed for name, whole in rule.items() if whole}
    return {name: group for name, group in groups.items() if group is not None and group.decay}


def _turns(name: str, steps: Mapping[int, Step], group: GroupSchedule) -> list[Rotation]:
    samples = {number: step.values[name] for number, step in steps.items()}
    if not all(one.any() for one in samples.values()):
        return []
    return rotations({number: torch.from_numpy(one) for number, one in samples.items()}, group)


def _median(start: int, stop: int, turns: Sequence[Rotation]) -> SeriesRotation:
    own = [turn for turn in turns if (turn.start, turn.stop) == (start, stop)]

    def middle(values: Sequence[float]) -> float | None:
        return float(np.median(values)) if len(values) else None

    return SeriesRotation(
        start=start,
        stop=stop,
        tensors=len(own),
        angle=middle([turn.angle for turn in own]),
        equilibrium_angle=middle([turn.equilibrium_angle for turn in own]),
        angle_ratio=middle([turn.angle_ratio for turn in own]),
        kept=middle([turn.kept for turn in own]),
        decay_leaves=middle([turn.decay_leaves for turn in own]),
        settled=all(turn.settled for turn in own) if own else None,
    )
