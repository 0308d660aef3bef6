"""Findings about adjacent pairs that rest on tests: aligned Grams, overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from flagscope.observables import null_band
from flagscope.records import Finding, Label, PairRecord, ScanResult, Severity
from flagscope.report import meaning, plain
from flagscope.report.dominant import OverlapEffect, overlap_effect, stands_out
from flagscope.report.effect import (
    CORRELATION_FLOOR,
    RATIO_FLOOR,
    STRONG,
    Effect,
    correlation_effect,
    ratio_effect,
    sizable,
)
from flagscope.report.error_rate import ErrorRate, TestPrefix
from flagscope.report.freedom import labels_of
from flagscope.report.members import pair_members
from flagscope.report.routes import route
from flagscope.report.tracks import Track, wider_tracks
from flagscope.report.wording import (
    MAP_WORDS,
    UNCERTAIN,
    euclidean,
    joined,
    number,
    p_value,
    share_of,
    typical,
)

_MOST = 0.5  # a statement about a track needs at least this share of its pairs to be strong


class _Clause(NamedTuple):
    """A number of some pairs of a track on one side of chance."""

    observable: str
    above: bool
    pairs: list[PairRecord]
    effect: Effect
    certain: bool  # holds for the whole report

    def text(self, track: Track) -> str:
        """The clause, about as many pairs of the track as it holds for."""
        symbol, chance, deeds = _ALIGNMENT_WORDS[self.observable]
        first, second = MAP_WORDS[track.pairs[0].kind]
        values = [getattr(pair, self.observable) for pair in self.pairs]
        where = share_of(len(self.pairs), len(track.pairs), "pair")
        deed = deeds[self.above].format(first, second)
        return f"{deed} in {where} ({symbol} {typical(values)}; chance is {chance})"

    def furthest_first(self) -> list[PairRecord]:
        """The pairs, those furthest from chance first."""
        return sorted(
            self.pairs, key=lambda pair: getattr(pair, self.observable), reverse=self.above
        )

    def number(self, pair: PairRecord) -> str:
        """The number of one of its pairs, as in ``"C 0.0874"``."""
        return f"{_ALIGNMENT_WORDS[self.observable][0]} {number(getattr(pair, self.observable))}"


_ALIGNMENT_WORDS = {
    "commutator_ratio": (
        "C",
        1,
        (
            "{0} and {1} share axes better than by chance",
            "strong directions of {0} and {1} are further from equal or perpendicular than by "
            "chance",
        ),
    ),
    "gram_correlation": (
        "ρ",
        0,
        ("{1} weighs weakly what {0} weighs strongly", "{1} weighs strongly what {0} does"),
    ),
}


def label_of(result: ScanResult, pair: PairRecord, observable: str) -> Label | None:
    """Whether an observable of a pair is functional or a matter of gauge.

    None where it is not known what acts between the maps, and so what may be changed.
    """
    return labels_of(result, pair).get(observable)


def severity_of(
    *, certain: bool, effect: Effect, label: Label | None, some: int, every: int
) -> Severity:
    """Strong: functional, of at least half of the pairs, and at least twice chance."""
    if not certain:
        return "info"
    strong = label == "functional" and some >= _MOST * every and effect.size >= STRONG
    return "strong" if strong else "notable"


def by_route(some: Sequence[PairRecord], track: Track) -> list[str]:
    """Counts by route, where the track has several."""
    counts: dict[str, list[int]] = {}
    names = {pair.name for pair in some}
    for pair in track.pairs:
        way = route(pair)
        if way is not None:
            here = counts.setdefault(way.blocks, [0, 0])
            here[0] += pair.name in names
            here[1] += 1
    if len(counts) < 2:
        return []
    return [joined((f"{blocks} {n} of {every}" for blocks, (n, every) in counts.items()), limit=9)]


def alignments(result: ScanResult) -> list[Finding]:
    """Tracks whose Grams commute, correlate or clash beyond chance (C, ρ and ν together).

    Counted are pairs whose number is both significant and of some size. What is certain for the
    whole report is one finding, what is counted alone another.
    """
    rate = ErrorRate.of(result)
    found = []
    for track in wider_tracks(result):
        clauses = [
            *_clauses(track, rate, "commutator_ratio", "commutator_", 1.0),
            *_clauses(track, rate, "gram_correlation", "gram_correlation_", 0.0),
        ]
        for certain in (True, False):
            some = [clause for clause in clauses if clause.certain == certain]
            if some:
                found.append(_alignment(result, track, some))
    return found


def _clauses(
    track: Track, rate: ErrorRate, observable: str, test: TestPrefix, chance: float
) -> list[_Clause]:
    """The pairs significantly and sizably below and above chance."""
    some = [pair for pair in counted_pairs(track, rate, observable, test)
            if sizable(pair, observable)]  # fmt: skip
    clauses = []
    for above in (False, True):
        side = [pair for pair in some if (getattr(pair, observable) > chance) == above]
        if side:
            middle = median(getattr(pair, observable) for pair in side)
            effect = correlation_effect(middle) if chance == 0 else ratio_effect(middle)
            certain = any(rate.certain(pair, test) for pair in side)
            clauses.append(_Clause(observable, above, side, effect, certain))
    return clauses


def counted_pairs(
    track: Track, rate: ErrorRate, observable: str, test: TestPrefix
) -> list[PairRecord]:
    """Pairs of a track for which a number is known and counted as significant, of any size."""
    return [
        pair
        for pair in track.pairs
        if rate.counts(pair, test) and getattr(pair, observable) is not None
    ]


def _alignment(result: ScanResult, track: Track, clauses: Sequence[_Clause]) -> Finding:
    every = list({pair.name: pair for clause in clauses for pair in clause.pairs}.values())
    # What most pairs show leads: the plain sentence, the technical one, and what they mean.
    first = max(clauses, key=lambda clause: (len(clause.pairs), clause.effect.size))
    ordered = [first, *(clause for clause in clauses if clause is not first)]
    words = joined((clause.text(track) for clause in ordered), limit=4)
    certain = first.certain
    text = f"{track.title}: {words}."
    evidence = [first.effect.text]
    defects = [pair.commutation_defect for pair in every if pair.commutation_defect is not None]
    if defects:
        evidence.append(f"ν {typical(defects)}; chance is about 1")
    band = null_band(every[0], "commutator_ratio")
    if band:
        evidence.append(f"95 % of chance values of C: {number(band.low)} to {number(band.high)}")
    evidence += [f"d = {every[0].d:,}", *by_route(every, track)]
    evidence.append(f"counted where |ρ| ≥ {CORRELATION_FLOOR}, C {RATIO_FLOOR:.0%} off chance")
    label = label_of(result, every[0], first.observable)
    sentence = plain.aligned(track, first.pairs, first.observable, above=first.above)
    return Finding(
        code="aligned",
        severity=severity_of(
            certain=certain, effect=first.effect, label=label, some=len(first.pairs),
            every=len(track.pairs),
        ),
        topic="pairs",
        plain=sentence if certain else plain.uncertain(sentence),
        text=text if certain else f"{text} {UNCERTAIN}",
        evidence=tuple(evidence),
        **pair_members(result, first.furthest_first(), first.number),
        **meaning.alignment(
            first.observable, first.above, label=label, pair=first.furthest_first()[0],
        ).fields(),
        effect=first.effect.size,
        label=label,
        target=_target(result, track, every),
    )  # fmt: skip


def _target(result: ScanResult, track: Track, some: Sequence[PairRecord]) -> str:
    """The one pair, or the profiles of all."""
    return f"pair/{result.pairs.index(some[0])}" if len(some) == 1 else f"track/{track.key}"


class _Overlap(NamedTuple):
    """A pair with the overlap that is said of it."""

    pair: PairRecord
    at: OverlapEffect


def counted_overlaps(track: Track, rate: ErrorRate) -> list[_Overlap]:
    """The pairs of a track whose overlap is counted as significant, of any size."""
    known = [(pair, overlap_effect(pair, rate)) for pair in track.pairs if rate.counts(pair)]
    return [_Overlap(pair, at) for pair, at in known if at is not None]


def overlaps(result: ScanResult) -> list[Finding]:
    """Tracks whose leading spaces overlap sizably more, or less, than chance."""
    rate = ErrorRate.of(result)
    found = []
    for track in wider_tracks(result):
        some = [entry for entry in counted_overlaps(track, rate) if entry.at.sizable(entry.pair.d)]
        for above in (True, False):
            side = [entry for entry in some if (entry.at.ratio > 1) == above]
            if side:
                found.append(_overlap(result, track, side, rate, above=above))
    return found


def _overlap(
    result: ScanResult, track: Track, some: Sequence[_Overlap], rate: ErrorRate, *, above: bool
) -> Finding:
    pairs = [entry.pair for entry in some]
    ratios = [entry.at.ratio for entry in some]
    effect = ratio_effect(median(ratios))
    certain = any(rate.certain(pair) for pair in pairs)
    label = label_of(result, pairs[0], "overlap_ratio")
    first, second = MAP_WORDS[track.pairs[0].kind]
    deed = "coincide more than by chance" if above else "avoid each other"
    spread = [entry for entry in some if not entry.at.dominant]
    text = (
        f"{track.title}: the leading directions of {first} and {second} {deed} in "
        f"{share_of(len(pairs), len(track.pairs), 'pair')} (overlap ratio {typical(ratios)}; "
        f"chance is 1){_elsewhere(spread, len(some), above=above)}."
    )
    surest = min(some, key=lambda entry: entry.pair.log10_p or 0.0)
    sentence = plain.overlapping(track, pairs, above=above)
    numbers = {entry.pair.name: f"{number(entry.at.ratio)} times chance" for entry in some}
    furthest = sorted(some, key=lambda entry: entry.at.ratio, reverse=above)
    return Finding(
        code="overlap-more" if above else "overlap-less",
        severity=severity_of(
            certain=certain, effect=effect, label=label, some=len(pairs), every=len(track.pairs)
        ),
        topic="pairs",
        plain=sentence if certain else plain.uncertain(sentence),
        text=text if certain else f"{text} {UNCERTAIN}",
        evidence=(
            effect.text,
            f"surest: {surest.pair.name}, {number(surest.at.ratio)} times chance at the leading "
            f"{surest.at.rank_write:,} and {surest.at.rank_read:,} directions in "
            f"{euclidean(surest.pair.d)} ({p_value(surest.pair.log10_p)} of the combined test)",
            f"counted from {RATIO_FLOOR:.0%} off chance, or a tenth of the way to the limit",
            *by_route(pairs, track),
        ),
        **pair_members(
            result, [entry.pair for entry in furthest], lambda pair: numbers[pair.name]
        ),
        **meaning.overlap(
            above=above, dominant=2 * len(spread) < len(some), label=label,
            pair=furthest[0].pair,
        ).fields(),
        effect=effect.size,
        label=label,
        target=_target(result, track, pairs),
    )  # fmt: skip


def _elsewhere(spread: Sequence[_Overlap], every: int, *, above: bool) -> str:
    """Findings on pairs whose dominant directions do not show their overlap."""
    if not spread:
        return ""
    surest = min(spread, key=lambda entry: entry.pair.log10_p or 0.0)
    deed = "are aligned" if above else "avoid each other"
    bulk = not any(stands_out(entry.pair) for entry in spread)
    words = (
        "no single direction stands out" if bulk else "the directions that stand out do not show it"
    )
    where = "" if len(spread) == every else f"in {len(spread):,} of them "
    ranks = f"{surest.at.rank_write:,} and {surest.at.rank_read:,}"
    return (
        f"; {where}{words}, yet the spaces {deed}: strongest at the leading {ranks} directions, "
        f"{number(surest.at.ratio)} times chance, in {surest.pair.name}"
    )
