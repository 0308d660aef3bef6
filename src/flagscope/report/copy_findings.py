"""Findings about heads of one layer that are near-copies of each other, or related."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

from flagscope.observables import LISTED_PAIRS, NEAR_COPY
from flagscope.records import Finding, HeadCluster, HeadPair, HeadRecord, ScanResult
from flagscope.report import meaning
from flagscope.report.effect import STRONG, ratio_effect
from flagscope.report.error_rate import ErrorRate
from flagscope.report.head_names import HeadNames
from flagscope.report.members import members
from flagscope.report.plain import uncertain
from flagscope.report.wording import (
    SPACE_WORDS,
    UNCERTAIN,
    begun,
    counted,
    euclidean,
    joined,
    number,
    p_value,
    span,
    typical,
)


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


_Heads = list[_Close]  # the same heads, in each space in which they are close


def close_heads(result: ScanResult) -> list[Finding]:
    """Heads nearer to each other than chance: near-copies, related ones, and what is not certain.

    Each is one finding, whose members are heads merged over the spaces of one numbering.
    """
    rate = ErrorRate.of(result)
    names = HeadNames(result)
    merged: dict[tuple[object, ...], list[_Close]] = {}
    for index, group in enumerate(result.heads):
        for entry in _close(group, index, rate):
            # Spaces with as many heads have one numbering; only equal claims are joined.
            where = (group.stack, group.attention, group.layer, group.count, entry.heads)
            merged.setdefault((*where, entry.near, entry.certain), []).append(entry)
    kinds: dict[tuple[bool, bool, str, str], list[_Heads]] = {}
    for entries in merged.values():
        first = entries[0]
        kind = (not first.certain, not first.near, first.group.stack, names.noun(first.group))
        kinds.setdefault(kind, []).append(entries)
    found = []
    for _, alike in sorted(kinds.items()):
        alike.sort(key=lambda entries: -_best(entries).ratio)
        found.append(_finding(names, alike))
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


def _best(entries: _Heads) -> _Close:
    return max(entries, key=lambda entry: entry.ratio)


def _finding(names: HeadNames, alike: Sequence[_Heads]) -> Finding:
    """Finding on all heads of one kind, nearest first."""
    best = _best(alike[0])
    ratios = [_best(entries).ratio for entries in alike]
    effect = ratio_effect(median(ratios))
    text = _one(names, alike[0]) if len(alike) == 1 else _several(names, alike)
    plain = _plain(names, alike)
    strong = best.certain and best.near and effect.size >= STRONG
    return Finding(
        code="near-copies" if best.near else "related-heads",
        severity="strong" if strong else "notable" if best.certain else "info",
        topic="heads",
        plain=plain if best.certain else uncertain(plain),
        text=text if best.certain else f"{text} {UNCERTAIN}",
        evidence=(
            effect.text,
            *_spaces(alike),
            f"the nearest: {p_value(best.log10_p)} in {SPACE_WORDS[best.group.space]} space, "
            f"{counted(best.group.count, 'head')} of rank {best.group.rank} "
            f"in {euclidean(best.group.d)}",
        ),
        **members(
            alike, lambda entries: _item(names, entries), lambda entries: _target(_best(entries))
        ),
        **meaning.close_heads(
            near=best.near, spaces=[entry.group.space for entry in alike[0]]
        ).fields(),
        effect=effect.size,
        label="functional",
        target=_target(best),
    )


def _one(names: HeadNames, entries: _Heads) -> str:
    """Sentence on some heads, in all spaces in which they are close."""
    best = _best(entries)
    place = f"{_space_words(entries)} space{'s' if len(entries) > 1 else ''}"
    what = "near-copies" if best.near else "related, not copies,"
    several = len(best.heads) > 2
    verb = f"form a cluster of {what.rstrip(',')}" if several and best.near else f"are {what}"
    over = f" over their {comb(len(best.heads), 2)} pairs" if several else ""
    times = f"{'up to ' if len(entries) > 1 else ''}{number(best.ratio)} times chance"
    return (
        f"{names.some(best.group, best.heads)} {verb} in {place}: mean squared cosine "
        f"{_means(entries)}{over} (a copy has 1, chance gives {number(best.chance)}), "
        f"{times}{_angles(entries)}."
    )


def _several(names: HeadNames, alike: Sequence[_Heads]) -> str:
    """Sentence on all heads of a kind: how many, how close, and the nearest by name."""
    every = [_best(entries) for entries in alike]
    what = "near-copies" if every[0].near else "related, not copies"
    noun = names.noun(every[0].group)
    return (
        f"{begun(_count(alike))} of {noun} ({_layers(names, alike)}) are {what}: mean squared "
        f"cosine {span([entry.mean for entry in every])} where they are nearest (a copy has 1, "
        f"chance gives {span([entry.chance for entry in every])}), "
        f"{typical([entry.ratio for entry in every])} times chance"
        f"{f' among the {LISTED_PAIRS} nearest that a layer lists' if _cut(alike) else ''}"
        f"{_average(alike)}; "
        "the nearest are "
        f"{_heads_of(names, alike[0])} in {_space_words(alike[0])} space"
        f"{'s' if len(alike[0]) > 1 else ''}."
    )


def _plain(names: HeadNames, alike: Sequence[_Heads]) -> str:
    best = _best(alike[0])
    if best.near:
        what, degree = "are near-copies", "overlap by more than half"
    else:
        what, degree = "are related, not copies", "overlap beyond chance"
    if len(alike) > 1:
        noun = names.noun(best.group)
        layers = {entries[0].group.layer for entries in alike}
        where = names.layer(best.group) if len(layers) == 1 else f"{len(layers)} layers"
        who = begun(_count(alike))
        each = f"their directions {degree}" if best.near else "each overlaps beyond chance"
        return f"{who} of {noun} in {where} {what}: {each}."
    who = _heads_of(names, alike[0])
    if len(best.heads) > 3:
        who = f"{len(best.heads)} {names.noun(best.group)} of {names.layer(best.group)}"
    return f"{begun(who)} {what}: their {_space_words(alike[0])} directions {degree}."


def _average(alike: Sequence[_Heads]) -> str:
    """The mean ratio of all pairs of heads there, to compare the close ones with.

    Empty where it is not known, or two heads are all that a layer has.
    """
    groups = {entry.index: entry.group for entries in alike for entry in entries}.values()
    ratios = [group.overlap_ratio for group in groups if group.overlap_ratio is not None]
    if len(ratios) < len(groups) or all(group.count == 2 for group in groups):
        return ""
    return f", where all pairs of a layer have {span(ratios)} on average"


def _item(names: HeadNames, entries: _Heads) -> str:
    """As in "layer 0: heads 1 and 3 (key), mean squared cosine 0.585"."""
    best = _best(entries)
    heads = f"{names.noun(best.group)} {joined(best.heads, limit=12)}"
    heads += names.serving(best.group, best.heads)
    return (
        f"{names.layer(best.group)}: {heads} ({_space_words(entries)}), mean squared cosine "
        f"{_means(entries)}"
    )


def _target(entry: _Close) -> str:
    return f"heads/{entry.index}/{'-'.join(map(str, entry.heads))}"


def _heads_of(names: HeadNames, entries: _Heads) -> str:
    best = _best(entries)
    heads = joined(best.heads, limit=12)
    return f"{names.noun(best.group)} {heads} of {names.layer(best.group)}"


def _space_words(entries: _Heads) -> str:
    return joined(SPACE_WORDS[entry.group.space] for entry in entries)


def _means(entries: _Heads) -> str:
    return joined(number(entry.mean) for entry in entries)


def _count(alike: Sequence[_Heads]) -> str:
    pairs = all(len(entries[0].heads) == 2 for entries in alike)
    count = counted(len(alike), "pair" if pairs else "group")
    return f"at least {count}" if _cut(alike) else count


def _cut(alike: Sequence[_Heads]) -> bool:
    """Whether a layer may have more such heads than it lists."""
    return any(
        len(entry.group.near_copies) >= LISTED_PAIRS for entries in alike for entry in entries
    )


def _layers(names: HeadNames, alike: Sequence[_Heads]) -> str:
    return names.layers([entries[0].group for entries in alike])


def _spaces(alike: Sequence[_Heads]) -> list[str]:
    """In which spaces they are close, where they are several."""
    if len(alike) == 1:
        return []
    counts = Counter(SPACE_WORDS[one.group.space] for entries in alike for one in entries)
    kinds = joined(f"{n} in {word} space" for word, n in counts.items())
    limit = f"; a layer lists its {LISTED_PAIRS} nearest pairs alone" if _cut(alike) else ""
    return [f"{kinds}{limit}"]


def _angles(entries: _Heads) -> str:
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
    verb = "is" if counts.startswith("1 of ") and len(known) == 1 else "are"
    return f"; {counts} principal angles {verb} smaller than chance allows"
