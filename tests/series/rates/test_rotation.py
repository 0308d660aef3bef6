"""Rotational equilibrium: against the covariance of the process, and PyTorch's AdamW on noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from flagscope.errors import InputError
from flagscope.series.rates import GroupSchedule, equilibrium_cosine, known_rates, rotations


@pytest.mark.parametrize(
    ("rate", "decay", "beta1"),
    [(0.1, 0.2, 0.9), (0.01, 0.1, 0.0), (0.5, 0.2, 0.9), (0.3, 0.5, 0.5)],
)
def test_the_cosine_is_that_of_the_stationary_process(rate, decay, beta1):
    """m' = b m + (1-b) g, w' = a w - η m': covariance by SciPy's Lyapunov equation."""
    a, b = 1 - rate * decay, beta1
    move = np.array([[a, -rate * b], [0, b]])
    push = (1 - b) * np.array([-rate, 1.0])
    covariance = solve_discrete_lyapunov(move, np.outer(push, push))
    for n in (1, 2, 7, 40):
        later = np.linalg.matrix_power(move, n) @ covariance
        expected = later[0, 0] / covariance[0, 0]
        assert equilibrium_cosine(rate, decay, beta1, n) == pytest.approx(expected, rel=1e-9)


def test_its_limits_are_those_of_the_literature():
    rate, decay = 1e-4, 1e-2
    for beta1 in (0.0, 0.5, 0.9):
        one = math.acos(equilibrium_cosine(rate, decay, beta1, 1))
        kosson = math.sqrt(2 * rate * decay * (1 - beta1) / (1 + beta1))
        assert one == pytest.approx(kosson, rel=1e-4)
        many = equilibrium_cosine(rate, decay, beta1, 1_000_000)
        assert many == pytest.approx(math.exp(-1), rel=1e-3)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_adamw_on_noise_turns_as_predicted(beta1):
    rate, decay, lag = 1e-2, 1.0, 25
    end = 700
    generator = torch.Generator().manual_seed(5)
    weight = torch.zeros(100, 100)
    optimiser = torch.optim.AdamW([weight], lr=rate, betas=(beta1, 0.99), weight_decay=decay)
    kept = {}
    for step in range(end + 1):
        if step >= 500 and step % lag == 0:
            kept[step] = weight.clone()
        weight.grad = torch.randn(weight.shape, generator=generator)
        optimiser.step()
    group = GroupSchedule("a", known_rates(rate, updates=end), decay, betas=(beta1, 0.99))
    turns = rotations(kept, group)
    assert [(t.start, t.stop) for t in turns] == [(s, s + lag) for s in range(500, end, lag)]
    assert all(t.settled for t in turns)
    assert np.mean([t.angle_ratio for t in turns]) == pytest.approx(1, abs=0.03)
    assert np.mean([t.norm_ratio for t in turns]) == pytest.approx(1, abs=0.02)
    if not beta1:  # with momentum the last updates before go on after
        assert np.mean([t.kept / t.decay_leaves for t in turns]) == pytest.approx(1, abs=0.02)
    assert turns[0].decay_leaves == pytest.approx((1 - rate * decay) ** lag, rel=1e-9)


def test_small_angles_are_measured_to_many_digits():
    w = torch.zeros(5, dtype=torch.float64)
    w[0] = 1.0
    v = w.clone()
    v[1] = math.tan(1e-9)
    group = GroupSchedule("a", known_rates(0.01, updates=300), 1.0)
    (turn,) = rotations({10: w, 11: 3 * v}, group)
    assert turn.angle == pytest.approx(1e-9, rel=1e-6)
    assert turn.norm_ratio == pytest.approx(3)
    assert turn.kept == pytest.approx(3)
    assert not turn.settled
    assert rotations({250: w, 300: v}, group)[0].settled


def test_a_schedule_is_met_by_the_rate_of_equal_decay():
    rates = known_rates(lambda n: 0.01 if n < 50 else 0.03, updates=100)
    group = GroupSchedule("a", rates, 0.5, betas=(0.8, 0.9))
    w = torch.ones(3)
    (turn,) = rotations({0: w, 100: w}, group)
    left = (1 - 0.005) ** 50 * (1 - 0.015) ** 50
    assert turn.decay_leaves == pytest.approx(left, rel=1e-9)
    mean = (1 - left**0.01) / 0.5
    expected = math.acos(equilibrium_cosine(mean, 0.5, 0.8, 100))
    assert turn.equilibrium_angle == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("tensors", "decay", "words"),
    [
        ({0: torch.ones(2)}, 0.1, "two checkpoints"),
        ({0: torch.ones(2), 1: torch.ones(3)}, 0.1, "differ in shape"),
        ({0: torch.ones(2), 1: torch.zeros(2)}, 0.1, "step 1 is zero"),
        ({0: torch.tensor([math.nan]), 1: torch.ones(1)}, 0.1, "not finite"),
        ({0: torch.ones(2), 1: torch.ones(2)}, 0.0, "no weight decay"),
        ({0: torch.ones(2), 1: torch.ones(2)}, None, "not known"),
    ],
)
def test_what_has_no_rotation_is_refused(tensors, decay, words):
    with pytest.raises(InputError, match=words):
        rotations(tensors, GroupSchedule("a", known_rates(0.1, updates=5), decay))


@pytest.mark.parametrize(("rate", "decay", "beta1"), [(0, 1, 0.9), (2, 1, 0.9), (0.1, 0.1, 1.0)])
def test_without_an_equilibrium_there_is_no_cosine(rate, decay, beta1):
    with pytest.raises(InputError, match="no equilibrium"):
        equilibrium_cosine(rate, decay, beta1, 1)
