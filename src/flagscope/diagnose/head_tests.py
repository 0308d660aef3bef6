"""Tests of how heads overlap: as they are, and with the scales of the stream's coordinates out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from flagscope.diagnose.second_look import larger_log10_p, needs_second_look, second_log10_p
from flagscope.geometry import (
    DividedSpaces,
    HeadSpaces,
    ScaleProfile,
    eigenvalue_error,
    largest_of_projector_sum,
    pairwise_overlaps,
)
from flagscope.null import (
    Significance,
    cluster_significance,
    mean_overlap_significance,
    overlap_significance,
    projector_sum_significance,
)


@dataclass(frozen=True)
class HeadOverlap:
    """How the heads of a layer overlap, and how far that is from chance.

    Attributes
    ----------
    spaces
        The heads, H of them, each of rank 1 at least.
    total
        Σcos² between all of them, shape (H, H), in the range that their dimensions allow.
    profile
        What was divided out of them, if anything.
    """

    spaces: HeadSpaces
    total: Float[np.ndarray, "H H"]
    profile: ScaleProfile | None = None

    @classmethod
    def of(cls, spaces: HeadSpaces, profile: ScaleProfile | None = None) -> HeadOverlap:
        """Measured; of heads that a profile was divided out of, what it took from them is added."""
        ranks = spaces.ranks.tolist()
        total = pairwise_overlaps(spaces).cpu().double().numpy()
        if profile is not None:
            shift = np.array([[profile.shift(p, q) for q in ranks] for p in ranks])
            total = total + np.outer(ranks, ranks) / spaces.d * shift
        return cls(spaces, np.clip(total, 0, np.minimum.outer(ranks, ranks)), profile)

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
        """Of the mean overlap of some heads, for the best of all groups."""
        some = [self.ranks[h] for h in heads]
        return cluster_significance(self._mean(heads), some, self.d, heads=len(self.ranks))

    def shared_test(self, eigenvalue: float) -> Significance:
        """Of the largest eigenvalue of the sum of projectors that dimension does not force."""
        # Heads of unequal rank are rare (pruned or zeroed ones); the largest rank is the more
        # careful one. The eigenvalue is known to the error of float32: without that taken off, an
        # angle between two heads that fill the stream would pass for 0.
        error = eigenvalue_error(min(self.d, sum(self.ranks)))
        return projector_sum_significance(
            max(eigenvalue - error, 0.0), self.d, max(self.ranks), len(self.ranks)
        )

    @property
    def forced(self) -> int:
        """Directions that the dimensions alone put into every head."""
        return max(0, sum(self.ranks) - (len(self.ranks) - 1) * self.d)

    def _mean(self, heads: Sequence[int]) -> float:
        block = self.ratios[np.ix_(heads, heads)]
        return float(block[np.triu_indices(len(block), 1)].mean())


# Gives the heads with the scales of the coordinates divided out; None where these do not differ.
DividedHeads = Callable[[], DividedSpaces | None]


class HeadTests:
    """Both tests of each kind, the second one only where the first gives a reason to look.

    Parameters
    ----------
    overlap
        The heads as they are.
    divided
        Gives them with the scales of the coordinates divided out, None where these do not differ;
        called once at most.
    """

    def __init__(self, overlap: HeadOverlap, divided: DividedHeads) -> None:
        self._raw, self._make = overlap, divided

    @cached_property
    def _divided(self) -> HeadOverlap | None:
        made = self._make()
        return None if made is None else HeadOverlap.of(made.spaces, made.profile)

    def second(
        self, raw: Significance, test: Callable[[HeadOverlap], Significance | None]
    ) -> float | None:
        """Log10 p of a test taken again; None where there is no reason to."""
        if not needs_second_look(raw) or self._divided is None:
            return None
        return second_log10_p(raw, test(self._divided))

    def pair(self, i: int, j: int) -> float | None:
        """The larger log10 p of two heads."""
        return self._larger(lambda heads: heads.pair_test(i, j))

    def cluster(self, heads: Sequence[int]) -> float | None:
        """The larger log10 p of a group of heads."""
        return self._larger(lambda view: view.cluster_test(heads))

    def shared(self, eigenvalue: float) -> float | None:
        """The larger log10 p of the largest free eigenvalue of the sum of projectors."""
        raw = self._raw.shared_test(eigenvalue)
        return larger_log10_p(raw, self.second(raw, _largest_eigenvalue_test))

    def _larger(self, test: Callable[[HeadOverlap], Significance]) -> float | None:
        raw = test(self._raw)
        return larger_log10_p(raw, self.second(raw, test))


def _largest_eigenvalue_test(heads: HeadOverlap) -> Significance | None:
    value = largest_of_projector_sum(heads.spaces, forced=heads.forced)
    if value is None:
        return None
    if heads.profile is not None:
        shift = heads.profile.eigenvalue_shift(value, heads.ranks)
        value = min(value + shift, len(heads.ranks))
    return heads.shared_test(value)
