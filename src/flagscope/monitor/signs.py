"""Signs of trouble in one measurement, next to what earlier measurements of the training showed.

Each function looks for one kind, and enters what it has to remember into a dictionary of plain
values. Nothing is compared with other trainings: what a network has from its start is not a sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from flagscope.monitor.lora import RankDirections
from flagscope.monitor.measurement import Measurement
from flagscope.monitor.scalars import dead_units
from flagscope.monitor.weights import block_norms, block_of
from flagscope.records import Health
from flagscope.records.monitor_lines import AlertCode
from flagscope.report.wording import counted, ranges

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
    text = f"{counted(len(bad), 'tensor')} with NaN or infinity: {_some(bad)}"
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
    no_effect = "have no effect on the output of their block"
    counts: tuple[tuple[str, AlertCode, int, str], ...] = (
        ("neurons", "dead-neurons", dead_units(result, "neurons"), no_effect),
        ("heads", "dead-heads", dead_units(result, "heads"), no_effect),
        (
            "inputs",
            "dead-neurons",
            _without_input(result.health),
            "have incoming weights that are all zero, and it is not known what lies behind them",
        ),
    )
    for what, code, count, words in counts:
        least = memory[what] = min(count, memory.get(what, count))
        units = "heads" if what == "heads" else "neurons"
        place = "network, incoming weights" if what == "inputs" else "network"
        yield Sign(code, place, count > least, f"{count:,} {units} {words}; {least:,} before")


def _without_input(health: Health) -> int:
    """Neurons whose incoming weights are all zero, where it is not known what that does."""
    return sum(units.no_input for units in health.units if units.check == "unclear-neurons")


def copied_heads(measurement: Measurement, memory: Memory) -> Iterator[Sign]:
    """More heads of one layer that span one space than the training has had at its best."""
    for heads in measurement.report.result.heads:
        if heads.status != "ok":
            continue
        place = f"{heads.stack} layer {heads.layer}, {heads.attention or 'self'}, {heads.space}"
        copies = [pair.heads for pair in heads.near_copies if pair.mean_squared_cosine >= _COPY]
        least = memory[place] = min(len(copies), memory.get(place, len(copies)))
        named = _some([f"{a} and {b}" for a, b in copies])
        text = f"{place}: {counted(len(copies), 'pair')} of heads are copies ({named})"
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


def dead_lora_rank(measurement: Measurement, memory: Memory) -> Iterator[Sign]:
    """Rank directions of LoRA factors that do nothing or stand still.

    A direction is idle if column and row are zero, for then the gradient of each is, whatever the
    loss; if one of them is, and others of its factor are not (B = 0 is the usual start); or if
    neither has changed while others of the module have.
    """
    idle: dict[str, list[str]] = {}
    for one in measurement.lora:
        block = idle.setdefault(block_of(one.names[0]), [])
        before = memory.get(one.module)
        memory[one.module] = [one.norms_a, one.norms_b]
        if not any(name in measurement.trainable for name in one.names):
            continue
        both = [a and b for a, b in zip(one.zero_a, one.zero_b, strict=True)]
        zero = [
            (a and not all(one.zero_a)) or (b and not all(one.zero_b))
            for a, b in zip(one.zero_a, one.zero_b, strict=True)
        ]
        still = _still(one, before)
        dead = [i for i, signs in enumerate(zip(both, zero, still, strict=True)) if any(signs)]
        if dead:
            block.append(f"{ranges(dead)} of {len(both):,} in {one.module}")
    for block, places in idle.items():
        text = f"rank directions that do nothing or stand still: {_some(places)}"
        yield Sign("dead-lora-rank", block or "the model", bool(places), text)


def _still(one: RankDirections, before: list[list[float]] | None) -> list[bool]:
    """Directions of which neither part has changed while others of the module have."""
    now = [one.norms_a, one.norms_b]
    if before is None or len(before[0]) != len(now[0]):  # the rank has changed
        return [False] * len(now[0])
    same = [all(x[i] == y[i] for x, y in zip(now, before, strict=True)) for i in range(len(now[0]))]
    return [False] * len(same) if all(same) else same


SEARCHES: dict[str, Callable[[Measurement, Memory], Iterator[Sign]]] = {
    "not-finite": not_finite,
    "rank-collapse": rank_collapse,
    "dead": dead,
    "copied-heads": copied_heads,
    "frozen-block": frozen_block,
    "spike": spike,
    "dead-lora-rank": dead_lora_rank,
}


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
