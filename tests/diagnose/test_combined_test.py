"""The combined test of an overlap: its shares of the level, and what it finds."""

from itertools import product

import numpy as np
import pytest
import torch

import reference
from diagnose.planted import records
from flagscope.diagnose.combined_test import combined_overlap, ranks_to_test
from flagscope.null import overlap_significance
from geometry.planted import haar, normal


@pytest.mark.parametrize("d", [1, 2, 3, 8, 9, 64])
def test_shares_of_the_level_in_every_case(d):
    """They sum to 1, leave out what has no freedom, and are those of the specification."""
    extents = sorted({1, max(1, d // 2), d})
    for numerical in product(extents, repeat=2):
        for dominant in product({0, 1, *numerical}, repeat=2):
            if max(dominant[0] - numerical[0], dominant[1] - numerical[1]) > 0:
                continue
            participation = max(1, numerical[0] // 2), max(1, round(0.8 * numerical[1]))
            ranks = {"dominant": dominant, "numerical": numerical, "participation": participation}
            found = ranks_to_test(**ranks, d=d)
            assert found == pytest.approx(reference.level_shares(**ranks, d=d))
            if not found:
                assert d == 1
                continue
            assert sum(found.values()) == pytest.approx(1, rel=1e-12)
            assert min(found.values()) > 0
            assert all(0 < rank < d for pair in found for rank in pair)
            assert all(i <= numerical[0] and j <= numerical[1] for i, j in found)
            if min(dominant) > 0 and max(dominant) < d:
                assert found[dominant] >= 0.5


def test_maps_of_rank_zero_have_nothing_to_test():
    nothing = {"dominant": (0, 0), "numerical": (0, 4), "participation": (0, 2)}
    assert ranks_to_test(**nothing, d=8) == {}
    assert combined_overlap(torch.eye(4), {}, 8) is None


def test_the_strongest_ranks_and_each_test_by_itself():
    """Three directions at cosine .6 among eight, each test by the law of its ranks."""
    cosines = torch.diag(torch.tensor([0.6] * 3 + [0.0] * 5, dtype=torch.float64))
    shares = {(1, 1): 0.2, (3, 5): 0.4, (8, 8): 0.4}
    found = combined_overlap(cosines, shares, 96)
    exact = {
        (i, j): overlap_significance(0.36 * min(i, 3), i, j, 96).log10_p - np.log10(share)
        for (i, j), share in shares.items()
    }
    assert found.single == pytest.approx(exact)
    assert found.ranks == (3, 5) == min(exact, key=exact.__getitem__)
    assert found.overlap_ratio == pytest.approx(0.36 * 96 / 5)
    assert min(exact.values()) > found.log10_p > min(exact.values()) - np.log10(2)


# Power


def share_below(found, level=0.01):
    return np.mean([one.p < level for one in found])


def outliers(draws, d, count, *, strength, seed):
    """Square Gaussian maps with common outliers of this strength, in units of √d."""
    w1, w2 = normal(draws, d, d, seed=seed), normal(draws, d, d, seed=seed + 1)
    common, a, b = (haar(draws, d, count, seed=seed + k) for k in (2, 3, 4))
    size = strength * d**0.5
    return w1 + size * common @ a.mT, w2 + size * b @ common.mT


def test_common_outliers_of_square_maps_are_found():
    """Of two full-rank maps in R^256; at participation ranks alone none of them is."""
    draws = 60
    found = records(*outliers(draws, 256, 3, strength=1.5, seed=10), rank="signal")
    assert share_below(found) >= 0.95
    alone = [
        reference.beta_log10_p(
            one.overlap_ratio * one.effective_rank_write * one.effective_rank_read / 256,
            one.effective_rank_write, one.effective_rank_read, 256,
        )
        for one in records(*outliers(draws, 256, 3, strength=1.5, seed=10))
    ]  # fmt: skip
    assert np.mean(np.array(alone) < -2) < 0.1


def test_a_diffuse_alignment_below_the_bulk_is_found():
    """W2 = W1ᵀ and noise: no direction stands out, and the participation ranks have power."""
    draws, d = 60, 128
    w1 = normal(draws, d, d, seed=20)
    w2 = w1.mT + 2.2 * normal(draws, d, d, seed=21)
    found = records(w1, w2, rank="signal")
    alone = [
        reference.beta_log10_p(
            reference.total_overlap(
                reference.left_space(a, reference.effective_rank(a)),
                reference.right_space(b, reference.effective_rank(b)),
            ),
            reference.effective_rank(a), reference.effective_rank(b), d,
        )
        for a, b in zip(w1.numpy(), w2.numpy(), strict=True)
    ]  # fmt: skip
    assert np.mean(np.array(alone) < -2) > 0.9
    assert np.mean([one.effective_rank_write == 0 for one in found]) > 0.9
    assert share_below(found) >= np.mean(np.array(alone) < -2) - 0.05
    # Where the test rejects, the words do not say that there is nothing.
    for one in found:
        assert one.p > 0.05 or "overlap" in one.dominant


def planted_directions(draws, d, p, q, count, cosine, *, seed):
    """Thin flat maps of dimensions p and q with `count` principal cosines of this size."""
    q_ = haar(draws, d, p + count, seed=seed)
    v, extra = q_[..., :p], q_[..., p:]
    first = cosine * v[..., :count] + (1 - cosine**2) ** 0.5 * extra
    planes = torch.cat([v[..., :count], extra], -1) if cosine < 1 else v[..., :count]
    rest = normal(draws, d, q - count, seed=seed + 1)
    rest = torch.linalg.qr(rest - planes @ (planes.mT @ rest)).Q
    s, t = (1 + 0.1 * torch.rand(r, generator=torch.Generator().manual_seed(r)).double()
            for r in (p, q))  # fmt: skip
    w1 = (v * s) @ haar(draws, p + 4, p, seed=seed + 2).mT
    w2 = haar(draws, q + 3, q, seed=seed + 3) @ (torch.cat([first, rest], -1) * t).mT
    return w1, w2


@pytest.mark.parametrize(
    ("shape", "count", "cosine"),
    [((64, 8, 8), 1, 0.99), ((64, 8, 8), 3, 0.9), ((64, 8, 24), 3, 0.95), ((256, 32, 32), 3, 0.95)],
)
def test_planted_directions_of_thin_maps_cost_little(shape, count, cosine):
    """Against the test at the whole ranges alone, which flat spectra have the most power with."""
    d, p, q = shape
    w1, w2 = planted_directions(60, d, p, q, count, cosine, seed=30)
    alone = []
    for a, b in zip(w1.numpy(), w2.numpy(), strict=True):
        total = reference.total_overlap(reference.left_space(a, p), reference.right_space(b, q))
        alone.append(reference.beta_log10_p(total, p, q, d))
    power = np.mean(np.array(alone) < -2)
    assert share_below(records(w1, w2, rank="signal")) >= power - 0.1
