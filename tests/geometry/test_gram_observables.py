import numpy as np
import pytest
import torch

import reference
from flagscope.geometry import (
    commutation_defect,
    commutator_ratio,
    gram_correlation,
    imbalance,
    pair_spectra,
)
from flagscope.geometry.spectra import _from_large_grams, _from_small_grams
from geometry.planted import haar, normal, with_values

ALL = {
    commutator_ratio: reference.commutator_ratio,
    gram_correlation: reference.gram_correlation,
    commutation_defect: reference.commutation_defect,
    imbalance: reference.imbalance,
}
PATHS = (_from_large_grams, _from_small_grams)
SHAPES = [
    (2, 3, 2), (3, 1, 1), (6, 9, 20), (6, 20, 3), (20, 3, 4), (20, 7, 30), (20, 20, 20), (9, 8, 10),
    (40, 25, 24),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [None, 1, 3])
def test_against_explicit_gram_matrices(path, shape, rank):
    d, m1, m2 = shape
    w1, w2 = normal(2, d, m1, seed=1), normal(2, m2, d, seed=2)
    if rank:
        w1 = normal(2, d, rank, seed=3) @ normal(2, rank, m1, seed=4)
        w2 = normal(2, m2, rank, seed=5) @ normal(2, rank, d, seed=6)
    s = path(w1, w2)
    for found, exact in ALL.items():
        values = [exact(a, b) for a, b in zip(w1.numpy(), w2.numpy(), strict=True)]
        np.testing.assert_allclose(found(s), values, rtol=1e-9, atol=1e-11, err_msg=found.__name__)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("outer", [20, 60])
def test_nearly_isotropic_gram_matrices_keep_their_digits(spread, outer):
    # As at an orthogonal initialisation. Uncentred moments lose (spread)^-4 of the digits.
    d = 20
    w1 = haar(1, outer, d, seed=1).mT + spread * normal(1, d, outer, seed=2)
    w2 = haar(1, outer, d, seed=3) + spread * normal(1, outer, d, seed=4)
    s = pair_spectra(w1, w2)
    for found, exact in ALL.items():
        expected = exact(w1[0].numpy(), w2[0].numpy())
        assert float(found(s)) == pytest.approx(expected, rel=1e-13 / spread, abs=1e-13 / spread)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_one_nearly_isotropic_gram_matrix_on_the_small_path(spread):
    w1 = normal(1, 60, 4, seed=1)
    w2 = haar(1, 60, 60, seed=3) + spread * normal(1, 60, 60, seed=4)
    s = _from_small_grams(w1, w2)
    for found, exact in ALL.items():
        expected = exact(w1[0].numpy(), w2[0].numpy())
        assert float(found(s)) == pytest.approx(expected, rel=1e-11 / spread, abs=1e-11 / spread)


@pytest.mark.parametrize("cosine", [0.0, 0.1, 0.5, 1.0])
def test_rank_one_pair(cosine):
    # With ‖Ã‖² = 1 - 1/d: C = c²(1-c²) d(d+2)/(d-1), ρ = (c² - 1/d)/(1 - 1/d).
    d = 1536
    u, v = haar(1, d, 2, seed=1)[0].mT
    w2 = 7 * (cosine * u + np.sqrt(1 - cosine**2) * v)[None, None, :]
    s = pair_spectra(u[None, :, None], w2)
    square = cosine**2
    ratio = square * (1 - square) * d * (d + 2) / (d - 1)
    assert float(commutator_ratio(s)) == pytest.approx(ratio, rel=1e-10, abs=1e-20)
    correlation = (square - 1 / d) / (1 - 1 / d)
    assert float(gram_correlation(s)) == pytest.approx(correlation, rel=1e-9, abs=1e-15)
    if cosine == 0.1:
        assert float(commutator_ratio(s)) == pytest.approx(15, abs=0.3)


def test_orthogonal_ranges():
    q = haar(1, 30, 9, seed=1)[0]
    w1 = (q[:, :4] * torch.tensor([4.0, 3.0, 2.0, 1.0]))[None]
    w2 = (q[:, 4:] * torch.tensor([5.0, 4.0, 2.0, 1.0, 1.0])).mT[None]
    s = pair_spectra(w1, w2)
    a, b = w1[0] @ w1[0].mT, w2[0].mT @ w2[0]
    norms = [np.linalg.norm(reference.traceless(gram.numpy())) for gram in (a, b)]
    expected = -float(a.trace() * b.trace()) / (30 * norms[0] * norms[1])
    assert float(gram_correlation(s)) == pytest.approx(expected, rel=1e-12)
    assert float(commutator_ratio(s)) < 1e-25
    equal = pair_spectra(q[:, :4][None], q[:, 5:].mT[None])
    assert float(imbalance(equal)) == pytest.approx(0.5**0.5, rel=1e-12)


def test_aligned_maps():
    w1 = normal(1, 12, 20, seed=1)
    s = pair_spectra(w1, 3 * w1.mT)
    assert float(commutator_ratio(s)) < 1e-25
    assert float(commutation_defect(s)) < 1e-25
    assert float(gram_correlation(s)) == pytest.approx(1, rel=1e-14)
    # ‖A - 9A‖ / 10‖A‖
    assert float(imbalance(s)) == pytest.approx(0.8, rel=1e-13)


def test_defect_reaches_two():
    # [Ã,B̃] = 2ÃB̃ where they anticommute: reflections of the plane in axes 45° apart.
    w1 = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None]
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5
    s = pair_spectra(w1, w1 @ turn)
    assert float(commutation_defect(s)) == pytest.approx(2, rel=1e-13)
    assert float(commutator_ratio(s)) == pytest.approx(2, rel=1e-13)


def test_defect_is_undefined_where_nothing_overlaps():
    # Ã = diag(1, -1, 0, 0), B̃ = diag(0, 0, 1, -1): ÃB̃ = 0.
    q = haar(1, 4, 4, seed=1)[0]
    w1 = q * torch.tensor([2.0, 0.0, 1.0, 1.0], dtype=q.dtype).sqrt()
    w2 = (q * torch.tensor([1.0, 1.0, 2.0, 0.0], dtype=q.dtype).sqrt()).mT
    s = pair_spectra(w1[None], w2[None])
    assert np.isnan(float(commutation_defect(s)))
    assert float(gram_correlation(s)) == pytest.approx(0, abs=1e-14)
    assert float(commutator_ratio(s)) == pytest.approx(0, abs=1e-25)


@pytest.mark.parametrize("relative", [1e-3, 1e-8, 1e-12])
def test_imbalance_of_nearly_balanced_maps(relative):
    w1 = normal(1, 12, 20, seed=1)
    s = pair_spectra(w1, (1 + relative) * w1.mT)
    exact = ((1 + relative) ** 2 - 1) / ((1 + relative) ** 2 + 1)
    assert float(imbalance(s)) == pytest.approx(exact, abs=2e-15)
    # Of tall maps the root of the round-off is left, and less is 0.
    tall = pair_spectra(w1.mT.contiguous(), (1 + relative) * w1)
    assert float(imbalance(tall)) == pytest.approx(exact, abs=3e-8)
    assert float(imbalance(pair_spectra(w1.mT.contiguous(), w1))) == 0


def test_imbalance_with_weights_is_that_of_scaled_maps():
    for d, m in ((8, 20), (20, 8)):
        w1, w2 = normal(2, d, m, seed=1), normal(2, m, d, seed=2)
        factors = torch.tensor([1.0, 0.25], dtype=torch.float64)
        weighted = imbalance(pair_spectra(w1, w2), weights=(factors, factors.flip(0)))
        scaled = pair_spectra(
            w1 * factors.sqrt()[:, None, None], w2 * factors.flip(0).sqrt()[:, None, None]
        )
        torch.testing.assert_close(weighted, imbalance(scaled), rtol=1e-12, atol=0)


def test_ranges_of_the_observables():
    for seed in range(20):
        sigma = np.geomspace(1, 10.0 ** -(seed / 4), 6)
        w1, w2 = with_values(9, 6, sigma, seed=seed), with_values(6, 9, sigma, seed=seed + 50)
        s = pair_spectra(w1[None], w2[None])
        assert float(commutator_ratio(s)) >= 0
        assert -1 <= float(gram_correlation(s)) <= 1
        assert 0 <= float(commutation_defect(s)) <= 2
        assert 0 <= float(imbalance(s)) <= 1
