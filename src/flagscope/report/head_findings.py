"""Findings about all heads of a layer: crowding, keeping apart, shared directions.

They and the findings on close heads (`copy_findings`) look at the same spaces: crowding is the mean
over all pairs of heads, close heads are pairs one by one, shared directions are single directions
that many heads hold. None follows from another, unless there are two heads; so each plain sentence
says which of the three it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from flagscope.records import Finding, HeadRecord, ScanResult
from flagscope.report import meaning
from flagscope.report.effect import RATIO_FLOOR, ratio_effect
from flagscope.report.error_rate import ErrorRate
from flagscope.report.head_names import HeadNames
from flagscope.report.members import members
from flagscope.report.pair_findings import severity_of
from flagscope.report.plain import uncertain
from flagscope.report.tracks import head_tracks
from flagscope.report.wording import (
    SPACE_WORDS,
    UNCERTAIN,
    counted,
    euclidean,
    joined,
    number,
    p_value,
    ranges,
    significance,
    span,
    typical,
)


def small_ratio(ratio: float | None) -> bool:
    """Whether R lies too near to chance to be reported as a finding."""
    return ratio is not None and ratio > 0 and abs(math.log(ratio)) < math.log1p(RATIO_FLOOR)


@dataclass(frozen=True)
class _Space:
    """The layers of one space that are beyond chance, of all that were tested."""

    groups: list[HeadRecord]
    every: int
    above: bool
    certain: bool

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(group.layer for group in self.groups)


def overlaps(result: ScanResult) -> list[Finding]:
    """Spaces in which the heads crowd together, or keep apart, beyond chance."""
    rate = ErrorRate.of(result)
    spaces = []
    for track in head_tracks(result):
        tested = [g for g in track.groups if g.overlap_ratio is not None]
        some = [g for g in tested if rate.counts(g) and not small_ratio(g.overlap_ratio)]
        for above in (True, False):
            side = [g for g in some if ((g.overlap_ratio or 0) > 1) == above]
            if side:
                certain = any(rate.certain(group) for group in side)
                spaces.append(_Space(side, len(tested), above, certain))
    names = HeadNames(result)
    return [_overlap(result, names, alike) for alike in _by_kind(spaces)]


def shared_directions(result: ScanResult) -> list[Finding]:
    """Directions of the stream that more heads share than chance allows."""
    rate = ErrorRate.of(result)
    spaces = []
    for track in head_tracks(result):
        some = [g for g in track.groups if g.shared_directions and rate.counts(g, "shared_")]
        if some:
            certain = any(rate.certain(group, "shared_") for group in some)
            spaces.append(_Space(some, len(track.groups), True, certain))
    names = HeadNames(result)
    return [_shared(result, names, alike) for alike in _by_kind(spaces)]


def _by_kind(spaces: Sequence[_Space]) -> list[list[_Space]]:
    """Spaces of one finding: queries and shared keys count in two numberings, and stay apart."""
    kinds: dict[tuple[object, ...], list[_Space]] = {}
    for space in spaces:
        first = space.groups[0]
        key = (first.stack, first.attention, first.count, space.above, space.certain)
        kinds.setdefault(key, []).append(space)
    return list(kinds.values())


def _overlap(result: ScanResult, names: HeadNames, spaces: Sequence[_Space]) -> Finding:
    first = spaces[0]
    groups = sorted(_groups(spaces), key=_from_one, reverse=True)
    ratios = [g.overlap_ratio for g in groups if g.overlap_ratio is not None]
    effect = ratio_effect(median(ratios))
    surest = min(_groups(spaces), key=lambda group: group.log10_p or 0.0)
    value = typical(ratios)
    deed = "crowd into common" if first.above else "keep to separate"
    text = (
        f"{_stack(result, surest)}{_where(spaces)} the {names.noun(surest)} {deed} "
        f"{_space_words(spaces)}directions of the stream: R, the mean overlap of two heads, "
        f"{'has the' if value.startswith('median') else 'is'} {value}; chance is 1."
    )
    two = all(group.count == 2 for group in groups)  # whose mean is that of their one pair
    plain = (
        f"{_stack(result, surest)}{_plain_where(spaces)}, {'the two ' if two else ''}"
        f"{names.noun(surest)} overlap {'more' if first.above else 'less'} than random ones"
        f"{'' if two else ' on average'}, in {_all_words(spaces)} directions."
    )
    return Finding(
        code="crowded-heads" if first.above else "separate-heads",
        severity=severity_of(
            certain=first.certain, effect=effect, label="functional", some=len(groups),
            every=sum(space.every for space in spaces),
        ),
        topic="heads",
        plain=plain if first.certain else uncertain(plain),
        text=text if first.certain else f"{text} {UNCERTAIN}",
        evidence=(
            effect.text,
            f"surest in layer {surest.layer}, {SPACE_WORDS[surest.space]} space: "
            f"R = {number(surest.overlap_ratio)}, {significance(surest.z, surest.log10_p)}",
            f"chance is 1 ± {number(surest.overlap_ratio_sd, 2)} there",
            f"{counted(surest.count, 'head')} of rank {surest.rank} in {euclidean(surest.d)}",
        ),
        **_members(result, names, groups, lambda group: f"R {number(group.overlap_ratio)}"),
        **(meaning.CROWDING if first.above else meaning.KEEPING_APART).fields(),
        effect=effect.size,
        label="functional",
        target=f"heads/{result.heads.index(surest)}",
    )  # fmt: skip


def _deed(groups: Sequence[HeadRecord]) -> str:
    """What heads do with a direction, by their maps: nothing is known of their activity."""
    written = [group.space == "o" for group in groups]
    return "written" if all(written) else "read or written" if any(written) else "read"


def _shared(result: ScanResult, names: HeadNames, spaces: Sequence[_Space]) -> Finding:
    first = spaces[0]
    groups = sorted(_groups(spaces), key=_standing, reverse=True)
    top = groups[0]
    effect = ratio_effect(max(1.0, median(_standing(group) for group in groups)))
    counts = span([float(group.shared_directions or 0) for group in groups])
    one = counts == "1"
    noun = names.noun(top)
    text = (
        f"{_stack(result, top)}{_where(spaces)} {counts} {_space_words(spaces)}"
        f"direction{'' if one else 's'} a layer {'is' if one else 'are'} shared by more {noun} "
        "than chance allows (chance is 0); the eigenvalue of the most shared one is "
        f"{typical([_standing(group) for group in groups])} times the 1 % level of random heads."
    )
    plain = (
        f"{_stack(result, top)}{_plain_where(spaces)}, single {_all_words(spaces)} directions are "
        f"{_deed(groups)} by more {noun} than chance allows."
    )
    evidence = [effect.text]
    if top.shared:
        direction = top.shared[0]
        holders = (
            f"held by {len(direction.heads)} of {top.count} {noun}"
            if direction.heads
            else f"spread thinly over the {noun}"
        )
        evidence.append(
            f"in layer {top.layer}, {SPACE_WORDS[top.space]} space, {top.shared_directions} are "
            f"shared; the first is {holders} (eigenvalue {number(direction.eigenvalue)}, 1 % level "
            f"{number(top.shared_threshold)}, {p_value(top.shared_log10_p)})"
        )
    return Finding(
        code="shared-directions",
        severity="notable" if first.certain else "info",
        topic="heads",
        plain=plain if first.certain else uncertain(plain),
        text=text if first.certain else f"{text} {UNCERTAIN}",
        evidence=tuple(evidence),
        **_members(
            result, names, groups, lambda group: counted(group.shared_directions or 0, "direction")
        ),
        **meaning.SHARED_DIRECTIONS.fields(),
        effect=effect.size,
        label="functional",
        target=f"heads/{result.heads.index(top)}",
    )


def _groups(spaces: Sequence[_Space]) -> list[HeadRecord]:
    return [group for space in spaces for group in space.groups]


def _from_one(group: HeadRecord) -> float:
    """How far R lies from chance, whichever the side."""
    ratio = group.overlap_ratio or 0.0
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def _members(
    result: ScanResult, names: HeadNames, groups: Sequence[HeadRecord],
    number_of: Callable[[HeadRecord], str],
) -> dict[str, Any]:  # fmt: skip
    return members(
        groups,
        lambda group: f"{names.layer(group)}, {SPACE_WORDS[group.space]} space: {number_of(group)}",
        lambda group: f"heads/{result.heads.index(group)}",
    )


def _alike(spaces: Sequence[_Space]) -> bool:
    """Whether all spaces are about the same layers."""
    return len({(space.layers, space.every) for space in spaces}) == 1


def _where(spaces: Sequence[_Space]) -> str:
    """As in "In all 6 layers", or by the layers of each space where they differ."""
    if _alike(spaces):
        return f"In {_layers(spaces[0])}"
    words: dict[str, list[str]] = {}
    for space in spaces:
        words.setdefault(_layers(space), []).append(_word(space))
    parts = (
        f"{joined(some)} space{'s' if len(some) > 1 else ''} ({layers})"
        for layers, some in words.items()
    )
    return f"In {joined(parts)}"


def _space_words(spaces: Sequence[_Space]) -> str:
    """The spaces, where `_where` did not name them; with the blank behind them."""
    return f"{_all_words(spaces)} " if _alike(spaces) else ""


def _plain_where(spaces: Sequence[_Space]) -> str:
    """As in "In at least 3 of 4 layers": a space may have fewer than another one."""
    counts = {len(space.groups) for space in spaces}
    every = {space.every for space in spaces}
    if len(every) == 1 and counts == every and max(counts) > 1:
        return f"In all {max(every)} layers"
    if counts == {1}:
        return (
            f"In layer {spaces[0].layers[0]}" if _alike(spaces) else "In one layer for each space"
        )
    of = f" of {max(every)}" if len(every) == 1 else ""
    least = f"{'at least ' if len(counts) > 1 else ''}{min(counts)}"
    return f"In {least}{of} layers"


def _all_words(spaces: Sequence[_Space]) -> str:
    return joined(_word(space) for space in spaces)


def _word(space: _Space) -> str:
    return SPACE_WORDS[space.groups[0].space]


def _layers(space: _Space) -> str:
    layers = sorted(set(space.layers))
    if space.every == len(space.groups) and len(layers) > 1:
        return f"all {len(layers)} layers"
    return f"layer{'s' if len(layers) > 1 else ''} {ranges(layers)}"


def _stack(result: ScanResult, group: HeadRecord) -> str:
    return f"{group.stack}: " if len({g.stack for g in result.heads}) > 1 else ""


def _standing(group: HeadRecord) -> float:
    """The largest eigenvalue of the sum of projectors over its 1 % level."""
    if not group.shared or not group.shared_threshold:
        return 1.0
    return group.shared[0].eigenvalue / group.shared_threshold
