"""Exact intersections: none by chance, planted ones found, and words where nothing can be said."""

import pytest
import torch

from diagnose.planted import pair_group, record
from flagscope.diagnose import pair_records
from flagscope.diagnose.position import dominant_position
from flagscope.geometry import Matrices, NoisyMap, RankRule
from flagscope.null import count_beyond_chance, storage_noise
from geometry.planted import haar, normal

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def stored(w1, w2, dtype, rank):
    """Records of maps as they are stored in this type, with its noise."""
    w1, w2 = w1.to(dtype), w2.to(dtype)
    sides = []
    for w in (w1, w2):
        noise = storage_noise(w)
        sides.append(Matrices(w.double(), noise.delta, noise.mean_square))
    group = pair_group(sides[0].values, sides[1].values)
    return pair_records(group, *sides, rule=RankRule.parse(rank))


def flat(draws, rows, columns, rank, *, seed):
    left, right = haar(draws, rows, rank, seed=seed), haar(draws, columns, rank, seed=seed + 1)
    return left @ right.mT


@pytest.mark.parametrize(("r1", "r2"), [(3, 5), (5, 3)])
@pytest.mark.parametrize("error", [1e-9, -1e-9])
def test_rounding_carries_no_overlap_past_what_the_dimensions_allow(r1, r2, error):
    """One space within the other, and two of 5 and 6 dimensions in R^8, of which 3 are shared."""
    sides = [
        NoisyMap((d, d), torch.ones(d).double(), 1e-12, 1e-16, lambda d=d: torch.eye(d).double())
        for d in (8, 12)
    ]
    inside = (1 + error) * torch.eye(12, dtype=torch.float64)
    found = dominant_position(sides[1], sides[1], inside, r1, r2)
    assert found.overlap == (3 if error > 0 else pytest.approx(3, abs=1e-8))
    apart = (1 + error) * torch.eye(8, dtype=torch.float64).flip(0)
    found = dominant_position(sides[0], sides[0], apart, 5, 6)
    assert found.overlap == (3 if error < 0 else pytest.approx(3, abs=1e-8))


NULLS = [
    *((dtype, "square", rank)
      for dtype in (torch.bfloat16, torch.float16, torch.float32)
      for rank in ("participation", "numerical", "fixed:40")),
    *((torch.bfloat16, shape, "participation") for shape in ("wide", "tall")),
    *((dtype, "rank 30", rank)
      for dtype in (*FLOAT8, torch.bfloat16)
      for rank in ("numerical", "fixed:30", "participation")),
    *((dtype, "rank 20", "fixed:20") for dtype in (*FLOAT8, torch.bfloat16)),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "shape", "rank"), NULLS, ids=str)
def test_null_maps_in_low_precision_share_nothing_exactly(dtype, shape, rank):
    draws, d = 40, 64
    if shape == "square":
        w1, w2 = normal(draws, 2 * d, d, seed=1), normal(draws, d, 2 * d, seed=2)
    elif shape in ("wide", "tall"):
        m = 4 * d if shape == "wide" else d // 2
        w1, w2 = normal(draws, d, m, seed=3), normal(draws, m, d, seed=4)
    else:
        count = int(shape.split()[1])
        w1, w2 = flat(draws, d, d, count, seed=5), flat(draws, d, d, count, seed=7)
    for one in stored(w1, w2, dtype, rank):
        assert one.intersection_exact in (0, None)
        # Nothing starts from a count that is not exact: at most what the 1 % level gives itself.
        if one.intersection_exact is None and one.intersection_beyond_chance:
            assert one.intersection_beyond_chance <= counted(one)
        assert (one.intersection_status == "ok") == (
            one.intersection_exact is not None and one.intersection_beyond_chance is not None
        )


def counted(one):
    cosines = one.cosines if isinstance(one.cosines, list) else one.cosines.top
    full = [min(c, 1.0) for c in cosines]
    ranks = one.effective_rank_write, one.effective_rank_read
    full += [0.0] * (min(ranks) - len(full))
    forced = max(0, sum(ranks) - one.d)
    return count_beyond_chance(full, *ranks, one.d, level=0.01, exact=forced) or 0


def planted(draws, d, p, q, count, *, seed):
    """Spaces of dimensions p and q that meet in `count` directions, with nearly flat values."""
    basis = haar(draws, d, p + q - count, seed=seed)
    first, second = basis[..., :p], torch.cat([basis[..., :count], basis[..., p:]], -1)
    mix = [haar(draws, r, r, seed=seed + r) for r in (p, q)]
    spread = [1 + 0.1 * torch.rand(r, generator=torch.Generator().manual_seed(r)).double()
              for r in (p, q)]  # fmt: skip
    w1 = (first @ mix[0] * spread[0]) @ haar(draws, 2 * p, p, seed=seed + 1).mT
    w2 = haar(draws, 2 * q, q, seed=seed + 2) @ (second @ mix[1] * spread[1]).mT
    return w1, w2


@pytest.mark.parametrize(
    ("dtype", "shape", "count"),
    [
        (torch.float32, (64, 8, 8), 3),
        (torch.float32, (64, 12, 20), 1),
        (torch.float32, (256, 32, 32), 5),
        (torch.bfloat16, (256, 4, 4), 2),
        (torch.bfloat16, (512, 8, 8), 3),
        (torch.float16, (256, 8, 8), 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("rank", ["numerical", "fixed"])
def test_planted_exact_intersections_are_found(dtype, shape, count, rank):
    d, p, q = shape
    if rank == "fixed":
        q = p
        rank = f"fixed:{p}"
    for one in stored(*planted(6, d, p, q, count, seed=11), dtype, rank):
        assert (one.effective_rank_write, one.effective_rank_read) == (p, q)
        assert (one.intersection_exact, one.intersection_beyond_chance) == (count, count)
        assert one.intersection_status == "ok"


def test_every_status_of_an_intersection():
    forced = record(normal(10, 10, seed=1), normal(7, 10, seed=2), rank="numerical")
    assert forced.intersection_status == (
        "cannot be tested: the dimensions force every cosine to 1"
    )
    # Spaces of half of the dimensions come to a cosine of .99999 by chance.
    near = record(normal(64, 32, seed=1), normal(32, 64, seed=2), rank="numerical", delta=1e-9)
    assert near.intersection_status.startswith("cannot be tested: chance brings a cosine to")
    assert (near.intersection_exact, near.intersection_beyond_chance) == (0, None)
    # A gap at the edge that rounding closes.
    q = haar(1, 30, 8, seed=3)[0]
    edge = (q * torch.tensor([2.0, 2, 2, 1.001, 1, 1, 1, 1], dtype=torch.float64)).contiguous()
    turned = record(edge, normal(4, 30, seed=4), rank="fixed:4", delta=1e-2)
    assert turned.intersection_status.startswith("open: rounding of the stored weights may turn")
    assert turned.intersection_exact is None
    # Storage so coarse that chance comes as near in those dimensions.
    v, u = haar(2, 20, 6, seed=5)
    coarse = record(v, u.mT, rank="numerical", delta=0.1)
    assert coarse.intersection_status.startswith("open: spaces of dimensions 6 and 6 in R^20 come")
    assert "by chance" in coarse.intersection_status
    assert coarse.intersection_exact is None
    fine = record(v, u.mT, rank="numerical", delta=1e-9)
    assert (fine.intersection_exact, fine.intersection_beyond_chance) == (0, 0)
    assert fine.intersection_status == "ok"


def test_a_count_beyond_chance_does_not_start_from_an_open_one():
    """One shared direction where storage leaves open whether it is exact: the count is that of
    the cosines alone, of the 1 % level of the largest."""
    w1, w2 = planted(1, 20, 6, 6, 1, seed=21)
    found = record(w1[0], w2[0], rank="numerical", delta=0.1)
    assert found.intersection_exact is None
    cosines = [min(1.0, c) for c in found.cosines]
    expected = count_beyond_chance(cosines, 6, 6, 20, level=0.01, exact=0)
    assert found.intersection_beyond_chance == expected == 1
    # Of 40 random pairs a 1 % level counts hardly any, though noise hides all their angles.
    null = [
        record(v, u.mT, rank="numerical", delta=0.1)
        for v, u in zip(haar(40, 20, 6, seed=22), haar(40, 20, 6, seed=23), strict=True)
    ]
    assert all(one.intersection_exact is None for one in null)
    assert sum(one.intersection_beyond_chance > 0 for one in null) <= 3


# What stands out, in words


def square(d, count, *, seed):
    """A Gaussian map, with outliers far beyond its bulk if any."""
    left, right = (haar(1, d, max(1, count), seed=seed + k)[0] for k in (0, 1))
    return normal(d, d, seed=seed + 2) + (count > 0) * 4 * d**0.5 * left @ right.mT


@pytest.mark.parametrize(
    ("outliers", "words"),
    [
        ((2, 3), "ok"),
        ((0, 3), "nothing stands out of the bulk of the write map"),
        ((2, 0), "nothing stands out of the bulk of the read map"),
        ((0, 0), "nothing stands out of the bulk of either map"),
    ],
)
def test_words_for_what_stands_out(outliers, words):
    for seed in range(0, 60, 10):
        w1, w2 = (square(48, count, seed=seed + 5 * k) for k, count in enumerate(outliers))
        found = record(w1, w2, rank="signal")
        assert (found.effective_rank_write, found.effective_rank_read) == outliers
        if found.p > 0.05 or words == "ok":
            assert found.dominant == words
        assert (found.overlap_ratio is None) == (words != "ok")
        assert (found.intersection_exact is None) or words == "ok"


def test_nothing_stands_out_never_stands_where_the_test_rejects():
    d = 96
    w1 = normal(20, d, d, seed=1)
    for noise in (1.0, 2.2, 4.0):
        for one, other in zip(w1, w1.mT + noise * normal(20, d, d, seed=2), strict=True):
            found = record(one, other, rank="signal")
            if found.effective_rank_write == 0 or found.effective_rank_read == 0:
                silent = found.dominant.startswith("nothing stands out")
                assert silent == (found.p > 0.05)
                if not silent:
                    i, j = found.overlap_test.rank_write, found.overlap_test.rank_read
                    assert f"leading {i} and {j} overlap" in found.dominant
