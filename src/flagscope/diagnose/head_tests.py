"""Tests of how heads overlap: as they are, and with the scales of the stream's coordinates out.

The law of Haar-random spaces holds where all coordinates of the stream are alike. A gain that all
heads share, or coordinates that none of them uses, break it without any head knowing of another. So
the p-value of a test is the larger of two: of the heads as they are, and of the heads with the
scales divided out (`scale_profile`). It is valid where either null is true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from flagscope.diagnose.head_spaces import (
    HeadSpaces,
    largest_of_projector_sum,
    pairwise_overlaps,
)
from flagscope.diagnose.scale_profile import ScaleProfile, scale_profile, without_profile
from flagscope.diagnose._expected_null import cluster_significance, projector_sum_significance
from flagscope.null import Significance, mean_overlap_significance, overlap_significance

# A p-value above this stands as it is: it says of no overlap, and the larger one would not either.
_LOOKED_AT = np.log10(0.2)


@dataclass(frozen=True)
class HeadOverlap:
    """How the heads of a layer overlap, and how far that is from chance.

    Attributes
    ----------
    spaces
        The heads, H of them, each of rank 1 at least.
    total
        Σcos² between all of them, shape (H, H), in the range that their dimensions allow.
    """

    spaces: HeadSpaces
    total: Float[np.ndarray, "H H"]

    @classmethod
    def of(cls, spaces: HeadSpaces, profile: ScaleProfile | None = None) -> HeadOverlap:
        """Measured; of heads that a profile was divided out of, what it took from them is added."""
        ranks = spaces.ranks.tolist()
        total = pairwise_overlaps(spaces).cpu().double().numpy()
        if profile is not None:
            shift = np.array([[profile.shift(p, q) for q in ranks] for p in ranks])
            total = total + np.outer(ranks, ranks) / spaces.d * shift
        return cls(spaces, np.clip(total, 0, np.minimum.outer(ranks, ranks)))

    @property
    def ranks(self) -> list[int]:
        """Of each head."""
        return self.spaces.ranks.tolist()

    @property
    def d(self) -> int:
        """Dimension of the stream."""
        return self.spaces.d

    @cached_property
    def ratios(self) -> Float[np.ndarray, "H H"]:
        """Σcos² over its mean by chance."""
        return self.total * self.d / np.outer(self.ranks, self.ranks)

    @cached_property
    def shares(self) -> Float[np.ndarray, "H H"]:
        """Σcos² over the smaller rank: the mean squared cosine, 1 for copies."""
        return self.total / np.minimum.outer(self.ranks, self.ranks)

    @property
    def mean_ratio(self) -> float:
        """R: the mean over all pairs of heads."""
        return self._mean(range(len(self.ranks)))

    def mean_test(self) -> Significance:
        """Of R."""
        return mean_overlap_significance(self.mean_ratio, self.ranks, self.d)

    def pair_test(self, i: int, j: int) -> Significance:
        """Of two heads alone."""
        p, q = self.ranks[i], self.ranks[j]
        total = max(float(self.total[i, j]), p + q - self.d, 0)
        return overlap_significance(total, p, q, self.d)

    def cluster_test(self, heads: Sequence[int]) -> Significance:
        """Of the mean overlap of some heads, for the best of all groups of as many."""
        some = [self.ranks[h] for h in heads]
        return cluster_significance(self._mean(heads), some, self.d, count=len(self.ranks))

    def shared_test(self, eigenvalue: float) -> Significance:
        """Of the largest eigenvalue of the sum of projectors that dimension does not force."""
        # Heads of unequal rank are rare (pruned or zeroed ones); the largest rank is the more
        # careful one.
        return projector_sum_significance(eigenvalue, self.d, max(self.ranks), len(self.ranks))

    @property
    def forced(self) -> int:
        """Directions that the dimensions alone put into every head."""
        return max(0, sum(self.ranks) - (len(self.ranks) - 1) * self.d)

    def _mean(self, heads: Sequence[int]) -> float:
        block = self.ratios[np.ix_(heads, heads)]
        return float(block[np.triu_indices(len(block), 1)].mean())


DividedHeads = Callable[[], tuple[HeadSpaces, ScaleProfile] | None]


def own_profile(spaces: HeadSpaces) -> tuple[HeadSpaces, ScaleProfile] | None:
    """Heads without the scales that they have in common, and those scales."""
    return without_shared_profile(spaces, [spaces])


def without_shared_profile(
    spaces: HeadSpaces, pool: Sequence[HeadSpaces]
) -> tuple[HeadSpaces, ScaleProfile] | None:
    """Heads without the scales of the pool that they are part of; None where none are open."""
    profile = scale_profile(pool)
    if profile is None:
        return None
    return without_profile(spaces, profile), profile


class HeadTests:
    """Both tests of each kind, the second one only where the first gives a reason to look.

    Parameters
    ----------
    overlap
        The heads as they are.
    divided
        Gives them with the scales of the coordinates divided out, and the profile; called once at
        most.
    """

    def __init__(self, overlap: HeadOverlap, divided: DividedHeads) -> None:
        self._raw, self._make = overlap, divided

    @cached_property
    def _divided(self) -> HeadOverlap | None:
        made = self._make()
        # A head with nothing left is one that the profile is all of.
        if made is None or bool((made[0].ranks == 0).any()):
            return None
        return HeadOverlap.of(*made)

    def profile_of_mean(self, raw: Significance) -> float | None:
        """Log10 p of R with the scales divided out; None where nobody needs to look.

        A mean on the other side of chance than that of the heads as they are bears nothing out.
        """
        return self._looked_at(raw, lambda heads: _same_side(heads.mean_test(), raw))

    def pair(self, i: int, j: int) -> float | None:
        """The larger log10 p of two heads."""
        raw = self._raw.pair_test(i, j)
        return larger(
            raw.log10_p,
            self._looked_at(raw, lambda heads: _same_side(heads.pair_test(i, j), raw)),
        )

    def cluster(self, heads: Sequence[int]) -> float | None:
        """The larger log10 p of a group of heads."""
        raw = self._raw.cluster_test(heads)
        again = self._looked_at(raw, lambda view: view.cluster_test(heads).log10_p)
        return larger(raw.log10_p, again)

    def shared(self, eigenvalue: float) -> float | None:
        """The larger log10 p of the largest free eigenvalue of the sum of projectors."""
        raw = self._raw.shared_test(eigenvalue)
        again = self._looked_at(raw, _largest_eigenvalue)
        return larger(raw.log10_p, again)

    def _looked_at(
        self, raw: Significance, test: Callable[[HeadOverlap], float | None]
    ) -> float | None:
        if raw.log10_p is None or raw.log10_p > _LOOKED_AT:
            return None
        # Where the profile leaves the heads no freedom, it explains all that they share.
        return 0.0 if self._divided is None else test(self._divided) or 0.0


def larger(one: float | None, two: float | None) -> float | None:
    """The larger of two logarithms of p-values; the first where there is no second."""
    return one if one is None or two is None else max(one, two)


def _same_side(again: Significance, raw: Significance) -> float | None:
    if again.z is None or raw.z is None or again.z * raw.z < 0:
        return None
    return again.log10_p


def _largest_eigenvalue(heads: HeadOverlap) -> float | None:
    value = largest_of_projector_sum(heads.spaces, forced=heads.forced)
    return None if value is None else heads.shared_test(value).log10_p

