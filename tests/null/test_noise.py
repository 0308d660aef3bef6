from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flagscope.errors import InputError, UnknownDtypeError
from flagscope.null import noise as noise_module
from flagscope.null import storage_noise

PRECISION = {
    torch.float32: (24, -126),
    torch.bfloat16: (8, -126),
    torch.float16: (11, -14),
    torch.float8_e4m3fn: (4, -6),
    torch.float8_e5m2: (3, -14),
    torch.float8_e4m3fnuz: (4, -7),
    torch.float8_e5m2fnuz: (3, -15),
}


def direct(weight: torch.Tensor) -> tuple[float, float]:
    """δ and mean S by numpy.frexp, entry by entry."""
    precision, smallest = PRECISION[weight.dtype]
    values = weight.to(torch.float64).numpy()
    exponent = np.where(values == 0, smallest, np.frexp(values)[1] - 1)
    ulp = 2.0 ** (np.maximum(exponent, smallest) - (precision - 1))
    variance = ulp**2 / 12
    delta = math.sqrt(variance.sum(1).max()) + math.sqrt(variance.sum(0).max())
    return delta, variance.mean()


@pytest.mark.parametrize("dtype", PRECISION)
def test_agrees_with_the_definition(dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(37, 23, generator=generator) * torch.logspace(-6, 1, 23)
    weight[0, 0] = 0.0
    weight = weight.to(dtype)
    noise = storage_noise(weight)
    delta, mean_square = direct(weight)
    assert noise.delta.item() == pytest.approx(delta, rel=1e-6)
    assert noise.mean_square.item() == pytest.approx(mean_square, rel=1e-6)
    assert noise.delta.dtype == torch.float64


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("kind", ["gaussian", "low rank", "outlier column"])
def test_bounds_the_true_rounding_error_from_above_and_not_by_much(dtype, kind):
    generator = torch.Generator().manual_seed(1)
    exact = torch.randn(200, 120, generator=generator, dtype=torch.float64)
    if kind == "low rank":
        exact = exact[:, :5] @ exact[:5, :].clone()
    if kind == "outlier column":
        exact[:, 3] *= 30
    stored = exact.to(dtype)
    error = torch.linalg.matrix_norm(stored.to(torch.float64) - exact, ord=2).item()
    noise = storage_noise(stored)
    assert 0.4 < error / noise.delta.item() < 1.0
    rms = (stored.to(torch.float64) - exact).square().mean().item()
    # With two stored bits the density of the weights is not flat over the spacing.
    coarse = dtype == torch.float8_e5m2
    assert rms == pytest.approx(noise.mean_square.item(), rel=0.2 if coarse else 0.1)


def test_float64_counts_its_own_rounding():
    weight = torch.ones(3, 5, dtype=torch.float64)
    assert storage_noise(weight).mean_square.item() == pytest.approx(2.0**-104 / 12, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("magnitude", [1e-37, 1e-20, 1e20, 1e37])
def test_scales_with_the_weights_over_the_whole_range(dtype, magnitude):
    weight = torch.full((4, 6), magnitude, dtype=dtype)
    relative = storage_noise(weight).delta.item() / magnitude
    precision = {**PRECISION, torch.float64: (53, 0)}[dtype][0]
    # ulp(w)/w lies between 2^-p and 2^{1-p}
    low = 2.0**-precision / math.sqrt(12) * (2 + math.sqrt(6))
    assert 0.99 * low <= relative <= 2.02 * low


def test_scale_multiplies_and_broadcasts():
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(2)).to(torch.float8_e4m3fn)
    plain = storage_noise(weight)
    scaled = storage_noise(weight, scale=0.25)
    assert scaled.delta.item() == pytest.approx(0.25 * plain.delta.item(), rel=1e-12)
    rows = storage_noise(weight, scale=torch.full((6, 1), 0.25))
    assert rows.delta.item() == pytest.approx(scaled.delta.item(), rel=1e-12)


def test_batches_slices_and_transposes_agree_with_single_matrices(monkeypatch):
    weight = torch.randn(3, 2, 50, 40, generator=torch.Generator().manual_seed(3))
    weight = weight.to(torch.bfloat16)
    batched = storage_noise(weight.mT)
    monkeypatch.setattr(noise_module, "_BLOCK", 300)
    blocked = storage_noise(weight.mT)
    assert batched.delta.shape == blocked.delta.shape == (3, 2)
    torch.testing.assert_close(batched.delta, blocked.delta, rtol=1e-12, atol=0)
    torch.testing.assert_close(batched.mean_square, blocked.mean_square, rtol=1e-12, atol=0)
    one = storage_noise(weight[2, 1])
    assert one.delta.item() == pytest.approx(batched.delta[2, 1].item(), rel=1e-12)


def test_zero_matrix_has_the_noise_of_the_smallest_number():
    noise = storage_noise(torch.zeros(2, 2, dtype=torch.float16))
    assert noise.mean_square.item() == pytest.approx(2.0**-48 / 12, rel=1e-12)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float64]
)
def test_nan_is_refused(dtype):
    weight = torch.ones(3, 3)
    weight[1, 2] = math.nan
    with pytest.raises(InputError, match="NaN"):
        storage_noise(weight.to(dtype))


def test_infinity_is_refused():
    with pytest.raises(InputError, match="infinity"):
        storage_noise(torch.full((2, 2), math.inf))


@pytest.mark.parametrize("shape", [(5,), (0, 3), ()])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(InputError, match="matrix"):
        storage_noise(torch.ones(shape))


def test_integers_are_refused():
    with pytest.raises(UnknownDtypeError, match="int8"):
        storage_noise(torch.ones(2, 2, dtype=torch.int8))


def test_scale_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="broadcast"):
        storage_noise(torch.ones(4, 6), scale=torch.ones(4))


def test_no_temporary_is_larger_than_a_few_blocks():
    weight = torch.ones(3000, 2000, dtype=torch.bfloat16)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        storage_noise(weight)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 8 * noise_module._BLOCK
