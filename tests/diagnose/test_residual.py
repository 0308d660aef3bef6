"""Pairs of prepared maps are the pairs of the maps themselves."""

import pytest
import torch

from diagnose.planted import assert_record, pair_group, record
from flagscope.diagnose import residual_record
from flagscope.geometry import RankRule, prepared_map
from flagscope.null import storage_noise
from geometry.planted import haar, matrices, normal, with_values


def prepared_record(w1, w2, *, delta=0.0, rank="participation"):
    rule = RankRule.parse(rank)
    sides = matrices(w1[None], delta), matrices(w2[None], delta)
    calls = []

    def side(i):
        def again():
            calls.append(i)
            return sides[i]

        return again

    write, read = (prepared_map(side(i), read=bool(i), rule=rule) for i in (0, 1))
    found = residual_record(pair_group(w1[None], w2[None]), write, read, rule=rule)
    return found, calls


def agree(one, two, *, rel=1e-9):
    for (name, a), (_, b) in zip(one, two, strict=True):
        if isinstance(a, float):
            assert b == pytest.approx(a, rel=rel, abs=1e-12), name
        elif name in ("cosines", "profile") and isinstance(a, list):
            torch.testing.assert_close(
                torch.tensor(b), torch.tensor(a), rtol=1e-5, atol=1e-7, msg=name
            )
        elif name == "overlap_test" and a is not None:
            agree(a, b, rel=rel)
        elif name not in ("functional", "incidence", "null", "cosines", "balanced"):
            assert a == b, name


@pytest.mark.parametrize(
    "shape", [(20, 9, 30), (20, 40, 30), (20, 20, 5), (20, 3, 4), (1, 2, 3), (300, 300, 500)]
)
def test_a_prepared_pair_has_the_record_of_the_pair(shape):
    d, m1, m2 = shape
    w1, w2 = normal(d, m1, seed=1), normal(m2, d, seed=2)
    found, _ = prepared_record(w1, w2)
    agree(record(w1, w2), found)


def test_extreme_scales_and_low_ranks_too():
    w1 = with_values(30, 20, [3.0, 2.0, 1.0], seed=1) * 1e-170
    w2 = with_values(25, 30, [1.0, 0.8, 0.5, 0.2], seed=3) * 1e150
    found, _ = prepared_record(w1, w2)
    direct = record(w1, w2)
    assert found.functional == direct.functional
    assert (found.rank_write, found.rank_read) == (3, 4)
    agree(direct, found)


def single(w1, w2):
    """The record by way of single precision, and that of the same float32 maps in double."""
    w1, w2 = w1.float(), w2.float()
    return *prepared_record(w1, w2), record(w1.double(), w2.double())


@pytest.mark.parametrize("sizes", [(520, 900, 700), (520, 520, 520), (520, 700, 300)])
def test_single_precision_gives_the_record_of_double(sizes):
    d, m1, m2 = sizes
    found, calls, exact = single(normal(d, m1, seed=1), normal(m2, d, seed=2))
    assert calls == [0, 1]  # the maps were not needed again
    if sizes == (520, 520, 520):
        # Two spaces of 260 dimensions: the rounding of float32 is as near as chance brings them.
        assert (found.intersection_exact, exact.intersection_exact) == (None, 0)
        assert found.intersection_status.startswith("cannot be tested: chance brings a cosine")
        exact = exact.model_copy(update={"intersection_exact": None})
    # By chance the overlap ratio varies by 3e-3 here, C and ν by 4e-3, ρ by 2e-3.
    assert_record(found, exact, within=2e-6)
    mine, double = found.functional, exact.functional
    assert mine.product_effective_rank == pytest.approx(double.product_effective_rank, rel=1e-5)
    assert (mine.product_rank, mine.product_spectrum) == (double.product_rank, None)
    assert found.cosines.top == pytest.approx(exact.cosines.top, abs=3e-6)


def test_single_precision_knows_small_singular_values_and_leaves_open_what_they_hide():
    d = 520
    w2 = normal(600, d, seed=2)
    values = torch.linspace(1, 0.2, d).tolist()
    values[-3:] = 1e-4, 2e-5, 2e-6
    found, _, exact = single(with_values(d, 700, values, seed=1), w2)
    assert found.rank_write == exact.rank_write == d
    assert found.kernel_intersection == 0
    low = with_values(d, 700, values[:-5], seed=1)
    found, _, exact = single(low, w2)
    assert found.rank_write == exact.rank_write == d - 5
    assert found.functional.product_rank == d - 5
    # Half of the directions on either side: whether they meet no bound can tell.
    half = torch.linspace(1, 0.5, d // 2).tolist()
    found, _, _ = single(with_values(d, 600, half, seed=3), with_values(600, d, half, seed=5))
    assert found.rank_write == found.rank_read == d // 2
    assert found.kernel_intersection is None
    assert found.functional.product_rank is None


def test_a_planted_intersection_is_found_in_single_precision():
    d, strong, shared = 520, 300, 100
    values = torch.cat([torch.linspace(2, 1, strong), torch.linspace(0.1, 0.05, d - strong)])
    basis, mix = haar(1, d, d, seed=5)[0], haar(1, strong, strong, seed=7)[0]
    # The strong space of the other map holds 100 directions of the first, in general position.
    other = torch.linalg.qr(torch.cat([basis[:, :shared], normal(d, d - shared, seed=6)], 1)).Q
    other = torch.cat([other[:, :strong] @ mix, other[:, strong:]], dim=1)
    turned = torch.cat([basis[:, :strong] @ mix.mT, basis[:, strong:]], dim=1)
    w1, w2 = (turned * values).float(), (other * values).mT.float()
    noise = max(float(storage_noise(w).delta) for w in (w1, w2))
    for left in (0, 10):  # left out of either strong space, in general position
        found, _ = prepared_record(w1, w2, delta=noise, rank=f"fixed:{strong - left}")
        forced = 2 * (strong - left) - d
        assert found.intersection_exact == shared - 2 * left - forced


@pytest.mark.parametrize(("fault", "words"), [(float("nan"), "not finite"), (0.0, "all zero")])
def test_a_faulty_map_gives_a_status(fault, words):
    w1, w2 = torch.full((6, 4), fault, dtype=torch.float64), normal(5, 6, seed=1)
    found, _ = prepared_record(w1, w2)
    assert words in found.status
    assert found.overlap_ratio is None
    found, _ = prepared_record(w2.mT, w1.mT)
    assert words in found.status
