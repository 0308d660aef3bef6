"""Composition scores against explicit circuits."""

import pytest
import torch

from flagscope.geometry import circuit_factors, of_unit_norm, squared_composition
from geometry.planted import normal


@pytest.mark.parametrize("heads", [(3, 2), (1, 4)])
@pytest.mark.parametrize("partner", [3, 20])
def test_the_score_is_that_of_the_explicit_circuits(heads, partner):
    (m, n), r, d = heads, 4, 15
    o, v, q, k = (
        normal(count, r, size, seed=seed)
        for seed, (count, size) in enumerate([(m, d), (m, partner), (n, d), (n, partner)])
    )
    writers, readers = of_unit_norm(circuit_factors(o, v)), of_unit_norm(circuit_factors(q, k))
    found = squared_composition(writers, readers)
    assert found.shape == (m, n)
    for i in range(m):
        for j in range(n):
            w_ov, w_qk = o[i].mT @ v[i], k[j].mT @ q[j]
            score = torch.linalg.matrix_norm(w_qk @ w_ov)
            score /= torch.linalg.matrix_norm(w_qk) * torch.linalg.matrix_norm(w_ov)
            assert float(found[i, j]) == pytest.approx(float(score) ** 2, rel=1e-10)


def test_circuits_that_are_zero_compose_with_nothing():
    factors = of_unit_norm(circuit_factors(torch.zeros(1, 2, 6), torch.zeros(1, 2, 3)))
    assert not squared_composition(factors, of_unit_norm(normal(2, 2, 6, seed=1).float())).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_partner_of_lower_rank_has_a_factor_of_its_gram(dtype):
    partner = (normal(2, 5, 2, seed=1) @ normal(2, 2, 9, seed=2)).to(dtype)
    factors = circuit_factors(torch.eye(5, dtype=dtype).expand(2, 5, 5), partner)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(factors.mT @ factors, partner @ partner.mT, rtol=0, atol=tolerance)
