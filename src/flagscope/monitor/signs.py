"""Signs of trouble in one measurement, next to what earlier measurements of the training showed.

Each function looks for one kind, and enters what it has to remember into a dictionary of plain
values. Nothing is compared with other trainings: what a network has from its start is not a sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from flagscope.monitor.measurement import Measurement
from flagscope.monitor.scalars import dead_units
from flagscope.monitor.weights import block_norms, block_of
from flagscope.records.monitor_lines import AlertCode

ALERT_CODES: tuple[AlertCode, ...] = get_args(AlertCode)
"""Codes of alerts; they do not change from release to release."""

Memory = dict[str, Any]

# A map has collapsed whose numerical rank fell to this share of its largest so far, or in which one
# direction is nearly alone: in sound trainings with high learning rates the participation ratio
# falls to 1.2. Maps that never had more than a few directions are not looked at.
_SHARE, _ALONE, _ENOUGH = 0.25, 1.02, 4
# Mean squared cosine from which two heads are called copies here. Near-copies of a scan begin half
# of the way from chance to 1, which heads of sound trainings reach too.
_COPY = 0.95
# A block spikes whose norm changes by more than this factor between two measurements, and by more
# than so many times the largest change before, of which some have to be known.
_FACTOR, _TIMES, _KNOWN = 1.5, 4.0, 2


@dataclass(frozen=True)
class Sign:
    """Whether one place shows a kind of trouble in a measurement that looked at it."""

    code: AlertCode
    place: str
    present: bool
    text: str


def not_finite(measurement: Measurement, _: Memory) -> Iterator[Sign]:
    """Weights that are NaN or infinite."""
    bad = sorted(name for name, norm in measurement.norms.items() if not math.isfinite(norm))
    text = f"{_counted(len(bad), 'tensor')} with NaN or infinity: {_some(bad)}"
    yield Sign("not-finite", "weights", bool(bad), text)


def rank_collapse(measurement: Measurement, memory: Memory) -> Iterator[Sign]:
    """Maps that have lost most of their rank, or all but one of their directions."""
    now: dict[str, tuple[int, float]] = {}
    for pair in measurement.report.result.pairs:
        for end, rank, ratio in (
            (pair.write, pair.rank_write, pair.participation_write),
            (pair.read, pair.rank_read, pair.participation_read),
        ):
            if rank is not None and ratio is not None:
                now[f"{end.tensor}{end.slice.removesuffix('[:]')}"] = rank, ratio
    for place, (rank, ratio) in now.items():
        most = memory[place] = max(rank, memory.get(place, rank))
        if most >= _ENOUGH:
            left = f"{place} has rank {rank:,} and {ratio:.2f} effective directions"
            text = f"{left}; its rank was {most:,}"
            yield Sign("rank-collapse", place, rank <= _SHARE * most or ratio <= _ALONE, text)


def dead(measurement: Measurement, memory: Memory) -> Iterator[Sign]:
    """More neurons or heads without effect than the training has had at its best."""
    result = measurement.report.result
    if result.health is None:
        return
    codes: dict[str, AlertCode] = {"neurons": "dead-neurons", "heads": "dead-heads"}
    for what, code in codes.items():
        count = dead_units(result, what)
        least = memory[what] = min(count, memory.get(what, count))
        text = f"{count:,} {what} have no effect on the output of their block; {least:,} before"
        yield Sign(code, "network", count > least, text)


def copied_heads(measurement: Measurement, memory: Memory) -> Iterator[Sign]:
    """More heads of one layer that span one space than the training has had at its best."""
    for heads in measurement.report.result.heads:
        if heads.status != "ok":
            continue
        place = f"{heads.stack} layer {heads.layer}, {heads.attention or 'self'}, {heads.space}"
        copies = [pair.heads for pair in heads.near_copies if pair.mean_squared_cosine >= _COPY]
        least = memory[place] = min(len(copies), memory.get(place, len(copies)))
        named = _some([f"{a} and {b}" for a, b in copies])
        text = f"{place}: {_counted(len(copies), 'pair')} of heads are copies ({named})"
        yield Sign("copied-heads", place, len(copies) > least, text)


def frozen_block(measurement: Measurement, memory: Memory) -> Iterator[Sign]:
    """Blocks of which no trainable weight has changed while others have."""
    before: dict[str, float] = memory.get("norms", {})
    now = {name: norm for name, norm in measurement.norms.items() if name in measurement.trainable}
    changed: dict[str, bool] = {}
    for name, norm in now.items():
        if name in before:
            block = block_of(name)
            changed[block] = changed.get(block, False) or norm != before[name]
    memory["norms"] = now
    if any(changed.values()):  # else the training stands still: a learning rate of zero
        for block, moves in changed.items():
            text = f"{block or 'the model'}: no weight has changed since the measurement before"
            yield Sign("frozen-block", block, not moves, text)


def spike(measurement: Measurement, memory: Memory) -> Iterator[Sign]:
    """Blocks whose norm jumps, and stays there."""
    for block, norm in block_norms(measurement.norms).items():
        if not math.isfinite(norm) or norm <= 0:
            continue
        level, largest, known = memory.get(block, (norm, 0.0, -1))
        change = abs(math.log(norm / level))
        jumped = known >= _KNOWN and change > max(math.log(_FACTOR), _TIMES * largest)
        if not jumped:  # a jump is held against the level before it until it has gone back
            memory[block] = [norm, max(largest, change), known + 1]
        text = f"{block or 'the model'} has norm {norm:.3g}, {level:.3g} before"
        yield Sign("spike", block, jumped, text)


SEARCHES: dict[str, Callable[[Measurement, Memory], Iterator[Sign]]] = {
    "not-finite": not_finite,
    "rank-collapse": rank_collapse,
    "dead": dead,
    "copied-heads": copied_heads,
    "frozen-block": frozen_block,
    "spike": spike,
}


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
