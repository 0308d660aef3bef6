"""Spaces of heads: ranks under storage noise, and overlaps by either product."""

import pytest
import torch

from flagscope.geometry import head_spaces, pairwise_overlaps, squared_overlaps
from geometry.planted import normal


def test_storage_noise_lowers_ranks():
    maps = normal(3, 6, 30, seed=1)
    maps[1, 5] = maps[1, :5].sum(0) + 1e-4 * normal(30, seed=2)
    assert head_spaces(maps).ranks.tolist() == [6, 6, 6]
    noise = torch.full((3,), 1e-2, dtype=torch.float64)
    assert head_spaces(maps, noise=noise).ranks.tolist() == [6, 5, 6]


@pytest.mark.parametrize(("count", "d", "r"), [(40, 6, 5), (3, 40, 4), (30, 12, 9)])
def test_pairwise_overlaps_by_either_product(count, d, r):
    # Small d takes projectors, large d stacked bases; small slabs must not matter.
    spaces = head_spaces(normal(count, r, d, seed=1))
    exact = torch.tensor([[(a.mT @ b).square().sum() for b in spaces.bases] for a in spaces.bases])
    torch.testing.assert_close(pairwise_overlaps(spaces), exact.double(), rtol=1e-6, atol=1e-6)
    whole = pairwise_overlaps(spaces)
    small = squared_overlaps(spaces.bases.mT, slab=4000)
    torch.testing.assert_close(small, whole, rtol=1e-12, atol=1e-12)
