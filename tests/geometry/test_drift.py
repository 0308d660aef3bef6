import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry.drift import expected_drift
from geometry.planted import seeded

SIGMA = torch.tensor([10.0, 7.0, 6.9, 4.0, 1.0, 0.9, 0.8, 0.7], dtype=torch.float64)


def planted(p, m, generator):
    u, v = (
        torch.linalg.qr(torch.randn(n, 8, generator=generator, dtype=torch.float64))[0]
        for n in (p, m)
    )
    return u, (u * SIGMA) @ v.mT


@pytest.mark.parametrize("shape", [(8, 14), (14, 8), (9, 9)])
@pytest.mark.parametrize("block", [(0, 1), (1, 3), (0, 4)])
def test_expected_drift_is_the_mean_over_random_updates(shape, block):
    generator, size, draws = seeded(7), 0.01, 600
    u, w = planted(*shape, generator)
    noise = size * torch.randn(draws, *shape, generator=generator, dtype=torch.float64)
    turned = torch.linalg.svd(w + noise, full_matrices=False)[0][:, :, slice(*block)]
    inside = u[:, slice(*block)]
    sines = (turned - inside @ (inside.mT @ turned)).square().sum((-1, -2))
    # The values of w: with a ninth of zero for the shape (9, 9), which has nothing to lose.
    sigma = torch.linalg.svdvals(w)[: min(shape)]
    expected = expected_drift(sigma, block, shape=shape)
    assert expected.low == expected.high
    error = float(sines.std()) / draws**0.5
    assert abs(float(sines.mean()) - expected.middle * size**2) < 4 * error + 0.03 * float(
        sines.mean()
    )
    # Twice the sum of squares is the variance.
    assert float(sines.var()) == pytest.approx(2 * expected.squares * size**4, rel=0.5)


def test_bounds_hold_the_whole_where_few_values_are_known():
    whole = expected_drift(SIGMA, (0, 2), shape=(8, 12))
    rest = float(SIGMA[4:].square().sum())
    known = expected_drift(SIGMA[:4], (0, 2), shape=(8, 12), rest=rest)
    assert known.low <= whole.middle <= known.high
    assert known.high < 1.05 * known.low
    # A block that ends with the last value given: what is said of those behind it bounds them.
    edge = {"shape": (8, 12), "rest": rest}
    assert expected_drift(SIGMA[:4], (0, 4), **edge).high == float("inf")
    bounded = expected_drift(SIGMA[:4], (0, 4), **edge, following=float(SIGMA[4]))
    assert bounded.low <= expected_drift(SIGMA, (0, 4), shape=(8, 12)).middle <= bounded.high
    assert bounded.high < float("inf")


def test_equal_values_outside_the_block_have_no_first_order():
    sigma = torch.tensor([2.0, 2.0, 1.0])
    assert expected_drift(sigma, (0, 1), shape=(3, 3)).high == float("inf")
    assert expected_drift(sigma, (0, 2), shape=(3, 3)).high < 10


@pytest.mark.parametrize("block", [(0, 0), (2, 1), (0, 9), (-1, 2)])
def test_blocks_lie_within_the_values(block):
    with pytest.raises(InputError):
        expected_drift(SIGMA, block, shape=(8, 8))
