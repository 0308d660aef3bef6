"""Exact statements about adjacent pairs, which are not tests: lost ranks, exact intersections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from flagscope.observables import null_band
from flagscope.records import Finding, PairRecord, ScanResult
from flagscope.report import meaning, plain
from flagscope.report.effect import ratio_effect
from flagscope.report.members import pair_members
from flagscope.report.pair_findings import label_of
from flagscope.report.tracks import Track, wider_tracks
from flagscope.report.wording import counted, joined, share_of, span

_MOST = 0.5  # a statement about a track needs at least this share of its pairs to be strong


def lost_ranks(result: ScanResult) -> list[Finding]:
    """Tracks with pairs whose product has lower rank than maps in general position give."""
    return _above_generic(
        result,
        "kernel_intersection",
        lambda s, lost, left: (
            f"keep{s} {left} dimensions that are written, to storage precision: "
            f"{span([float(count) for count in lost])} fewer than maps in general position keep."
        ),
        lambda pair: pair.rank_write or 0,
        meaning.LOST_RANKS,
    )


def exact_intersections(result: ScanResult) -> list[Finding]:
    """Tracks whose dominant spaces meet in more dimensions than they must, where that is known."""
    return _above_generic(
        result,
        "intersection_exact",
        lambda s, met, left: (
            f"share{s} {counted(max(met), 'dimension')}{' or fewer' if len(met) > 1 else ''} to "
            f"storage precision, beyond what dimensions force: {left} dimensions of the smaller "
            "space are left apart; chance is that all are."
        ),
        lambda pair: min(pair.effective_rank_write or 0, pair.effective_rank_read or 0),
        meaning.EXACT_INTERSECTIONS,
    )


def _above_generic(
    result: ScanResult,
    observable: str,
    sentence: Callable[[str, Sequence[int], str], str],
    size: Callable[[PairRecord], int],
    what: meaning.Meaning,
) -> list[Finding]:
    found = []
    for track in wider_tracks(result):
        some, excess, left = [], [], []
        for pair in track.pairs:
            value, band = getattr(pair, observable), null_band(pair, observable)
            if value is None or band is None or not _known(pair, observable):
                continue
            # Both are whole numbers: any excess is one of whole dimensions.
            if value > band.mean:
                some.append(pair)
                excess.append(int(value - band.mean))
                possible = max(1, size(pair) - int(band.mean))
                left.append((max(0, possible - excess[-1]), possible))
        if some:
            found.append(_finding(result, track, some, observable, excess, left, sentence, what))
    return found


def _known(pair: PairRecord, observable: str) -> bool:
    """An exact intersection counts only where its status allows; schema 1 has none.

    Where chance brings cosines near 1 no count beyond chance can be tested, and a sine far below
    what chance brings is exact all the same.
    """
    status = pair.intersection_status
    return observable != "intersection_exact" or (
        status is not None and not status.startswith("open")
    )


def _finding(
    result: ScanResult, track: Track, some: Sequence[PairRecord], observable: str,
    excess: Sequence[int], left: Sequence[tuple[int, int]],
    sentence: Callable[[str, Sequence[int], str], str], what: meaning.Meaning,
) -> Finding:  # fmt: skip
    # The pair in the middle, so that the effect can be checked from the sentence.
    middle = median(kept / possible for kept, possible in left)
    kept, possible = min(left, key=lambda pair: abs(pair[0] / pair[1] - middle))
    effect = ratio_effect(kept / possible)
    words = f"{kept:,} of {possible:,}" + (" (in the middle)" if len(left) > 1 else "")
    label = label_of(result, some[0], observable)
    strong = len(some) >= _MOST * len(track.pairs) and label == "functional"
    where = share_of(len(some), len(track.pairs), "pair")
    ranks = observable == "kernel_intersection"
    many = dict(zip((pair.name for pair in some), excess, strict=True))
    return Finding(
        code="lost-ranks" if ranks else "exact-intersections",
        severity="strong" if strong else "notable",
        topic="pairs",
        plain=plain.lost(track, some) if ranks else plain.met_exactly(track, some),
        text=f"{track.title}: {where} {sentence('' if len(some) > 1 else 's', excess, words)}",
        evidence=(effect.text, joined((pair.name for pair in some), limit=4)),
        **pair_members(
            result,
            sorted(some, key=lambda pair: -many[pair.name]),
            lambda pair: counted(many[pair.name], "dimension"),
        ),
        **what._replace(means=meaning.of_weights_alone(what.means, some[0])).fields(),
        effect=effect.size,
        label=label,
        target=f"track/{track.key}",
    )
