import math

import numpy as np
import pytest
import torch
from scipy import stats

from flagscope.errors import InputError
from flagscope.null import haar_bases
from flagscope.null.energy_share import energy_share, energy_share_significance

SPECTRA = {
    "slow": 1 / np.sqrt(np.arange(1, 17)),
    "steep": 1 / np.arange(1, 17),
    "spiked": np.array([1.0] + [0.1] * 15),
}


@pytest.mark.parametrize("kind", SPECTRA)
def test_moments_and_size_under_random_rotations(kind):
    sigma = SPECTRA[kind]
    d, k, draws = 16, 4, 20_000
    participation = (sigma**2).sum() ** 2 / (sigma**4).sum()
    draw = torch.Generator().manual_seed(0)
    bases = haar_bases(torch.randn(draws, d, d, generator=draw, dtype=torch.float64)).numpy()
    shares = (bases[:, :k] ** 2 * sigma**2).sum((1, 2)) / (sigma**2).sum()
    moments = energy_share(k, d, participation)
    error = shares.std() / math.sqrt(draws)
    assert abs(shares.mean() - moments.mean) < 4 * error
    assert shares.std() == pytest.approx(moments.sd, rel=0.03)
    p = np.array([energy_share_significance(x, k, d, participation).p for x in shares[:5000]])
    for level in (0.05, 0.01):
        assert (p < level).mean() < level + 4 * math.sqrt(level / 5000)
        assert (p < level).mean() > level / 4


def test_rank_one_is_the_exact_beta_law():
    found = energy_share_significance(0.6, 3, 20, 1.0)
    law = stats.beta(1.5, 8.5)
    assert found.p == pytest.approx(2 * law.sf(0.6), rel=1e-10)
    moments = energy_share(3, 20, 1.0)
    assert moments.mean == pytest.approx(law.mean())
    assert moments.variance == pytest.approx(law.var())
    assert moments.skewness == pytest.approx(float(law.stats("s")))


@pytest.mark.parametrize(("k", "participation"), [(0, 2.0), (8, 2.0), (3, 8.0)])
def test_no_freedom(k, participation):
    assert energy_share_significance(k / 8, k, 8, participation).p is None


@pytest.mark.parametrize("bad", [(1.5, 2, 8, 2.0), (0.5, 9, 8, 2.0), (0.5, 2, 8, 9.0)])
def test_arguments_are_checked(bad):
    with pytest.raises(InputError):
        energy_share_significance(*bad)


def test_the_ends_have_finite_logarithms():
    for share in (0.0, 1.0):
        assert math.isfinite(energy_share_significance(share, 5, 64, 20.0).log10_p)
