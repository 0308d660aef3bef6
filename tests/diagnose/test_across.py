"""Overlaps of heads of unlike ranks, in standard deviations by chance."""

import numpy as np
import pytest

from flagscope.diagnose.across import overlap_scores
from flagscope.null import haar_overlap


@pytest.mark.parametrize("ranks", [[3, 3, 3], [2, 4, 2, 4], [1, 2, 5, 2], [6, 8, 8]])
def test_scores_are_those_of_each_pair_of_ranks(ranks):
    d, count = 8, len(ranks)
    squared = np.random.default_rng(0).uniform(0, 2, (count, count))
    found = overlap_scores(squared, ranks, d)
    for i, p in enumerate(ranks):
        for j, q in enumerate(ranks):
            null = haar_overlap(p, q, d)
            free = null.sd > 0
            expected = (squared[i, j] - null.mean) / null.sd if free else 0.0
            assert found[i, j] == pytest.approx(expected), (p, q)
