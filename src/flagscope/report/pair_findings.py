"""Findings about adjacent pairs: aligned Grams, overlaps, lost ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from flagscope.diagnose.records import Label, PairRecord, ScanResult
from flagscope.report.chance import discoveries, null_band
from flagscope.report.effect import CORRELATION_FLOOR, RATIO_FLOOR, sizable
from flagscope.report.finding import Finding
from flagscope.report.routes import route
from flagscope.report.tracks import Track, wider_tracks
from flagscope.report.wording import counted, euclidean, joined, number, p_value, span

_MOST = 0.5  # a statement about a track needs at least this share of its pairs to be strong


def label_of(result: ScanResult, pair: PairRecord, observable: str) -> Label | None:
    """Whether an observable of a pair is functional or a matter of gauge."""
    return result.labels.get(pair.freedom, {}).get(observable)


def _level(result: ScanResult) -> float:
    return float(result.settings.get("fdr", 0.05))


def _values(pairs: Sequence[PairRecord], observable: str) -> list[float]:
    return [value for pair in pairs if (value := getattr(pair, observable)) is not None]


def _typical(pairs: Sequence[PairRecord], observable: str) -> str:
    values = _values(pairs, observable)
    if len(values) > 12:
        return f"median {number(median(values))}"
    return span(values)


def _of(some: Sequence[PairRecord], track: Track) -> str:
    if len(track.pairs) == 1:
        return "the one pair"
    return f"{len(some):,} of {len(track.pairs):,} pairs"


def _finding(
    result: ScanResult, track: Track, some: Sequence[PairRecord], *, text: str,
    evidence: Sequence[str], observable: str,
) -> Finding:  # fmt: skip
    label = label_of(result, some[0], observable)
    strong = len(some) >= _MOST * len(track.pairs) and label == "functional"
    return Finding(
        severity="strong" if strong else "notable",
        topic="pairs",
        text=text,
        evidence=tuple(evidence),
        label=label,
        target=f"track/{track.key}",
    )


def _by_route(some: Sequence[PairRecord], track: Track) -> list[str]:
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

    Counted are pairs whose number is both significant and of some size.
    """
    found = []
    for track in wider_tracks(result):
        commutator = _beyond(result, track, "commutator_p", "commutator_ratio", 1.0)
        correlation = _beyond(result, track, "gram_correlation_p", "gram_correlation", 0.0)
        clauses: list[str] = []
        for (below, above), words in (
            (commutator, ("share their axes better than by chance", "meet at oblique angles")),
            (correlation, ("weigh different directions", "weigh the same directions")),
        ):
            symbol, chance = ("C", 1) if words[1].startswith("meet") else ("ρ", 0)
            name = "commutator_ratio" if symbol == "C" else "gram_correlation"
            for some, phrase in ((below, words[0]), (above, words[1])):
                if len(some) > max(0.1 * len(track.pairs), 0):
                    clauses.append(
                        f"{phrase} in {_of(some, track)} "
                        f"({symbol} {_typical(some, name)}; chance is {chance})"
                    )
        if not clauses:
            continue
        every = list(
            {pair.name: pair for part in (*commutator, *correlation) for pair in part}.values()
        )
        text = f"{track.title}: the write and read Grams {joined(clauses, limit=4)}."
        defects = _values(every, "commutation_defect")
        evidence = (
            [f"ν {_typical(every, 'commutation_defect')}; chance is about 1"] if defects else []
        )
        band = null_band(every[0], "commutator_ratio")
        if band:
            evidence.append(
                f"95 % of chance values of C: {number(band.low)} to {number(band.high)}"
            )
        evidence.append(f"d = {every[0].d}; false-discovery rate {_level(result):.0%}")
        evidence += _by_route(every, track)
        evidence.append(f"counted where |ρ| ≥ {CORRELATION_FLOOR}, C {RATIO_FLOOR:.0%} off chance")
        found.append(
            _finding(
                result, track, every, text=text, evidence=evidence, observable="commutator_ratio"
            )
        )
    return found


def _beyond(
    result: ScanResult, track: Track, p_name: str, observable: str, chance: float
) -> tuple[list[PairRecord], list[PairRecord]]:
    """Pairs significantly and sizably below and above chance."""
    significant = _significant(result, track, p_name, observable)
    some = [pair for pair in significant if sizable(pair, observable)]
    return (
        [pair for pair in some if getattr(pair, observable) < chance],
        [pair for pair in some if getattr(pair, observable) > chance],
    )


def _significant(
    result: ScanResult, track: Track, p_name: str, observable: str
) -> list[PairRecord]:
    """Pairs of a track for which a number is known and beyond chance, whatever its size."""
    if p_name == "p_adjusted":
        flags = [p.p_adjusted is not None and p.p_adjusted <= _level(result) for p in track.pairs]
    else:
        flags = discoveries([getattr(pair, p_name) for pair in track.pairs], level=_level(result))
    return [
        pair
        for pair, flag in zip(track.pairs, flags, strict=True)
        if flag and getattr(pair, observable) is not None
    ]


_TESTED = (
    ("commutator_ratio", "commutator_p", "C"),
    ("gram_correlation", "gram_correlation_p", "ρ"),
    ("overlap_ratio", "p_adjusted", "overlap ratio"),
)


def small_effects(result: ScanResult) -> list[Finding]:
    """What is beyond chance but too small to be told as a finding: one remark for all of it."""
    told = []
    for track in wider_tracks(result):
        for observable, p_name, symbol in _TESTED:
            some = _significant(result, track, p_name, observable)
            small = [pair for pair in some if not sizable(pair, observable)]
            if small and len(small) == len(some):
                told.append(
                    f"{track.title}: {symbol} {_typical(small, observable)} in {_of(small, track)}"
                )
    if not told:
        return []
    text = (
        f"In {counted(len(told), 'case')} a kind of pair is beyond chance and yet close to it: "
        f"|ρ| below {CORRELATION_FLOOR}, or C or the overlap within {RATIO_FLOOR:.0%}."
    )
    return [Finding(severity="info", topic="pairs", text=text, evidence=tuple(told))]


def overlaps(result: ScanResult) -> list[Finding]:
    """Tracks whose dominant spaces overlap sizably more, or less, than chance."""
    found = []
    for track in wider_tracks(result):
        significant = [
            pair
            for pair in _significant(result, track, "p_adjusted", "overlap_ratio")
            if sizable(pair, "overlap_ratio")
        ]
        for above in (True, False):
            some = [p for p in significant if ((p.overlap_ratio or 0) > 1) == above]
            if len(some) <= 0.1 * len(track.pairs):
                continue
            extreme = max(some, key=lambda pair: abs(pair.overlap_z or 0))
            deed = "is read where it is written" if above else "is read elsewhere than written"
            text = (
                f"{track.title}: the shared space {deed} in {_of(some, track)} "
                f"(overlap ratio {_typical(some, 'overlap_ratio')}; chance is 1)."
            )
            evidence = (
                f"strongest: {extreme.name}, {number(extreme.overlap_ratio)} times chance, "
                f"z = {number(extreme.overlap_z)} ({p_value(extreme.log10_p)})",
                f"ranks {extreme.effective_rank_write} and {extreme.effective_rank_read} "
                f"in {euclidean(extreme.d)}; counted from {RATIO_FLOOR:.0%} off chance, or a tenth "
                "of the way to the limit",
                *_by_route(some, track),
            )
            found.append(
                _finding(
                    result, track, some, text=text, evidence=evidence, observable="overlap_ratio"
                )
            )
    return found


def _above_generic(
    result: ScanResult, observable: str, sentence: Callable[[str, Sequence[int]], str]
) -> list[Finding]:
    found = []
    for track in wider_tracks(result):
        some, excess = [], []
        for pair in track.pairs:
            value, band = getattr(pair, observable), null_band(pair, observable)
            if value is not None and band is not None and value > band.mean:
                some.append(pair)
                excess.append(int(value - band.mean))
        if not some:
            continue
        text = f"{track.title}: {_of(some, track)} {sentence('' if len(some) > 1 else 's', excess)}"
        names = joined((pair.name for pair in some), limit=4)
        finding = _finding(result, track, some, text=text, evidence=(names,), observable=observable)
        found.append(finding)
    return found


def lost_ranks(result: ScanResult) -> list[Finding]:
    """Tracks with pairs that write directions which are never read."""
    return _above_generic(
        result,
        "kernel_intersection",
        lambda s, excess: (
            f"write{s} {span([float(e) for e in excess])} "
            "more dimensions than are read; chance is 0 more."
        ),
    )


def exact_intersections(result: ScanResult) -> list[Finding]:
    """Tracks whose dominant spaces meet exactly in more dimensions than they must."""
    return _above_generic(
        result,
        "intersection_exact",
        lambda s, excess: (
            f"share{s} {counted(max(excess), 'dimension')} or fewer exactly, "
            "beyond what dimensions force; chance is 0."
        ),
    )
