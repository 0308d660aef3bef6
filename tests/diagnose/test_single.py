"""Pairs within a block, in single precision: the record is that of double."""

import math

import pytest
import torch

from diagnose.planted import assert_record, record
from geometry.planted import with_values

# Most directions of like size, a few far below: the condition is 50.
TAIL = [*torch.linspace(1, 0.3, 490).tolist(), *torch.linspace(0.1, 0.02, 30).tolist()]


@pytest.fixture
def solved(monkeypatch):
    """(type, size) of every eigenproblem with vectors."""
    seen = []
    solve = torch.linalg.eigh

    def watched(a, *args, **options):
        seen.append((a.dtype, a.shape[-1]))
        return solve(a, *args, **options)

    monkeypatch.setattr(torch.linalg, "eigh", watched)
    return seen


def compared(w1, w2, solved, *, freedom="none"):
    """The record of float32 maps, that of the same maps in double, eigenproblems of the first."""
    w1, w2 = w1.float(), w2.float()
    solved.clear()
    found = record(w1, w2, freedom=freedom)
    problems = list(solved)
    return found, record(w1.double(), w2.double(), freedom=freedom), problems


@pytest.mark.parametrize("freedom", ["none", "scaling"])
@pytest.mark.parametrize("tails", [(False, False), (True, False), (True, True)])
def test_maps_of_some_condition_have_the_record_of_double(tails, freedom, solved):
    d, m = 1400, 520
    flat = torch.linspace(1, 0.3, m).tolist()
    w1, w2 = (
        with_values(d, m, TAIL if tail else flat, seed=seed)
        for seed, tail in zip((1, 3), tails, strict=True)
    )
    found, exact, problems = compared(w1, w2.mT, solved, freedom=freedom)
    # Large problems in float32 alone; of float64 only those of the few small directions.
    assert all(dtype == torch.float32 or size <= 80 for dtype, size in problems)
    assert_record(found, exact, within=4e-6)
    mine, double = found.functional, exact.functional
    assert mine.product_effective_rank == pytest.approx(double.product_effective_rank, rel=1e-5)
    assert mine.product_spectrum.top == pytest.approx(double.product_spectrum.top, rel=1e-5)
    assert found.cosines.top == pytest.approx(exact.cosines.top, abs=1e-5)
    if freedom == "scaling":
        for name, value in exact.balanced:
            mine = getattr(found.balanced, name)
            if isinstance(value, float):
                assert mine == pytest.approx(value, rel=1e-4, abs=1e-3), name


@pytest.mark.parametrize("conditions", [(1e4, 5), (400, 400), (1e4, 1e4)])
def test_maps_that_single_precision_cannot_tell_are_solved_in_double(conditions, solved):
    w1, w2 = (
        with_values(1400, 520, torch.logspace(0, -math.log10(one), 520).tolist(), seed=seed)
        for seed, one in zip((1, 3), conditions, strict=True)
    )
    found, exact, problems = compared(w1, w2.mT, solved)
    assert (torch.float64, 520) in problems
    assert (found.rank_write, found.rank_read) == (exact.rank_write, exact.rank_read) == (520, 520)
    assert found.overlap_ratio == pytest.approx(exact.overlap_ratio, abs=1e-5)
    # Singular values of the product far below what cosines in float32 tell.
    assert found.functional.product_rank == exact.functional.product_rank == 520
    assert found.kernel_intersection == exact.kernel_intersection == 0
    least = [one.functional.product_spectrum.quantiles[0][1] for one in (found, exact)]
    assert least[0] == pytest.approx(least[1], rel=1e-4)
