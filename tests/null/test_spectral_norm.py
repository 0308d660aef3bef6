import math

import pytest
import torch

from flagscope.errors import InputError
from flagscope.null.spectral_norm import spectral_norm_log_sf, spectral_norm_quantile


@pytest.mark.parametrize("shape", [(24, 24), (24, 96), (96, 24)])
def test_size_for_gaussian_entries(shape):
    draws = 3000
    generator = torch.Generator().manual_seed(0)
    norms = torch.linalg.matrix_norm(0.3 * torch.randn(draws, *shape, generator=generator), ord=2)
    square = 0.09 * shape[0] * shape[1]
    for level in (0.05, 0.01):
        edge = spectral_norm_quantile(level, square=square, shape=shape)
        found = float((norms > edge).double().mean())
        assert level / 4 < found < level + 4 * math.sqrt(level / draws)
        assert math.exp(spectral_norm_log_sf(edge, square=square, shape=shape)) == pytest.approx(
            level, rel=1e-5
        )


def test_arguments_are_checked():
    for square, shape in ((0.0, (3, 3)), (1.0, (0, 3))):
        with pytest.raises(InputError):
            spectral_norm_quantile(0.01, square=square, shape=shape)
