"""Candidates for another order are all exchanges and moves that are short enough, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from flagscope.series.checks import order as module


def _all_changes(order: list[int]) -> set[tuple[int, ...]]:
    size, found = len(order), set()
    for i in range(size):
        for j in range(size):
            moved, swapped = order.copy(), order.copy()
            moved.insert(j, moved.pop(i))
            swapped[i], swapped[j] = swapped[j], swapped[i]
            found |= {tuple(moved), tuple(swapped)}
    return found - {tuple(order)}


@pytest.mark.parametrize("size", [4, 5, 8])
@pytest.mark.parametrize("shuffled", [False, True])
def test_changes_are_those_of_a_search_of_all(size: int, shuffled: bool) -> None:
    rng = np.random.default_rng(size)
    walk = np.cumsum(rng.standard_normal((size, 30)), axis=0)
    far = cdist(walk, walk)
    order = [int(i) for i in rng.permutation(size)] if shuffled else list(range(size))
    wanted = {
        change
        for change in _all_changes(order)
        if module._ratio(far, order, change) <= module.SHORTER
    }
    found = [tuple(change) for change in module._changes(far, order)]
    assert set(found) == wanted
    ratios = [module._ratio(far, order, change) for change in found]
    assert ratios == sorted(ratios)
