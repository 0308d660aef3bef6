"""Overlaps of heads of unlike ranks, in standard deviations by chance."""

import numpy as np
import pytest

from flagscope.diagnose.across import HeadEntry, overlap_scores, space_overlaps
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


def entries(*ranks):
    return [
        HeadEntry(f"h{i}", layer=0, head=i, rank=rank, status="ok" if rank else "all zero")
        for i, rank in enumerate(ranks)
    ]


@pytest.mark.parametrize(
    ("ranks", "status"),
    [
        ((2, 2), "ok"),
        ((4, 4), "no freedom: the dimensions fix the overlap"),
        ((2, 0, 2), "1 of 3 heads cannot be measured"),
        ((4, 0, 4), "1 of 3 heads cannot be measured"),
        ((3,), "a single head has no other to overlap with"),
    ],
)
def test_the_status_says_what_is_missing(ranks, status):
    size = len(ranks)
    found = space_overlaps(
        entries(*ranks), np.eye(size) * ranks, stack="decoder", attention="self", space="q", d=4,
        form="grams", top=4,
    )  # fmt: skip
    assert found.status == status
