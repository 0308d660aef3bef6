"""The tests of pairs: of their overlap, C and ρ, each against chance and against scale profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.diagnose.combined_test import (
    CombinedOverlap,
    RankPair,
    combined_overlap,
    ranks_to_test,
)
from flagscope.diagnose.grams import GramObservables
from flagscope.diagnose.guard import LOOK, GuardedTests, Views, guarded_tests
from flagscope.geometry import MapRanks, PairSpectra
from flagscope.records import OverlapTest


@dataclass(frozen=True)
class PairTests:
    """The p-values of one pair.

    Attributes
    ----------
    dominant
        Ranks of the dominant spaces.
    overlap
        The combined test of the maps as they are; None where dimension leaves nothing to test.
    commutator_p, correlation_p
        Of C and ρ of the maps as they are.
    guarded
        The same tests without the scale profiles, where those were looked at.
    """

    dominant: RankPair = (0, 0)
    overlap: CombinedOverlap | None = None
    commutator_p: float | None = None
    correlation_p: float | None = None
    guarded: GuardedTests | None = None

    @property
    def overlap_log10_p(self) -> float | None:
        """The larger of the two p-values of the overlap, as a decimal logarithm."""
        if self.overlap is None or self.guarded is None:
            return None if self.overlap is None else self.overlap.log10_p
        return max(self.overlap.log10_p, self.guarded.overlap_log10_p)

    @property
    def dominant_log10_p(self) -> float | None:
        """The same at the dominant ranks by themselves, over their share of the level."""
        if self.overlap is None or self.dominant not in self.overlap.single:
            return None
        own = self.overlap.single[self.dominant]
        return own if self.guarded is None else max(own, self.guarded.dominant_log10_p)

    @property
    def overlap_test(self) -> OverlapTest | None:
        """The combined test as a record."""
        if self.overlap is None:
            return None
        i, j = self.overlap.ranks
        return OverlapTest(
            rank_write=i,
            rank_read=j,
            overlap_ratio=self.overlap.overlap_ratio,
            log10_p=self.overlap.log10_p,
            log10_p_profile=None if self.guarded is None else self.guarded.overlap_log10_p,
            dominant_log10_p=self.dominant_log10_p,
        )

    @property
    def guarded_commutator_p(self) -> float | None:
        """The larger of the two p-values of C."""
        return _larger(self.commutator_p, self.guarded and self.guarded.commutator_p)

    @property
    def guarded_correlation_p(self) -> float | None:
        """The larger of the two p-values of ρ."""
        return _larger(self.correlation_p, self.guarded and self.guarded.correlation_p)


def _larger(p: float | None, guarded: float | None) -> float | None:
    return p if p is None or guarded is None else max(p, guarded)


def pair_tests(
    spectra: PairSpectra,
    write: MapRanks,
    read: MapRanks,
    grams: Sequence[GramObservables],
    *,
    views: Views,
    seed: int,
) -> list[PairTests]:
    """Test the overlap, C and ρ of n pairs.

    Each p-value is the larger of two: that of the maps as they are, valid where one of them is in
    general position, and that of the maps without their scale profiles, valid where coordinates
    have scales of their own. The second is looked at where a first one is small.

    Parameters
    ----------
    spectra, write, read
        The pairs, and the ranks of their maps.
    grams
        C and ρ with their p-values.
    views
        Gives pairs without their scale profiles.
    seed
        Of draws.
    """
    dominant = list(zip(write.effective, read.effective, strict=True))
    shares = [
        ranks_to_test(
            dominant=dominant[i],
            numerical=(write.numerical[i], read.numerical[i]),
            participation=(write.whole_participation(i), read.whole_participation(i)),
            d=spectra.d,
        )
        for i in range(len(grams))
    ]
    overlaps = [
        combined_overlap(spectra.cosines[i], some, spectra.d) for i, some in enumerate(shares)
    ]
    small = [
        i
        for i, (overlap, row) in enumerate(zip(overlaps, grams, strict=True))
        if is_small(overlap, row)
    ]
    guarded = _guarded(small, shares, dominant, views, seed)
    return [
        PairTests(dominant[i], overlap, row.commutator_p, row.gram_correlation_p, guarded.get(i))
        for i, (overlap, row) in enumerate(zip(overlaps, grams, strict=True))
    ]


def is_small(overlap: CombinedOverlap | None, row: GramObservables) -> bool:
    """Whether a p-value of the maps as they are is small enough to look again."""
    known = [] if overlap is None else [10.0**overlap.log10_p]
    known += [p for p in (row.commutator_p, row.gram_correlation_p) if p is not None]
    return any(p <= LOOK for p in known)


def _guarded(
    small: list[int],
    shares: Sequence[dict[RankPair, float]],
    dominant: Sequence[RankPair],
    views: Views,
    seed: int,
) -> dict[int, GuardedTests]:
    if not small:
        return {}
    return {
        i: guarded_tests(view, shares[i], dominant[i], seed=seed)
        for i, view in zip(small, views(small), strict=True)
        if view is not None
    }
