"""Sketched commutators: unbiased, with errors that cover, and exact where nothing is left out."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from flagscope.errors import InputError
from flagscope.geometry import sketched_commutator

D = 160


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gram(spectrum, seed):
    q = torch.linalg.qr(torch.randn(D, D, generator=generator(seed), dtype=torch.float64))[0]
    a = (q * spectrum) @ q.T
    return a - a.trace() / D * torch.eye(D, dtype=torch.float64)


def bulk(seed):
    w = torch.randn(D, 4 * D, generator=generator(seed), dtype=torch.float64)
    a = w @ w.T / (4 * D)
    return a - a.trace() / D * torch.eye(D, dtype=torch.float64)


LINE = torch.arange(1, D + 1, dtype=torch.float64)
PAIRS = {
    "flat": lambda: (bulk(1), bulk(2)),
    "decaying": lambda: (gram(LINE**-1.0, 3), gram(LINE**-0.6, 4)),
    "low rank": lambda: (gram((LINE <= 40) * 1.0, 5), gram((LINE <= 60) * 1.0, 6)),
    "nearly commuting": lambda: (gram(LINE**-0.5, 7) + 1e-3 * bulk(1), gram(LINE**-0.7, 7)),
}


def exact(a, b):
    product = a @ b
    commutator = float((product - product.T).square().sum())
    return commutator, commutator / (2 * float(product.square().sum()))


@pytest.mark.parametrize("name", PAIRS)
def test_stated_errors_cover(name):
    """95 % intervals of Student's t, 150 seeds: by chance below .89 in 1 of 2,000 cases."""
    a, b = PAIRS[name]()
    commutator, defect = exact(a, b)
    hits = np.zeros(2)
    for seed in range(150):
        made = sketched_commutator(
            lambda x: a @ x, lambda x: b @ x, D, generator=generator(seed), dtype=torch.float64
        )
        reach = stats.t.ppf(0.975, made.degrees)
        hits += [
            abs(made.commutator - commutator) <= reach * made.commutator_error,
            abs(made.defect - defect) <= reach * made.defect_error,
        ]
    assert (hits / 150 > 0.89).all()


def test_errors_are_those_that_are_seen():
    a, b = PAIRS["flat"]()
    made = [
        sketched_commutator(lambda x: a @ x, lambda x: b @ x, D, generator=generator(seed),
                            dtype=torch.float64)
        for seed in range(100)
    ]  # fmt: skip
    seen = np.std([one.commutator for one in made])
    stated = math.sqrt(np.mean([one.commutator_error**2 for one in made]))
    assert 0.8 < seen / stated < 1.25


def test_low_rank_is_exact():
    basis = torch.linalg.qr(torch.randn(D, 9, generator=generator()))[0].double()
    a, b = basis[:, :5] @ basis[:, :5].T, basis[:, 3:] @ basis[:, 3:].T
    b = b + 0.5 * (a @ torch.ones(D, D).double() @ a)
    made = sketched_commutator(
        lambda x: a @ x, lambda x: b @ x, D, generator=generator(), dtype=torch.float64
    )
    commutator, defect = exact(a, b)
    assert made.commutator == pytest.approx(commutator, rel=1e-10)
    assert made.defect == pytest.approx(defect, rel=1e-10)
    assert made.commutator_error < 1e-10 * commutator


def test_all_directions_leave_no_error_but_rounding():
    a, b = PAIRS["flat"]()
    made = sketched_commutator(
        lambda x: a @ x, lambda x: b @ x, D, generator=generator(), dtype=torch.float64, goal=0
    )
    assert made.degrees == 0
    assert made.commutator == pytest.approx(exact(a, b)[0], rel=1e-11)


def test_more_probes_where_the_goal_asks_for_them():
    a, b = PAIRS["low rank"]()
    few, many = (
        sketched_commutator(lambda x: a @ x, lambda x: b @ x, D, generator=generator(),
                            dtype=torch.float64, goal=goal)
        for goal in (0.1, 0.004)
    )  # fmt: skip
    assert few.degrees == 63 < many.degrees
    assert many.commutator_error < 0.6 * few.commutator_error


def test_matrices_that_commute():
    a = torch.diag(LINE)
    made = sketched_commutator(
        lambda x: a @ x, lambda x: a @ x, D, generator=generator(), dtype=torch.float64
    )
    assert made.commutator == made.defect == 0
    assert made.commutator_error < 1e-28 * made.product


@pytest.mark.parametrize("level", [0.0, 1e-7, 1e-6, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_errors_hold_what_cancellation_leaves(level, dtype):
    """[A, B] of matrices that nearly commute is lost in the round-off of AB and BA."""
    level = level * torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    a = (gram(LINE**-0.5, 7) + level * bulk(1)).to(dtype).to(torch.float64)
    b = gram(LINE**-0.7, 7).to(dtype).to(torch.float64)
    commutator, defect = exact(a, b)
    a, b = a.to(dtype), b.to(dtype)
    for seed in range(10):
        made = sketched_commutator(
            lambda x: a @ x, lambda x: b @ x, D, generator=generator(seed), dtype=dtype
        )
        assert abs(made.commutator - commutator) < 4 * made.commutator_error
        assert abs(made.defect - defect) < 4 * made.defect_error


def test_zero_has_no_defect():
    made = sketched_commutator(lambda x: 0 * x, lambda x: 0 * x, 5, generator=generator())
    assert made.commutator == 0
    assert math.isnan(made.defect)


@pytest.mark.parametrize("wrong", [{"d": 0}, {"most": 0}, {"goal": -1.0}, {"goal": math.nan}])
def test_wrong_arguments(wrong):
    given = {"d": 4, **wrong}
    with pytest.raises(InputError):
        sketched_commutator(lambda x: x, lambda x: x, generator=generator(), **given)
