"""p-values of records hold their size where the null is true."""

import numpy as np
import pytest
import torch

from diagnose.planted import heads, records
from geometry.planted import haar, normal

DRAWS = 2000
WHERE = ("the write map", "the read map", "either map")


def assert_size(p_values, level):
    """The share of p < level is the level within four binomial standard errors."""
    values = np.array(p_values, dtype=float)
    assert np.isfinite(values).all()
    error = np.sqrt(level * (1 - level) / len(values))
    assert abs((values < level).mean() - level) < 4 * error, (level, (values < level).mean())


def assert_at_most(p_values, level, *, factor=1.0):
    """The share of p < level is at most `factor` times the level within four standard errors."""
    values = np.array(p_values, dtype=float)
    assert np.isfinite(values).all()
    most = factor * level + 4 * np.sqrt(factor * level / len(values))
    assert (values < level).mean() < most, (level, (values < level).mean())


@pytest.fixture(scope="module", params=["gaussian", "spiked", "tall", "signal"])
def null_records(request):
    """Independent pairs: Gaussian maps, decaying spectra turned at random, tall maps; dominant
    spaces by participation ratios, and by what stands out."""
    d = 32
    rank = "signal" if request.param == "signal" else "participation"
    if request.param in ("gaussian", "signal"):
        w1, w2 = normal(DRAWS, d, 48, seed=1), normal(DRAWS, 40, d, seed=2)
    elif request.param == "tall":
        w1, w2 = normal(DRAWS, 48, 12, seed=3), normal(DRAWS, 16, 48, seed=4)
    else:
        # One fixed pair of spectra; only the position is random, and coordinates are alike.
        values = torch.exp(-torch.arange(d, dtype=torch.float64) / 8)
        w1 = haar(DRAWS, d, d, seed=6) * values
        w2 = torch.diag(values.sqrt()) @ haar(DRAWS, d, d, seed=5)
    return records(w1, w2, rank=rank)


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize("name", ["p", "gram_correlation_p", "commutator_p"])
def test_sizes_of_pairs(null_records, name, level):
    assert_size([getattr(one, name) for one in null_records], level)


def test_scale_profiles_cost_size_and_never_add_any():
    """One map is diagonal: all of it is a scale profile, and the other has one by chance."""
    d = 32
    values = torch.exp(-torch.arange(d, dtype=torch.float64) / 8)
    w1 = torch.diag(values).expand(DRAWS, d, d).contiguous()
    found = records(w1, torch.diag(values.sqrt()) @ haar(DRAWS, d, d, seed=5))
    for name in ("p", "gram_correlation_p", "commutator_p"):
        for level in (0.05, 0.01):
            assert_at_most([getattr(one, name) for one in found], level)


def test_intervals_and_moments_of_pairs(null_records):
    ratios = np.array([one.commutator_ratio for one in null_records])
    low, high = np.array([one.null.commutator_ratio_interval for one in null_records]).T
    inside = ((ratios > low) & (ratios < high)).mean()
    assert abs(inside - 0.95) < 4 * np.sqrt(0.05 * 0.95 / DRAWS)
    z = np.array([one.gram_correlation_z for one in null_records])
    assert abs(z.mean()) < 4 / np.sqrt(DRAWS)
    assert abs(z.std() - 1) < 4 * np.sqrt((np.mean(z**4) - 1) / 4 / DRAWS)
    z = np.array([one.overlap_z for one in null_records if one.overlap_z is not None])
    if len(z) == DRAWS:
        assert abs(z.mean()) < 4 / np.sqrt(DRAWS)
    else:
        # Nothing stands out of Gaussian maps, in more than 99 of 100.
        assert len(z) < 0.02 * DRAWS
        assert {one.dominant for one in null_records if one.overlap_z is None} <= {
            *(f"nothing stands out of the bulk of {which}" for which in WHERE)
        } | {one.dominant for one in null_records if one.p <= 0.05}
    defects = np.array([one.commutation_defect for one in null_records])
    expected = np.mean([one.null.commutation_defect for one in null_records])
    assert abs(defects.mean() - expected) < 0.02
    counts = [one.intersection_beyond_chance for one in null_records]
    assert all(
        count is not None or not one.cosines or one.intersection_status != "ok"
        for count, one in zip(counts, null_records, strict=True)
    )
    counted = sum(count is not None and count > 0 for count in counts)
    assert counted < 0.01 * DRAWS + 4 * np.sqrt(0.01 * DRAWS)


def test_sizes_of_heads():
    found = [heads(one) for one in normal(800, 6, 4, 30, seed=7)]
    for level in (0.05, 0.01):
        assert_size([one.p for one in found], level)
    z = np.array([one.z for one in found])
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    # At the 1 % level, which is conservative, of all 15 pairs of heads at once.
    assert np.mean([len(one.near_copies) > 0 for one in found]) < 0.01 + 4 * np.sqrt(0.01 / len(z))
    assert np.mean([one.shared_directions > 0 for one in found]) < 0.01 + 4 * np.sqrt(0.01 / len(z))
