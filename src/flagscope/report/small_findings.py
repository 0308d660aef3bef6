"""One remark on what lies beyond chance and yet close to it."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records import Finding, ScanResult
from flagscope.report import meaning
from flagscope.report.effect import CORRELATION_FLOOR, RATIO_FLOOR, sizable
from flagscope.report.error_rate import ErrorRate, TestPrefix
from flagscope.report.head_findings import small_ratio
from flagscope.report.pair_findings import counted_overlaps, counted_pairs
from flagscope.report.tracks import Track, head_tracks, wider_tracks
from flagscope.report.wording import counted, share_of, typical

_SHOWN = 3  # in the sentence; the evidence has all
_TESTED: tuple[tuple[str, TestPrefix, str], ...] = (
    ("commutator_ratio", "commutator_", "C"),
    ("gram_correlation", "gram_correlation_", "ρ"),
)


def small_effects(result: ScanResult) -> list[Finding]:
    """One remark on effects that are beyond chance but too small to be reported as findings."""
    rate = ErrorRate.of(result)
    remarks = [line for track in wider_tracks(result) for line in _of_pairs(track, rate)]
    for heads in head_tracks(result):
        some = [group for group in heads.groups if rate.counts(group)]
        ratios = [group.overlap_ratio for group in some if group.overlap_ratio is not None]
        small = [ratio for ratio in ratios if small_ratio(ratio)]
        if small and len(small) == len(ratios):
            remarks.append(_line(heads.title, "R", small, len(heads.groups), "layer"))
    if not remarks:
        return []
    shown = "; ".join(remarks[:_SHOWN])
    more = f"; and {counted(len(remarks) - _SHOWN, 'more number')}" if len(remarks) > _SHOWN else ""
    text = (
        f"Counted as beyond chance, and yet close to it (|ρ| below {CORRELATION_FLOOR}; C, R or "
        f"the overlap within {RATIO_FLOOR:.0%} of 1): {shown}{more}."
    )
    return [
        Finding(
            code="small-effects",
            severity="info",
            topic="scan",
            plain="Some numbers differ from chance by more than chance allows, but only a little.",
            text=text,
            evidence=tuple(remarks),
            **meaning.SMALL.fields(),
        )
    ]


def _of_pairs(track: Track, rate: ErrorRate) -> list[str]:
    lines = []
    for observable, test, symbol in _TESTED:
        some = counted_pairs(track, rate, observable, test)
        small = [getattr(p, observable) for p in some if not sizable(p, observable)]
        if small and len(small) == len(some):
            lines.append(_line(track.title, symbol, small, len(track.pairs), "pair"))
    overlaps = counted_overlaps(track, rate)
    small = [entry.at.ratio for entry in overlaps if not entry.at.sizable(entry.pair.d)]
    if small and len(small) == len(overlaps):
        lines.append(_line(track.title, "overlap ratio", small, len(track.pairs), "pair"))
    return lines


def _line(title: str, symbol: str, values: Sequence[float], every: int, noun: str) -> str:
    return f"{symbol} of {title}, {typical(values)} in {share_of(len(values), every, noun)}"
