"""A change from its factors against the change itself, formed in float64."""

from __future__ import annotations

import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    factored_change,
    float_product_bound,
    inner_of_changes,
    principal_cosines,
    rounding_interval,
)


def factors(m, n, r, seed, decay=0.5):
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(m, r, generator=generator, dtype=torch.float64)
    a = torch.randn(r, n, generator=generator, dtype=torch.float64)
    return b * decay ** torch.arange(r), a


@pytest.mark.parametrize(("m", "n"), [(40, 60), (60, 40), (5, 30), (30, 5), (4, 4)])
@pytest.mark.parametrize("r", [1, 4, 8])
def test_equal_to_the_formed_change(m, n, r):
    b, a = factors(m, n, r, seed=r)
    d, c = factors(m, n, 3, seed=50 + r)
    one, two = factored_change(b, a, scaling=0.7), factored_change(d, c, scaling=-2.0)
    formed, other = 0.7 * b @ a, -2.0 * d @ c
    size = formed.norm() * other.norm()
    assert one.norm == pytest.approx(float(formed.norm()), rel=1e-12)
    assert abs(inner_of_changes(one, two) - float((formed * other).sum())) <= 1e-12 * size
    values = torch.linalg.svdvals(formed)[: min(m, n, r)]
    torch.testing.assert_close(
        one.singular_values[: len(values)], values, rtol=0, atol=1e-12 * float(values[0])
    )
    rank = min(m, n, r)
    write, read = one.spaces(rank)
    u, _, vh = torch.linalg.svd(formed, full_matrices=False)
    for found, exact in ((write, u[:, :rank]), (read, vh[:rank].T)):
        assert float(principal_cosines(found, exact).min()) > 1 - 1e-8


def test_factors_that_do_not_chain():
    with pytest.raises(InputError, match="no product"):
        factored_change(torch.ones(3, 2), torch.ones(3, 4))


@pytest.mark.parametrize("r", [1, 8, 64, 256])
def test_products_in_single_precision_keep_their_bound(r):
    b, a = (factor.float() for factor in factors(64, 96, r, seed=r, decay=1.0))
    exact = 3.3 * (b.double() @ a.double())
    bound = float_product_bound(b.double(), a.double(), scaling=3.3)
    computed = (b @ a) * 3.3
    # Any other order of summation, too: in chunks, from the end.
    backwards = torch.zeros_like(computed)
    for k in reversed(range(r)):
        backwards += torch.outer(b[:, k], a[k])
    for given in (computed, backwards * 3.3):
        assert bool(((given.double() - exact).abs() <= bound).all())
    assert float((bound / exact.abs().mean()).max()) < 1e-4 * r


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_numbers_inside_the_interval_round_to_the_stored_one(dtype):
    stored = torch.randn(500, generator=torch.Generator().manual_seed(0)).to(dtype)
    low, high = rounding_interval(stored)
    inside = 1e-3
    for share in (inside, 0.5, 1 - inside):
        between = low + share * (high - low)
        assert bool((between.to(dtype) == stored).all())
    outside = low - 1e-3 * (high - low)
    assert not bool((outside.to(dtype) == stored).any())
    largest = torch.full((1,), torch.finfo(dtype).max, dtype=dtype)
    assert bool(torch.isfinite(torch.cat(rounding_interval(largest))).all())
