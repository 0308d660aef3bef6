"""Findings about attention heads: near-copies, crowding, shared directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.diagnose.records import HeadPair, HeadRecord, ScanResult
from flagscope.report.finding import Finding
from flagscope.report.tracks import HeadTrack, head_tracks
from flagscope.report.wording import (
    SPACE_WORDS,
    counted,
    euclidean,
    joined,
    number,
    p_value,
    ranges,
    span,
)

_NAMED = 6  # near-copies told one by one; the rest are counted


@dataclass(frozen=True)
class _Copies:
    """Heads of one layer that share directions in one or more spaces."""

    heads: tuple[int, ...]
    group: HeadRecord
    index: int
    shared: dict[str, tuple[int, int]]  # space -> (least number shared by two of them, rank)
    strongest: HeadPair

    @property
    def share(self) -> float:
        return max(least / rank for least, rank in self.shared.values())


def near_copies(result: ScanResult) -> list[Finding]:
    """Heads that share more directions than chance, merged over spaces and clusters."""
    merged: dict[tuple[object, ...], _Copies] = {}
    for index, group in enumerate(result.heads):
        for heads, pairs in _families(group):
            least = min(pairs, key=lambda pair: pair.shared)
            key = (group.stack, group.attention, group.layer, heads)
            entry = merged.get(key) or _Copies(heads, group, index, {}, pairs[0])
            entry.shared[group.space] = (least.shared, least.rank)
            merged[key] = entry
    copies = sorted(merged.values(), key=lambda entry: -entry.share)
    found = [_copy_finding(result, entry) for entry in copies[:_NAMED]]
    rest = copies[_NAMED:]
    if rest:
        shared = span([float(least) for entry in rest for least, _ in entry.shared.values()])
        depths = {entry.group.layer for entry in rest}
        layers = f"layer{'s' if len(depths) > 1 else ''} {ranges(sorted(depths))}"
        text = (
            f"In at least {counted(len(rest), 'more case')} heads of a layer share directions "
            f"beyond chance: {shared} of them, in {layers}; chance is 0."
        )
        share = max(entry.share for entry in rest)
        found.append(
            Finding(
                severity="notable",
                topic="heads",
                text=text,
                evidence=(f"at most {share:.0%} of a head's directions",),
                label="functional",
                target=f"heads/{rest[0].index}",
            )
        )
    return found


def _families(group: HeadRecord) -> list[tuple[tuple[int, ...], list[HeadPair]]]:
    """Clusters with the near-copy pairs inside them, then the pairs in no cluster."""
    pairs = [pair for pair in group.near_copies if pair.shared > 0]
    families = []
    for cluster in group.clusters or []:
        inside = [pair for pair in pairs if set(pair.heads) <= set(cluster)]
        if len(cluster) > 1 and inside:
            families.append((tuple(sorted(cluster)), inside))
            pairs = [pair for pair in pairs if pair not in inside]
    return families + [(tuple(sorted(pair.heads)), [pair]) for pair in pairs]


def _copy_finding(result: ScanResult, entry: _Copies) -> Finding:
    shares = joined(
        f"{least} of {rank} {SPACE_WORDS[space]}" for space, (least, rank) in entry.shared.items()
    )
    several = len(entry.heads) > 2
    heads, layer = joined(entry.heads, limit=12), _layer(result, entry.group)
    verb = "form a cluster whose close pairs share at least" if several else "share"
    best = entry.strongest
    return Finding(
        severity="strong" if entry.share >= 0.5 else "notable",
        topic="heads",
        text=f"Heads {heads} of {layer} {verb} {shares} directions; chance is 0.",
        evidence=(
            f"overlap {number(best.overlap_ratio)} times chance ({p_value(best.log10_p)})",
            f"mean squared cosine {number(best.mean_squared_cosine)} over all {best.rank} "
            f"(1 for a copy; chance {number(best.rank / entry.group.d)})",
            f"{counted(entry.group.count, 'head')} of rank {best.rank} "
            f"in {euclidean(entry.group.d)}",
        ),
        label="functional",
        target=f"heads/{entry.index}",
    )


def _layer(result: ScanResult, group: HeadRecord) -> str:
    several = len({other.stack for other in result.heads}) > 1
    return f"{group.stack} layer {group.layer}" if several else f"layer {group.layer}"


def overlaps(result: ScanResult) -> list[Finding]:
    """Spaces in which the heads crowd together, or keep apart, beyond chance."""
    level = float(result.settings.get("fdr", 0.05))
    alike: dict[tuple[object, ...], list[tuple[str, list[HeadRecord]]]] = {}
    for track in head_tracks(result):
        tested = [g for g in track.groups if g.overlap_ratio is not None and g.z is not None]
        significant = [g for g in tested if g.p_adjusted is not None and g.p_adjusted <= level]
        for above in (True, False):
            some = [g for g in significant if ((g.overlap_ratio or 0) > 1) == above]
            if some:
                layers = tuple(group.layer for group in some)
                key = (some[0].stack, some[0].attention, above, layers, len(tested))
                alike.setdefault(key, []).append((track.space, some))
    return [
        _overlap_finding(result, spaces, above=bool(key[2]), every=key[4] == len(spaces[0][1]))
        for key, spaces in alike.items()
    ]


def _overlap_finding(
    result: ScanResult,
    spaces: Sequence[tuple[str, list[HeadRecord]]],
    *,
    above: bool,
    every: bool,
) -> Finding:
    groups = [group for _, some in spaces for group in some]
    extreme = max(groups, key=lambda group: abs(group.z or 0))
    layers = sorted({group.layer for group in groups})
    if every and len(layers) > 1:
        where = f"all {len(layers)} layers"
    else:
        where = f"layer{'s' if len(layers) > 1 else ''} {ranges(layers)}"
    stack = f"{extreme.stack}: " if len({g.stack for g in result.heads}) > 1 else ""
    deed = "crowd into common" if above else "keep to separate"
    words = joined(SPACE_WORDS[space] for space, _ in spaces)
    ratios = span([g.overlap_ratio for g in groups if g.overlap_ratio is not None])
    text = f"{stack}In {where} the heads {deed} {words} directions: R is {ratios}; chance is 1."
    return Finding(
        severity="strong" if abs(extreme.z or 0) > 10 else "notable",
        topic="heads",
        text=text,
        evidence=(
            f"strongest in layer {extreme.layer}, {SPACE_WORDS[extreme.space]} space: "
            f"R = {number(extreme.overlap_ratio)}, "
            f"z = {number(extreme.z)} ({p_value(extreme.log10_p)})",
            f"chance is 1 ± {number(extreme.overlap_ratio_sd, 2)} there",
            f"{counted(extreme.count, 'head')} of rank {extreme.rank} in {euclidean(extreme.d)}",
        ),
        label="functional",
        target=f"heads/{result.heads.index(extreme)}",
    )


def shared_directions(result: ScanResult) -> list[Finding]:
    """Directions of the stream that more heads share than chance allows."""
    alike: dict[tuple[object, ...], list[HeadTrack]] = {}
    for track in head_tracks(result):
        layers = tuple(group.layer for group in track.groups if group.shared_directions)
        if layers:
            key = (track.groups[0].stack, track.groups[0].attention, layers, len(track.groups))
            alike.setdefault(key, []).append(track)
    return [_shared_finding(result, some) for some in alike.values()]


def _shared_finding(result: ScanResult, alike: Sequence[HeadTrack]) -> Finding:
    groups = [group for track in alike for group in track.groups if group.shared_directions]
    top = max(groups, key=lambda group: group.shared_directions or 0)
    counts = span([float(group.shared_directions or 0) for group in groups])
    layers = sorted({group.layer for group in groups})
    words = joined(SPACE_WORDS[track.space] for track in alike)
    one = counts == "1"
    text = (
        f"{counts} {words} direction{'' if one else 's'} a layer "
        f"{'is' if one else 'are'} shared by more heads than chance allows "
        f"(layer{'s' if len(layers) > 1 else ''} {ranges(layers)}); chance is 0."
    )
    evidence = [
        f"most in layer {top.layer}, {SPACE_WORDS[top.space]} space: {top.shared_directions}"
    ]
    if top.shared:
        first = top.shared[0]
        holders = (
            f"held by {len(first.heads)} of {top.count} heads"
            if first.heads
            else "spread thinly over the heads"
        )
        evidence.append(
            f"its strongest is {holders} (eigenvalue {number(first.eigenvalue)}, "
            f"1 % level {number(top.shared_threshold)})"
        )
    return Finding(
        severity="notable",
        topic="heads",
        text=text,
        evidence=tuple(evidence),
        label="functional",
        target=f"heads/{result.heads.index(top)}",
    )
