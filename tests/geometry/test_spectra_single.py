"""Eigensystems in single precision: vectors, small singular values and batches."""

import pytest
import torch

from flagscope.geometry import single_eigensystem, single_pair_spectra
from geometry.planted import normal, with_values

# Most directions of like size, a few far below: the condition is 50.
TAIL = [*torch.linspace(1, 0.3, 490).tolist(), *torch.linspace(0.1, 0.02, 30).tolist()]


@pytest.mark.parametrize("d", [520, 1400])
def test_eigenvectors_are_orthonormal_and_small_values_right(d):
    w = with_values(d, 520, TAIL, seed=1).float()
    system = single_eigensystem(w[None])
    sigma, exact = system.values[0].sqrt(), torch.linalg.svdvals(w.double())
    torch.testing.assert_close(sigma, exact, rtol=1e-4, atol=0)
    small = exact < 0.03 * exact[0]
    assert int(small.sum()) == 4
    torch.testing.assert_close(sigma[small], exact[small], rtol=1e-9, atol=0)
    inner = system.vectors[0].double().mT @ system.vectors[0].double()
    assert float((inner - torch.eye(520)).abs().max()) < 1e-4


def test_batches_are_their_maps():
    d = 1400
    w1 = torch.stack([normal(d, 520, seed=1), with_values(d, 520, TAIL, seed=2)]).float()
    w2 = torch.stack([normal(530, d, seed=4), normal(530, d, seed=5)]).float()
    together, sigma = single_pair_spectra(w1, w2)
    assert together.composite is None
    for i in range(2):
        alone, one = single_pair_spectra(w1[i : i + 1], w2[i : i + 1])
        torch.testing.assert_close(sigma[0][i], one[0][0], rtol=2e-5, atol=0)
        torch.testing.assert_close(together.commutator[i], alone.commutator[0], rtol=1e-5, atol=0)
