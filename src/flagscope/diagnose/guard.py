"""The guard of a pair's tests: what they say once the scale profiles are divided out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.combined import RankPair, combined_overlap
from flagscope.diagnose.grams import gram_observables
from flagscope.geometry import (
    FEWEST,
    PairSpectra,
    flat_spread,
    in_complement_of_mean,
    mean_removed,
    profiles,
    row_scales,
    unit_rows,
)

# A p-value above this stands as it is: no level in use would take it for a claim.
LOOK = 0.2

Measure = Callable[[Float[Tensor, "n d m1"], Float[Tensor, "n m2 d"]], PairSpectra]


@dataclass(frozen=True)
class ProfileView:
    """One pair without the scale profiles of its shared space.

    Attributes
    ----------
    spectra
        Of this pair alone; None where too few coordinates are left for a null to be known.
    spread
        Spread of ⟨Ã, B̃⟩ in units of its Haar value, see `flat_spread`.
    """

    spectra: PairSpectra | None
    spread: float = 1.0


Views = Callable[[list[int]], list[ProfileView | None]]


@dataclass(frozen=True)
class GuardedTests:
    """p-values without the scale profiles: 1 where nothing but profiles is left to test."""

    overlap_log10_p: float
    dominant_log10_p: float
    commutator_p: float
    correlation_p: float


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
        return GuardedTests(0.0, 0.0, 1.0, 1.0)
    limits = [int((values[0] > 0).sum()) for values in (spectra.alpha, spectra.beta)]
    clipped: dict[RankPair, float] = {}
    for (i, j), share in shares.items():
        ranks = _clipped((i, j), limits)
        if min(ranks) > 0 and max(ranks) < spectra.d:
            clipped[ranks] = clipped.get(ranks, 0.0) + share
    overlap = combined_overlap(spectra.cosines[0], clipped, spectra.d)
    # Correlation matrices that differ from a multiple of the identity by round-off alone.
    unit = torch.finfo(spectra.alpha.dtype).eps
    noise = [2 * unit * values.sum(-1).cpu().double() for values in (spectra.alpha, spectra.beta)]
    (row,) = gram_observables(spectra, *noise, seed=seed, spread=[view.spread])
    return GuardedTests(
        0.0 if overlap is None else overlap.log10_p,
        0.0 if overlap is None else overlap.single.get(_clipped(dominant, limits), 0.0),
        1.0 if row.commutator_p is None else row.commutator_p,
        1.0 if row.gram_correlation_p is None else row.gram_correlation_p,
    )


def _clipped(ranks: RankPair, limits: Sequence[int]) -> RankPair:
    return min(ranks[0], limits[0]), min(ranks[1], limits[1])


def profile_views(
    w1: Float[Tensor, "n d m1"],
    w2: Float[Tensor, "n m2 d"],
    spectra: PairSpectra,
    indices: Sequence[int],
    *,
    measure: Measure,
) -> list[ProfileView | None]:
    """Some pairs of a batch without their scale profiles.

    Parameters
    ----------
    w1, w2
        The maps of all pairs, on the coordinates of the neurons.
    spectra
        Theirs, as they are; of one dimension less where the mean of these coordinates is removed.
    indices
        The pairs that are asked for.
    measure
        Gives the spectra of other maps of the same kind.

    Returns
    -------
    list of ProfileView or None
        None where scale profiles could not pass for alignment, see `profiles`: then one of the
        maps is in general position as far as scales go, and the Haar null holds as it is.
    """
    at = torch.tensor(list(indices), device=w1.device)
    left, right = w1[at], w2[at].mT
    squares = spectra.alpha[at].square().sum(-1), spectra.beta[at].square().sum(-1)
    centred = spectra.d < left.shape[1]
    if centred:
        # The mean is not a direction of the pair, and would be one that both maps share.
        left, right, squares = mean_removed(left), mean_removed(right), (None, None)
    write, read = row_scales(left, squares[0]), row_scales(right, squares[1])
    found = profiles(write, read)
    alike: dict[tuple[bytes, bool], list[int]] = {}
    for k in torch.nonzero(found.any).flatten().tolist():
        coordinates = found.alive[k].cpu().numpy().tobytes()
        alike.setdefault((coordinates, bool(found.unlike[k])), []).append(k)
    views: list[ProfileView | None] = [None] * len(at)
    for (_, unlike), some in alike.items():
        alive = found.alive[some[0]]
        count = int(alive.sum())
        if not testable(count, unlike=unlike):
            for k in some:
                views[k] = ProfileView(None)
            continue
        one, two = left[some][:, alive], right[some][:, alive]
        if unlike:
            one, two = (
                unit_rows(w, side.square[some][:, alive]) for w, side in ((one, write), (two, read))
            )
        if centred:
            one, two, count = in_complement_of_mean(one), in_complement_of_mean(two), count - 1
        made = measure(one, two.mT)
        for number, k in enumerate(some):
            views[k] = ProfileView(one_pair(made, number), flat_spread(count) if unlike else 1.0)
    return views


def testable(count: int, *, unlike: bool) -> bool:
    """Whether a null is known for so many coordinates, with scales to divide out or without."""
    return count >= (FEWEST if unlike else 2)


def one_pair(spectra: PairSpectra, i: int) -> PairSpectra:
    """The spectra of one pair of a batch, as a batch of one."""
    parts = {
        field.name: value[i : i + 1]
        for field in fields(spectra)
        if isinstance(value := getattr(spectra, field.name), Tensor)
    }
    return PairSpectra(spectra.d, **parts)
