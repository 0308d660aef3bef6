"""Findings about all heads of a layer: crowding, keeping apart, shared directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from flagscope.records import Finding, HeadRecord, ScanResult
from flagscope.report import meaning
from flagscope.report.effect import RATIO_FLOOR, ratio_effect
from flagscope.report.error_rate import ErrorRate
from flagscope.report.head_names import HeadNames
from flagscope.report.pair_findings import severity_of
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
    span,
    typical,
)


def small_ratio(ratio: float | None) -> bool:
    """Whether R lies too near to chance to be reported as a finding."""
    return ratio is not None and ratio > 0 and abs(math.log(ratio)) < math.log1p(RATIO_FLOOR)


def overlaps(result: ScanResult) -> list[Finding]:
    """Spaces in which the heads crowd together, or keep apart, beyond chance."""
    rate = ErrorRate.of(result)
    alike: dict[tuple[object, ...], list[list[HeadRecord]]] = {}
    for track in head_tracks(result):
        tested = [g for g in track.groups if g.overlap_ratio is not None]
        some = [g for g in tested if rate.counts(g) and not small_ratio(g.overlap_ratio)]
        for above in (True, False):
            side = [g for g in some if ((g.overlap_ratio or 0) > 1) == above]
            if side:
                layers = tuple(group.layer for group in side)
                certain = any(rate.certain(group) for group in side)
                # Queries and shared keys count in two numberings, and are never joined.
                key = (*_kind(side[0]), above, certain, layers, len(tested))
                alike.setdefault(key, []).append(side)
    names = HeadNames(result)
    return [
        _overlap(result, names, spaces, above=bool(key[3]), certain=bool(key[4]), every=key[6])
        for key, spaces in alike.items()
    ]


def _kind(group: HeadRecord) -> tuple[str, str | None, int]:
    return group.stack, group.attention, group.count


def _overlap(
    result: ScanResult, names: HeadNames, spaces: Sequence[Sequence[HeadRecord]], *, above: bool,
    certain: bool, every: object,
) -> Finding:  # fmt: skip
    groups = [group for some in spaces for group in some]
    ratios = [g.overlap_ratio for g in groups if g.overlap_ratio is not None]
    effect = ratio_effect(median(ratios))
    surest = min(groups, key=lambda group: group.log10_p or 0.0)
    words = joined(SPACE_WORDS[some[0].space] for some in spaces)
    if above:
        deed = f"crowd into common {words} directions of the stream"
    else:
        deed = f"keep to separate {words} directions of the stream"
    where = _layers(sorted({group.layer for group in groups}), every == len(spaces[0]))
    text = (
        f"{_stack(result, surest)}In {where} the {names.noun(surest)} {deed}: "
        f"R, the mean overlap of two heads, {'is' if len(ratios) == 1 else 'has the'} "
        f"{typical(ratios)}; chance is 1."
    )
    return Finding(
        code="crowded-heads" if above else "separate-heads",
        severity=severity_of(
            certain=certain, effect=effect, label="functional", some=len(spaces[0]),
            every=every if isinstance(every, int) else 1,
        ),
        topic="heads",
        text=text if certain else f"{text} {UNCERTAIN}",
        evidence=(
            effect.text,
            f"surest in layer {surest.layer}, {SPACE_WORDS[surest.space]} space: "
            f"R = {number(surest.overlap_ratio)}, "
            f"z = {number(surest.z)} ({p_value(surest.log10_p)})",
            f"chance is 1 ± {number(surest.overlap_ratio_sd, 2)} there",
            f"{counted(surest.count, 'head')} of rank {surest.rank} in {euclidean(surest.d)}",
        ),
        **(meaning.CROWDING if above else meaning.KEEPING_APART).fields(),
        effect=effect.size,
        label="functional",
        target=f"heads/{result.heads.index(surest)}",
    )  # fmt: skip


def _layers(layers: Sequence[int], every: bool) -> str:
    if every and len(layers) > 1:
        return f"all {len(layers)} layers"
    return f"layer{'s' if len(layers) > 1 else ''} {ranges(layers)}"


def _stack(result: ScanResult, group: HeadRecord) -> str:
    return f"{group.stack}: " if len({g.stack for g in result.heads}) > 1 else ""


def shared_directions(result: ScanResult) -> list[Finding]:
    """Directions of the stream that more heads share than chance allows."""
    rate = ErrorRate.of(result)
    alike: dict[tuple[object, ...], list[list[HeadRecord]]] = {}
    for track in head_tracks(result):
        some = [g for g in track.groups if g.shared_directions and rate.counts(g, "shared_")]
        if some:
            certain = any(rate.certain(group, "shared_") for group in some)
            layers = tuple(group.layer for group in some)
            key = (*_kind(some[0]), certain, layers, len(track.groups))
            alike.setdefault(key, []).append(some)
    names = HeadNames(result)
    return [
        _shared(result, names, spaces, certain=bool(key[3]), every=key[5] == len(spaces[0]))
        for key, spaces in alike.items()
    ]


def _shared(
    result: ScanResult, names: HeadNames, spaces: Sequence[Sequence[HeadRecord]], *, certain: bool,
    every: bool,
) -> Finding:  # fmt: skip
    groups = [group for some in spaces for group in some]
    top = max(groups, key=_standing)
    effect = ratio_effect(max(1.0, median(_standing(group) for group in groups)))
    counts = span([float(group.shared_directions or 0) for group in groups])
    words = joined(SPACE_WORDS[some[0].space] for some in spaces)
    one = counts == "1"
    noun = names.noun(top)
    text = (
        f"{_stack(result, top)}In {_layers(sorted({g.layer for g in groups}), every)} {counts} "
        f"{words} direction{'' if one else 's'} a layer {'is' if one else 'are'} shared by more "
        f"{noun} than chance allows (chance is 0); the eigenvalue of the most shared one is "
        f"{typical([_standing(group) for group in groups])} times the 1 % level of random heads."
    )
    evidence = [effect.text]
    if top.shared:
        first = top.shared[0]
        holders = (
            f"held by {len(first.heads)} of {top.count} {noun}"
            if first.heads
            else f"spread thinly over the {noun}"
        )
        evidence.append(
            f"in layer {top.layer}, {SPACE_WORDS[top.space]} space, {top.shared_directions} are "
            f"shared; the first is {holders} (eigenvalue {number(first.eigenvalue)}, 1 % level "
            f"{number(top.shared_threshold)}, {p_value(top.shared_log10_p)})"
        )
    return Finding(
        code="shared-directions",
        severity="notable" if certain else "info",
        topic="heads",
        text=text if certain else f"{text} {UNCERTAIN}",
        evidence=tuple(evidence),
        **meaning.SHARED_DIRECTIONS.fields(),
        effect=effect.size,
        label="functional",
        target=f"heads/{result.heads.index(top)}",
    )


def _standing(group: HeadRecord) -> float:
    """The largest eigenvalue of the sum of projectors over its 1 % level."""
    if not group.shared or not group.shared_threshold:
        return 1.0
    return group.shared[0].eigenvalue / group.shared_threshold
