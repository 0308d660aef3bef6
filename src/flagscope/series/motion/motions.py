"""The motion of every map of a series, from the states of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from torch import Tensor

from flagscope.comparison.change.products import TOO_WIDE, WIDEST
from flagscope.null import false_discovery_adjustment
from flagscope.records.series_motion import LeadingTurn, MapMotion, SideMotion
from flagscope.records.series_products import ProductMotion
from flagscope.series.motion.product_state import ProductState
from flagscope.series.motion.product_states import ProductPlace
from flagscope.series.motion.product_turns import random_change
from flagscope.series.motion.state import MapState
from flagscope.series.motion.step_states import MapPlace, States
from flagscope.series.motion.turns import Turn, apart, label, turn, walk_straightness

_NOT_FINITE = "not finite, or beyond double precision"
_FIRST = "the first step"
_TURNS = [entry.name for entry in fields(Turn)]
_Motion = TypeVar("_Motion", bound=MapMotion)


@dataclass
class _Row:
    """One map at one step."""

    norm: float | None = None
    change: float | None = None
    relative_change: float | None = None
    distance_first: float | None = None
    distance_last: float | None = None
    change_random: float | None = None  # of products
    status: str | None = None
    turns: dict[tuple[str, str], Turn] = field(default_factory=dict)


@dataclass
class _Way:
    """One map on its way: what is held of it, and its rows by step."""

    first: Tensor  # its sketch
    before: MapState
    rows: dict[int, _Row]


@dataclass(frozen=True)
class Motions:
    """The ways of the maps of a series, and those of their products."""

    maps: list[MapMotion] = field(default_factory=list)
    products: list[ProductMotion] = field(default_factory=list)


def map_motions(steps: int, states: Mapping[int, Callable[[], States | None]]) -> Motions:
    """Follow the maps of a series, and the products of maps.

    Parameters
    ----------
    steps
        Checkpoints of the series.
    states
        By the place of a step in the series, in its order, what gives the states of its maps: each
        is called once, that of the last step first. None where a step cannot be measured.

    Returns
    -------
    Motions
        In the order of the first step that has a map. States of three steps are held at most.
    """
    order = list(states)
    last: States = {}
    while order:
        measured = states[order[-1]]()
        if measured is not None:
            last = measured
            break
        order.pop()
    ways: dict[MapPlace, _Way] = {}
    unread: dict[MapPlace, dict[int, _Row]] = {}
    for step in order:
        found = last if step == order[-1] else states[step]()
        for place, state in ({} if found is None else found).items():
            if state is None:
                rows = ways[place].rows if place in ways else unread.setdefault(place, {})
                rows[step] = _Row(status=_why(place))
            elif place not in ways:
                row = _row(place, state, None, None if step == order[-1] else last.get(place))
                ways[place] = _Way(state.sketch, state, {**unread.pop(place, {}), step: row})
            else:
                way = ways[place]
                row = _row(place, state, way, None if step == order[-1] else last.get(place))
                way.before, way.rows[step] = state, row
    motions = [
        _motion(place, way.rows, steps, _displacement(way, last.get(place)))
        for place, way in ways.items()
    ]
    motions += [_motion(place, rows, steps, None) for place, rows in unread.items()]
    maps = [motion for motion in motions if not isinstance(motion, ProductMotion)]
    products = [motion for motion in motions if isinstance(motion, ProductMotion)]
    return Motions(_adjusted(maps), _adjusted(products))


def _why(place: MapPlace) -> str:
    """Why a map or product has no state."""
    wide = isinstance(place, ProductPlace) and place.shared > WIDEST
    return TOO_WIDE if wide else _NOT_FINITE


def _row(place: MapPlace, state: MapState, way: _Way | None, last: MapState | None) -> _Row:
    row = _Row(norm=math.sqrt(state.square), status=_FIRST)
    against: list[tuple[str, MapState]] = []
    if way is not None:
        between = apart(way.before, state)
        row.change, row.status = between.change, between.status
        if way.before.square:
            row.relative_change = between.change / math.sqrt(way.before.square)
        if isinstance(state, ProductState) and isinstance(way.before, ProductState):
            row.change_random = random_change(way.before, state)
        row.distance_first = _norm(state.sketch - way.first)
        against.append(("before", way.before))
    else:
        row.distance_first = 0.0
    if last is not None:
        row.distance_last = _norm(last.sketch - state.sketch)
        against.append(("last", last))
    for name, other in against:
        row.turns["write", name] = turn(other, state, place.write_freedom, write=True)
        row.turns["read", name] = turn(other, state, place.read_freedom, write=False)
    return row


def _norm(sketch: Tensor) -> float:
    return math.sqrt(float(sketch.square().sum()))


def _displacement(way: _Way, last: MapState | None) -> float | None:
    return None if last is None else _norm(last.sketch - way.first)


def _motion(
    place: MapPlace, rows: Mapping[int, _Row], steps: int, displacement: float | None
) -> MapMotion:
    every = [rows.get(step, _Row()) for step in range(steps)]
    changes = [row.change for row in every if row.change is not None]
    path = math.fsum(changes) if changes else None
    straight = None
    if len(changes) > 1 and path and displacement is not None:
        straight = displacement / path

    def side(name: str) -> SideMotion:
        return SideMotion(
            freedom=place.write_freedom if name == "write" else place.read_freedom,
            label=label(place, write=name == "write"),
            before=_turns([row.turns.get((name, "before")) for row in every]),
            last=_turns([row.turns.get((name, "last")) for row in every]),
        )

    motion = MapMotion(
        name=place.name, role=place.role, stack=place.stack, layer=place.layer,
        expert=place.expert, tensor=place.tensor, shape=place.shape,
        norm=[row.norm for row in every],
        change=[row.change for row in every],
        relative_change=[row.relative_change for row in every],
        distance_first=[row.distance_first for row in every],
        distance_last=[row.distance_last for row in every],
        status=[row.status for row in every],
        path_length=path,
        displacement=displacement if changes else None,
        straightness=straight,
        straightness_random=None if straight is None else walk_straightness(changes),
        write=side("write"),
        read=side("read"),
    )  # fmt: skip
    if not isinstance(place, ProductPlace):
        return motion
    return ProductMotion(
        **dict(motion), attention=place.attention, head=place.head, between=place.between,
        shared=place.shared, at_one_position=place.between == "rotary",
        change_random=[row.change_random for row in every],
    )  # fmt: skip


def _turns(rows: Sequence[Turn | None]) -> LeadingTurn:
    columns: dict[str, list[Any]] = {name: [] for name in _TURNS}
    for row in rows:
        for name, value in asdict(row or Turn()).items():
            columns[name].append(value)
    return LeadingTurn(**columns, p_adjusted=[None] * len(rows))


def _adjusted(motions: list[_Motion]) -> list[_Motion]:
    """The motions with p-values adjusted over all of them, both sides and all steps."""
    for against in ("before", "last"):
        turns = [getattr(getattr(motion, side), against) for motion, side in _sides(motions)]
        adjusted = iter(
            false_discovery_adjustment([p for one in turns for p in one.log10_p_more]).p
        )
        new = [
            one.model_copy(update={"p_adjusted": [next(adjusted) for _ in one.log10_p_more]})
            for one in turns
        ]
        motions = [
            motion.model_copy(
                update={
                    side: getattr(motion, side).model_copy(update={against: new[2 * i + j]})
                    for j, side in enumerate(("write", "read"))
                }
            )
            for i, motion in enumerate(motions)
        ]
    return motions


def _sides(motions: Sequence[_Motion]) -> list[tuple[_Motion, str]]:
    return [(motion, side) for motion in motions for side in ("write", "read")]
