"""Wording of a pair's overlap: at its dominant spaces, or where the combined test found it."""

from __future__ import annotations

from dataclasses import dataclass

from flagscope.records import PairRecord
from flagscope.report.effect import sizable_ratio
from flagscope.report.error_rate import ErrorRate
from flagscope.report.wording import number


@dataclass(frozen=True)
class OverlapEffect:
    """An overlap ratio, and the dimensions that it was measured at.

    Parameters
    ----------
    ratio
        Σcos² in units of chance.
    rank_write, rank_read
        Dimensions of the two spaces.
    dominant
        Whether these are the dominant spaces, or those at which the combined test is strongest.
    """

    ratio: float
    rank_write: int
    rank_read: int
    dominant: bool

    def sizable(self, d: int) -> bool:
        """Whether it is far enough from chance to be reported as a finding."""
        return sizable_ratio(self.ratio, self.rank_write, self.rank_read, d)


def overlap_effect(pair: PairRecord, rate: ErrorRate) -> OverlapEffect | None:
    """The overlap that a finding speaks of; None where nothing was measured.

    That of the dominant spaces where it is large and holds by itself at the error rate of the whole
    report; else that at the dimensions where the combined test is strongest. Spaces of one or two
    dimensions can be nearly orthogonal by chance, and their ratio looks impressive then.
    """
    ratio, ranks = pair.overlap_ratio, (pair.effective_rank_write, pair.effective_rank_read)
    leading = None
    if ratio is not None and ranks[0] is not None and ranks[1] is not None:
        leading = OverlapEffect(ratio, ranks[0], ranks[1], True)
    test = pair.overlap_test
    if test is None:
        return leading
    strongest = OverlapEffect(test.overlap_ratio, test.rank_write, test.rank_read, False)
    if leading is None or not stands_out(pair):
        return strongest
    holds = rate.certain(test, "dominant_")
    return leading if holds and leading.sizable(pair.d) else strongest


def stands_out(pair: PairRecord) -> bool:
    """Whether both maps have directions that stand out of the bulk, as far as is known."""
    return pair.dominant in (None, "ok")


def dominance_words(pair: PairRecord, rate: ErrorRate) -> str:
    """Text for a pair in which nothing stands out of the bulk; empty where something does.

    Never that nothing stands out alone, where the combined test says that the spaces are aligned.
    """
    if stands_out(pair):
        return ""
    test = pair.overlap_test
    if test is None or not rate.counts(pair):
        # The record looks at the pair alone, and a report at all of its tests: no ratio here.
        return (pair.dominant or "").partition(", but ")[0]
    deed = "are aligned" if test.overlap_ratio > 1 else "avoid each other"
    return (
        f"no single direction stands out, yet the spaces {deed}: strongest at the leading "
        f"{test.rank_write:,} and {test.rank_read:,} directions, {number(test.overlap_ratio)} "
        "times chance"
    )
