"""Findings about heads of one layer that are near-copies of each other, or related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

from flagscope.observables import NEAR_COPY
from flagscope.records import Finding, HeadCluster, HeadPair, HeadRecord, ScanResult
from flagscope.report import meaning
from flagscope.report.effect import STRONG, ratio_effect
from flagscope.report.error_rate import ErrorRate
from flagscope.report.head_names import HeadNames
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

_NAMED = 6  # near-copies that are named one by one; the rest are counted
_RELATED = 2  # the same of heads that are related


@dataclass(frozen=True)
class _Close:
    """Some heads of one group that are nearer to each other than chance."""

    group: HeadRecord
    index: int
    heads: tuple[int, ...]
    mean: float  # squared cosine
    chance: float
    log10_p: float
    certain: bool
    angles: tuple[int, int] | None  # how many are smaller than chance allows, of how many

    @property
    def near(self) -> bool:
        return self.mean >= self.chance + NEAR_COPY * (1 - self.chance)

    @property
    def ratio(self) -> float:
        return self.mean / self.chance


def close_heads(result: ScanResult) -> list[Finding]:
    """Heads that are nearer to each other than chance, merged over spaces of one numbering."""
    rate = ErrorRate.of(result)
    merged: dict[tuple[object, ...], list[_Close]] = {}
    for index, group in enumerate(result.heads):
        for entry in _close(group, index, rate):
            # Spaces with as many heads have one numbering; only equal claims are joined.
            where = (group.stack, group.attention, group.layer, group.count, entry.heads)
            merged.setdefault((*where, entry.near, entry.certain), []).append(entry)
    names = HeadNames(result)
    found = []
    for certain in (True, False):
        some = [entries for entries in merged.values() if entries[0].certain == certain]
        some.sort(key=lambda entries: -max(entry.ratio for entry in entries))
        for near, most in ((True, _NAMED), (False, _RELATED)):
            alike = [entries for entries in some if entries[0].near == near]
            named = alike[:most] if certain else []
            found += [_finding(names, entries) for entries in named]
            rest = [entry for entries in alike[len(named) :] for entry in entries]
            if rest:
                found.append(_rest(names, rest))
    return found


def _close(group: HeadRecord, index: int, rate: ErrorRate) -> list[_Close]:
    """The clusters that count, then the pairs that count and lie in none of them."""
    entries = []
    for cluster in group.cluster_tests:
        if rate.counts(cluster) and group.rank:
            entries.append(_of_cluster(group, index, cluster, rate))
    for pair in group.near_copies:
        inside = any(set(pair.heads) <= set(entry.heads) for entry in entries)
        if rate.counts(pair) and pair.overlap_ratio > 0 and not inside:
            entries.append(_of_pair(group, index, pair, rate))
    return entries


def _of_cluster(group: HeadRecord, index: int, cluster: HeadCluster, rate: ErrorRate) -> _Close:
    heads = tuple(sorted(cluster.heads))
    pair = next((p for p in group.near_copies if tuple(sorted(p.heads)) == heads), None)
    certain = rate.certain(cluster) or (pair is not None and rate.certain(pair))
    angles = None if pair is None else (pair.shared, pair.rank)
    chance = (group.rank or 0) / group.d
    mean, p = cluster.mean_squared_cosine, cluster.log10_p
    return _Close(group, index, heads, mean, chance, p, certain, angles)


def _of_pair(group: HeadRecord, index: int, pair: HeadPair, rate: ErrorRate) -> _Close:
    heads = tuple(sorted(pair.heads))
    mean = pair.mean_squared_cosine
    chance = mean / pair.overlap_ratio
    angles = (pair.shared, pair.rank)
    return _Close(group, index, heads, mean, chance, pair.log10_p, rate.certain(pair), angles)


def _finding(names: HeadNames, entries: Sequence[_Close]) -> Finding:
    best = max(entries, key=lambda entry: entry.ratio)
    effect = ratio_effect(best.ratio)
    spaces = joined(SPACE_WORDS[entry.group.space] for entry in entries)
    means = joined(number(entry.mean) for entry in entries)
    several = len(best.heads) > 2
    who = names.some(best.group, best.heads)
    place = f"{spaces} space{'s' if len(entries) > 1 else ''}"
    what = "near-copies" if best.near else "related, not copies,"
    verb = f"form a cluster of {what.rstrip(',')}" if several and best.near else f"are {what}"
    over = f" over their {comb(len(best.heads), 2)} pairs" if several else ""
    times = f"{'up to ' if len(entries) > 1 else ''}{number(best.ratio)} times chance"
    return Finding(
        code="near-copies" if best.near else "related-heads",
        severity="strong" if best.near and effect.size >= STRONG else "notable",
        topic="heads",
        text=(
            f"{who} {verb} in {place}: mean squared cosine {means}{over} (a copy has 1, chance "
            f"gives {number(best.chance)}), {times}{_angles(entries)}."
        ),
        evidence=(
            effect.text,
            f"{p_value(best.log10_p)} in {SPACE_WORDS[best.group.space]} space",
            f"{counted(best.group.count, 'head')} of rank {best.group.rank} "
            f"in {euclidean(best.group.d)}",
        ),
        **(meaning.NEAR_COPIES if best.near else meaning.RELATED_HEADS).fields(),
        effect=effect.size,
        label="functional",
        target=f"heads/{best.index}",
    )


def _angles(entries: Sequence[_Close]) -> str:
    """Number of principal angles beyond chance: many small excesses are not a copy."""
    known = [entry.angles for entry in entries if entry.angles is not None]
    if not known or len(known) < len(entries):
        return ""
    every = known[0][1]
    if any(angles[1] != every for angles in known):
        counts = joined(f"{some} of {of}" for some, of in known)
    elif all(some == every for some, _ in known):
        counts = f"all {every}"
    else:
        counts = f"{joined(some for some, _ in known)} of {every}"
    return f"; {counts} principal angles are smaller than chance allows"


def _rest(names: HeadNames, rest: Sequence[_Close]) -> Finding:
    """Finding on all near-copies that are not named one by one."""
    certain = rest[0].certain
    means = [entry.mean for entry in rest]
    ratios = [entry.ratio for entry in rest]
    effect = ratio_effect(median(ratios))
    depths = sorted({entry.group.layer for entry in rest})
    layers = f"layer{'s' if len(depths) > 1 else ''} {ranges(depths)}"
    kinds = joined(f"{n} {word}" for n, word in _by_space(names, rest))
    more = "more " if certain else ""
    what = "near-copies" if rest[0].near else "related, not copies"
    text = (
        f"{counted(len(rest), f'{more}pair', f'{more}pairs')} of heads in one space of their layer "
        f"({layers}) {'is' if len(rest) == 1 else 'are'} {what}: mean squared cosine {span(means)} "
        f"(a copy has 1, chance gives {span([entry.chance for entry in rest])}), {typical(ratios)} "
        "times chance."
    )
    best = max(rest, key=lambda entry: entry.ratio)
    return Finding(
        code="near-copies" if rest[0].near else "related-heads",
        severity="notable" if certain else "info",
        topic="heads",
        text=text if certain else f"{text} {UNCERTAIN}",
        evidence=(effect.text, f"{kinds}; at least, since a layer lists its nearest pairs alone"),
        **(meaning.NEAR_COPIES if rest[0].near else meaning.RELATED_HEADS).fields(),
        effect=effect.size,
        label="functional",
        target=f"heads/{best.index}",
    )


def _by_space(names: HeadNames, rest: Sequence[_Close]) -> list[tuple[int, str]]:
    counts: dict[str, int] = {}
    for entry in rest:
        noun = names.noun(entry.group)
        word = f"in {SPACE_WORDS[entry.group.space]} space" + (
            "" if noun == "heads" else f" ({noun})"
        )
        counts[word] = counts.get(word, 0) + 1
    return [(n, word) for word, n in counts.items()]
