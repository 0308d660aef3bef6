"""Pairs of prepared maps are the pairs of the maps themselves."""

import pytest
import torch

from diagnose.planted import matrices, normal, pair_group, record, with_values
from flagscope.diagnose import prepared_map, residual_record
from flagscope.diagnose.values import ARRAY_LIMIT


def prepared_record(w1, w2, *, delta=0.0):
    sides = matrices(w1[None], delta), matrices(w2[None], delta)
    calls = []

    def side(i):
        def again():
            calls.append(i)
            return sides[i]

        return again

    maps = prepared_map(side(0), read=False), prepared_map(side(1), read=True)
    found = residual_record(pair_group(w1[None], w2[None]), *maps)
    return found, calls


def agree(one, two, *, rel=1e-9):
    for (name, a), (_, b) in zip(one, two, strict=True):
        if isinstance(a, float):
            assert b == pytest.approx(a, rel=rel, abs=1e-12), name
        elif name in ("cosines", "profile") and isinstance(a, list):
            torch.testing.assert_close(
                torch.tensor(b), torch.tensor(a), rtol=1e-5, atol=1e-7, msg=name
            )
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


def test_from_512_on_the_product_comes_from_its_gram_and_says_what_it_cannot_tell():
    d = 520
    w1, w2 = normal(d, d, seed=1), normal(d, d, seed=2)
    found, calls = prepared_record(w1, w2)
    assert calls == [0, 1]  # the maps were not needed again
    direct = record(w1, w2)
    agree(direct, found.model_copy(update={"kernel_intersection": direct.kernel_intersection}))
    mine, exact = found.functional, direct.functional
    assert d > ARRAY_LIMIT
    assert mine.product_effective_rank == pytest.approx(exact.product_effective_rank)
    assert mine.product_spectrum.top == pytest.approx(exact.product_spectrum.top, rel=1e-5)
    for (_, one), (_, two) in zip(
        mine.product_spectrum.quantiles[1:], exact.product_spectrum.quantiles[1:], strict=True
    ):
        assert one == pytest.approx(two, rel=1e-4)
    # A direction that W2 W1 loses beside a full spectrum cannot be told from a small one.
    u, s, v = torch.linalg.svd(w1)
    s[-1] = s[0] * 1e-6
    narrow, _ = prepared_record(u @ torch.diag(s) @ v, w2)
    assert narrow.rank_write == d
    assert narrow.kernel_intersection is None
    s[4:] = 0
    low, _ = prepared_record(u @ torch.diag(s) @ v, w2)
    assert (low.rank_write, low.kernel_intersection) == (4, 0)


@pytest.mark.parametrize(("fault", "words"), [(float("nan"), "not finite"), (0.0, "all zero")])
def test_a_faulty_map_gives_a_status(fault, words):
    w1, w2 = torch.full((6, 4), fault, dtype=torch.float64), normal(5, 6, seed=1)
    found, _ = prepared_record(w1, w2)
    assert words in found.status
    assert found.overlap_ratio is None
    found, _ = prepared_record(w2.mT, w1.mT)
    assert words in found.status
