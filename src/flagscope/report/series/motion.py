"""The motion of maps: a table, and what is said of it in a few lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import pandas

from flagscope.records.series import SeriesRecord
from flagscope.records.series_motion import LeadingTurn, MapMotion
from flagscope.records.series_products import ProductMotion
from flagscope.report.wording import counted, measured

_LEVEL = 0.05
_SIZES = ("status", "norm", "change", "relative_change", "distance_first", "distance_last")
_TURN = (
    "directions", "mean_square_sine", "largest_angle", "expected", "ratio", "log10_p",
    "block_first", "block_size", "block_ratio", "log10_p_more", "p_adjusted", "status",
)  # fmt: skip
_COLUMNS = (
    "step", "number", "part", "map", "role", "layer", "side", "freedom", "label", *_SIZES,
    *(f"turn_{name}" for name in _TURN), *(f"last_{name}" for name in _TURN), "change_random",
    "run",
)  # fmt: skip
# What the sides of the product of a head's query and key maps are directions of.
_OF_QK = {"write": "write (keys)", "read": "read (queries)"}


class TurnedMap(NamedTuple):
    """One side of a map that turned more than a random update at some steps."""

    name: str
    side: str
    label: str | None
    steps: list[str]
    ratio: float
    step: str  # of that ratio, the largest


class WholeWay(NamedTuple):
    """All maps of a training as one vector: path, displacement and straightness."""

    maps: int
    path_length: float
    displacement: float
    straightness: float | None
    straightness_random: float | None


def motion_frame(record: SeriesRecord) -> pandas.DataFrame:
    """One row for each map or product, side and step that was followed."""
    rows = []
    for motion in (*record.motion, *record.products):
        product = motion if isinstance(motion, ProductMotion) else None
        for side in ("write", "read"):
            side_motion = getattr(motion, side)
            for place, step in enumerate(record.steps_of(motion.run)):
                if motion.status[place] is None:
                    continue
                turns = [
                    getattr(turn, name)[place]
                    for turn in (side_motion.before, side_motion.last)
                    for name in _TURN
                ]
                sizes = [getattr(motion, name)[place] for name in _SIZES]
                rows.append(
                    (step.name, step.number, "map" if product is None else "product", motion.name,
                     motion.role, motion.layer, side, side_motion.freedom, side_motion.label,
                     *sizes, *turns, None if product is None else product.change_random[place],
                     motion.run)
                )  # fmt: skip
    return pandas.DataFrame(rows, columns=list(_COLUMNS))


def tested_turns(motions: Sequence[MapMotion]) -> int:
    """Turns since the step before that a random update of equal size was compared with."""
    turns = [side.before for motion in motions for side in (motion.write, motion.read)]
    return sum(p is not None for turn in turns for p in turn.p_adjusted)


def turned_maps(record: SeriesRecord, *, products: bool = False) -> list[TurnedMap]:
    """Sides whose leading directions turned more than a random update at 5 %, largest ratio first.

    The ratio is that of the block that turned most, or of all leading directions. Of maps, or of
    products of maps.
    """
    found = []
    for motion in record.products if products else record.motion:
        steps = record.steps_of(motion.run)
        for side in ("write", "read"):
            side_motion = getattr(motion, side)
            turn: LeadingTurn = side_motion.before
            places = [i for i, p in enumerate(turn.p_adjusted) if p is not None and p <= _LEVEL]
            if not places:
                continue
            ratios = {i: _ratio(turn, i) for i in places}
            most = max(places, key=lambda i: ratios[i])
            where = _OF_QK[side] if motion.role == "qk" else side
            names = [steps[i].name for i in places]
            found.append(
                TurnedMap(
                    motion.name, where, side_motion.label, names, ratios[most], steps[most].name
                )
            )
    return sorted(found, key=lambda one: -one.ratio)


def whole_way(record: SeriesRecord, run: str | None = None) -> WholeWay | None:
    """The way of all maps of a run together; None where there is none, or a map lacks a step."""
    own = [motion for motion in record.motion if motion.run == run]
    motions = [motion for motion in own if motion.displacement is not None]
    steps = [i for i in range(len(record.steps_of(run))) if any(_moved(m, i) for m in motions)]
    whole = [m for m in motions if all(_moved(m, i) for i in steps)]
    if not whole or not steps:
        return None
    sizes = [math.hypot(*(m.change[i] or 0.0 for m in whole)) for i in steps]
    path = math.fsum(sizes)
    displacement = math.hypot(*(m.displacement or 0.0 for m in whole))
    some = len(steps) > 1 and path > 0
    return WholeWay(
        maps=len(whole),
        path_length=path,
        displacement=displacement,
        straightness=displacement / path if some else None,
        straightness_random=math.hypot(*sizes) / path if some else None,
    )


def way_in_words(way: WholeWay) -> str:
    """Path, displacement and straightness of all maps in a sentence.

    Examples
    --------
    >>> way_in_words(WholeWay(1, 2.0, 1.5, 0.75, 0.7071))
    'way of 1 map: path length 2.00, from first to last 1.50, straightness 0.750 (1 on a line; steps
    of these sizes in independent directions give 0.707)'
    """
    straight = ""
    if way.straightness is not None:
        straight = (
            f", straightness {measured(way.straightness)} (1 on a line; steps of these sizes "
            f"in independent directions give {measured(way.straightness_random)})"
        )
    return (
        f"way of {counted(way.maps, 'map')}: path length {measured(way.path_length)}, from first "
        f"to last {measured(way.displacement)}{straight}"
    )


def product_changes_in_words(record: SeriesRecord) -> list[str]:
    """How far products moved at their last step, against random updates: a sentence for each run.

    Of a series without products none.
    """
    lines = []
    for run in dict.fromkeys(motion.run for motion in record.products):
        motions = [motion for motion in record.products if motion.run == run]
        shares = sorted(
            share for motion in motions for share in [_last_share(motion)] if share is not None
        )
        line = f"{'' if run is None else f'{run}: '}{counted(len(motions), 'product')} of two maps"
        if shares:
            line += (
                f": the last change of the product is a median of {measured(median(shares))} "
                f"({measured(shares[0])} to {measured(shares[-1])}) times what independent "
                "entries, as large as the changes of both maps, give; near 0 the maps moved "
                "in the basis between them alone"
            )
        lines.append(line)
    return lines


def _last_share(motion: ProductMotion) -> float | None:
    """The last change over what random updates of the maps give."""
    for change, random in zip(motion.change[::-1], motion.change_random[::-1], strict=True):
        if change is not None and random:
            return change / random
    return None


def _moved(motion: MapMotion, place: int) -> bool:
    return motion.change[place] is not None


def _ratio(turn: LeadingTurn, place: int) -> float:
    return max(turn.ratio[place] or 0.0, turn.block_ratio[place] or 0.0)
