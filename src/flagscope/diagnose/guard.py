"""The guard of a pair's tests: what they say once the scale profiles are divided out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from flagscope.diagnose.combined_test import CombinedOverlap, RankPair, combined_overlap
from flagscope.diagnose.grams import GramObservables, gram_observables
from flagscope.geometry import ProfileView

# A p-value above this stands as it is: no level in use would take it for a claim.
LOOK = 0.2

Views = Callable[[list[int]], list[ProfileView | None]]


@dataclass(frozen=True)
class GuardedTests:
    """p-values without the scale profiles: 1 where nothing but profiles is left to test."""

    overlap_log10_p: float
    dominant_log10_p: float
    commutator_p: float
    correlation_p: float


# Too few coordinates are left for a null to be known.
NOTHING_LEFT = GuardedTests(0.0, 0.0, 1.0, 1.0)


def guarded_tests(
    view: ProfileView, shares: dict[RankPair, float], dominant: RankPair, *, seed: int
) -> GuardedTests:
    """The tests of a pair, made without its scale profiles.

    Parameters
    ----------
    view
        The pair.
    shares
        RankPair at which the overlap is tested, see `ranks_to_test`.
    seed
        Of draws, as for `gram_observables`.
    """
    spectra = view.spectra
    if spectra is None:
        return NOTHING_LEFT
    limits = [int((values[0] > 0).sum()) for values in (spectra.alpha, spectra.beta)]
    overlap = combined_overlap(
        spectra.cosines[0], clipped_shares(shares, limits, spectra.d), spectra.d
    )
    # Correlation matrices that differ from a multiple of the identity by round-off alone.
    unit = torch.finfo(spectra.alpha.dtype).eps
    noise = [2 * unit * values.sum(-1).cpu().double() for values in (spectra.alpha, spectra.beta)]
    (row,) = gram_observables(spectra, *noise, seed=seed, spread=[view.spread])
    return made_of(overlap, clipped(dominant, limits), row)


def made_of(
    overlap: CombinedOverlap | None, dominant: RankPair, row: GramObservables
) -> GuardedTests:
    """The tests without profiles, from that of the overlap and those of C and ρ."""
    return GuardedTests(
        0.0 if overlap is None else overlap.log10_p,
        0.0 if overlap is None else overlap.single.get(dominant, 0.0),
        1.0 if row.commutator_p is None else row.commutator_p,
        1.0 if row.gram_correlation_p is None else row.gram_correlation_p,
    )


def clipped_shares(
    shares: dict[RankPair, float], limits: Sequence[int], d: int
) -> dict[RankPair, float]:
    """Ranks to test and their shares, where fewer directions may be left."""
    left: dict[RankPair, float] = {}
    for every, share in shares.items():
        ranks = clipped(every, limits)
        if min(ranks) > 0 and max(ranks) < d:
            left[ranks] = left.get(ranks, 0.0) + share
    return left


def clipped(ranks: RankPair, limits: Sequence[int]) -> RankPair:
    """Ranks that are no larger than the directions that are left."""
    return min(ranks[0], limits[0]), min(ranks[1], limits[1])
