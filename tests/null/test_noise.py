from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flagscope.errors import InputError, UnknownDtypeError
from flagscope.null import StorageNoise, grid_noise, storage_noise
from flagscope.null import noise as noise_module
from flagscope.null import repetition as repetition_module
from flagscope.spacing import FLOAT_FORMATS

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
def test_is_a_little_above_the_true_rounding_error(dtype, kind):
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


REPEATED = {
    "constant": lambda x: torch.full((60, 40), 0.7234567890123, dtype=torch.float64),
    "equal rows": lambda x: x[:4].repeat_interleave(30, 0),
    "equal columns": lambda x: x[:, :3].repeat(1, 40),
    "copies": lambda x: x.repeat(4, 4),
    "negated columns": lambda x: torch.cat([x, -x], 1),
    "negated rows": lambda x: torch.cat([x, -x, x], 0),
    "blocks of one value": lambda x: x[:8, :6].repeat_interleave(10, 0).repeat_interleave(15, 1),
}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("kind", REPEATED)
def test_equal_rows_and_columns_round_alike(dtype, kind):
    x = torch.randn(48, 36, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact = REPEATED[kind](x)
    stored = exact.to(dtype)
    error = torch.linalg.matrix_norm(stored.to(torch.float64) - exact, ord=2).item()
    noise = storage_noise(stored)
    assert 0.25 < error / noise.delta.item() < 1.0
    assert not noise.repeated
    # What stands in different places of memory is the same.
    assert storage_noise(stored.mT).delta.item() == pytest.approx(noise.delta.item(), rel=1e-6)
    order = torch.randperm(len(stored), generator=torch.Generator().manual_seed(6))
    mixed = stored.view(torch.int8)[order].view(dtype) if stored.element_size() == 1 else None
    mixed = stored[order] if mixed is None else mixed
    assert storage_noise(mixed).delta.item() == pytest.approx(noise.delta.item(), rel=1e-6)


def test_delta_of_equal_lines_in_closed_form():
    x = torch.randn(5, 70, generator=torch.Generator().manual_seed(7)).to(torch.bfloat16)
    exponent = torch.frexp(x.double()).exponent - 1
    variance = 2.0 ** (2 * (exponent - 7)) / 12
    rows = torch.tensor([0, 3, 0, 1, 2, 0, 4, 3])
    weight = x[rows] * torch.tensor([1, 1, -1, 1, 1, 1, 1, 1])[:, None]
    times = torch.bincount(rows)
    delta = (times * variance.sum(1)).max().sqrt() + variance[rows].sum(0).max().sqrt()
    assert storage_noise(weight).delta.item() == pytest.approx(delta.item(), rel=1e-6)


def test_lines_that_differ_in_one_entry_only_are_not_equal():
    generator = torch.Generator().manual_seed(8)
    row = torch.randn(1000, generator=generator)
    weight = row.repeat(4, 1)
    for i, j in ((1, 17), (2, 18), (3, 999)):
        weight[i, j] = torch.nextafter(weight[i, j], torch.tensor(9.0))
    same, different = storage_noise(row.repeat(4, 1)), storage_noise(weight)
    assert different.delta < 0.7 * same.delta
    assert not same.repeated


def test_dead_rows_do_not_round_alike():
    # In float8 the spacing near zero is coarse: 900 rows as one would have 30 times the noise.
    weight = 0.05 * torch.randn(1000, 64, generator=torch.Generator().manual_seed(9))
    weight[100:] = 0
    stored = weight.to(torch.float8_e4m3fn)
    assert storage_noise(stored).delta.item() == pytest.approx(direct(stored)[0], rel=1e-6)
    # Nor where other rows are equal.
    weight[1] = weight[0]
    assert storage_noise(weight.to(torch.float8_e4m3fn)).delta.item() < 1.5 * direct(stored)[0]


def test_equal_magnitudes_alone_do_not_round_alike():
    generator = torch.Generator().manual_seed(14)
    weight = (
        torch.randn(1, 80, generator=generator) * torch.randn(60, 80, generator=generator).sign()
    )
    stored = weight.to(torch.bfloat16)
    assert storage_noise(stored).delta.item() == pytest.approx(direct(stored)[0], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_repetition_is_told(dtype):
    generator = torch.Generator().manual_seed(10)
    index = torch.arange(96)
    values = torch.randn(96, generator=generator)
    told = {
        "circulant": values[(index[:, None] - index) % 96],
        "ternary": 0.7234 * torch.randint(-1, 2, (96, 96), generator=generator),
        "mask": 0.7234 * torch.randint(0, 2, (8, 8), generator=generator),
        "grid": 0.1234 * torch.randint(-7, 8, (96, 96), generator=generator),
    }
    for name, weight in told.items():
        assert storage_noise(weight.to(dtype)).repeated, name


@pytest.mark.parametrize("shape", [(4096, 500), (200, 4096), (4096, 30), (8, 600)])
def test_repetition_is_looked_for_in_a_sample_of_a_few_thousand_entries(shape, monkeypatch):
    sizes = []
    sort = torch.Tensor.sort

    def counted(self, *arguments, **more):
        sizes.append(self.shape[-1])
        return sort(self, *arguments, **more)

    monkeypatch.setattr(torch.Tensor, "sort", counted)
    bits = torch.randn(1, *shape, generator=torch.Generator().manual_seed(16)).view(torch.int32)
    rows, columns = (torch.ones(1, n, dtype=torch.bool) for n in shape)
    repetition_module.few_values(bits, rows, columns, mantissa=23)
    assert min(2048, bits.numel()) <= sizes[0] <= 4096


def test_numbers_of_a_shorter_format_are_told():
    weight = torch.randn(40, 50, generator=torch.Generator().manual_seed(11))
    for short in (torch.bfloat16, torch.float16):
        assert storage_noise(weight.to(short).float()).repeated
        assert storage_noise(weight.to(short).double()).repeated
    assert storage_noise(weight.double()).repeated
    assert not storage_noise(weight.double() / 3).repeated


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("shape", [(3, 3), (2, 500), (500, 2), (128, 96)])
def test_continuous_laws_are_not_said_to_repeat(dtype, shape):
    generator = torch.Generator().manual_seed(12)
    normal = torch.randn(20, *shape, generator=generator)
    uniform = torch.rand(20, *shape, generator=generator)
    sparse = normal * (uniform < 0.1)
    heavy = normal / torch.randn(20, *shape, generator=generator).abs()
    low_rank = torch.randn(20, shape[0], 1, generator=generator) * normal[:, :1]
    for weight in (normal, uniform - 0.5, sparse, heavy.clamp(-200, 200), low_rank, 1e-3 * normal):
        assert not storage_noise(weight.to(dtype)).repeated.any()
    # All within a few spacings of 1, if more than one.
    spacing = 2.0 ** (2 - PRECISION[dtype][0])
    assert not storage_noise((1.25 + spacing * normal).to(dtype)).repeated.any()


def test_float64_counts_its_own_rounding():
    weight = torch.ones(3, 5, dtype=torch.float64)
    assert storage_noise(weight).mean_square.item() == pytest.approx(2.0**-104 / 12, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("magnitude", [1e-37, 1e-20, 1e20, 1e37])
def test_scales_with_the_weights_over_the_whole_range(dtype, magnitude):
    weight = torch.full((4, 6), magnitude, dtype=dtype)
    relative = storage_noise(weight).delta.item() / magnitude
    precision = {**PRECISION, torch.float64: (53, 0)}[dtype][0]
    # ulp(w)/w lies between 2^-p and 2^{1-p}; all entries have the same error.
    low = 2.0**-precision / math.sqrt(12) * 2 * math.sqrt(4 * 6)
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
    assert batched.repeated.shape == blocked.repeated.shape == (3, 2)
    one = storage_noise(weight[2, 1])
    assert one.delta.item() == pytest.approx(batched.delta[2, 1].item(), rel=1e-12)


def test_equal_rows_in_a_batch_and_in_blocks(monkeypatch):
    weight = torch.randn(2, 2, 40, 90, generator=torch.Generator().manual_seed(4))
    weight[0, 1, 5:25] = weight[0, 1, 3]
    weight[1, 0, :, 7:50] = -weight[1, 0, :, 2:3]
    weight[1, 1] = 0.7234567
    weight[0, 0] = weight[0, 0].bfloat16()
    batched = storage_noise(weight)
    monkeypatch.setattr(noise_module, "_BLOCK", 300)
    monkeypatch.setattr(repetition_module, "_BLOCK", 200)
    blocked = storage_noise(weight)
    torch.testing.assert_close(batched.delta, blocked.delta, rtol=1e-12, atol=0)
    assert batched.repeated.tolist() == blocked.repeated.tolist() == [[True, False], [False, False]]
    for i in range(2):
        for j in range(2):
            one = storage_noise(weight[i, j])
            assert one.delta.item() == pytest.approx(batched.delta[i, j].item(), rel=1e-12)
            assert one.repeated == batched.repeated[i, j]


def test_equal_rows_under_different_scales():
    # Errors are those of the stored numbers times the scale of each row.
    row = torch.randn(1, 200, generator=torch.Generator().manual_seed(13))
    stored = row.repeat(3, 1).to(torch.float8_e4m3fn)
    scale = torch.tensor([[1.0], [2.0], [4.0]])
    exact = scale.double() * row.double()
    error = torch.linalg.matrix_norm(scale * stored.double() - exact, ord=2).item()
    delta = storage_noise(stored, scale=scale).delta.item()
    assert 0.4 < error / delta < 1
    assert delta < 3 * storage_noise(stored[2:], scale=4.0).delta.item()


@pytest.mark.parametrize("dtype", [torch.float64, *PRECISION])
def test_the_weights_are_left_alone(dtype):
    weight = torch.randn(6, 9, generator=torch.Generator().manual_seed(15)).to(dtype)
    before = weight.clone()
    storage_noise(weight)
    assert torch.equal(weight.double(), before.double())


@pytest.mark.parametrize("dtype", FLOAT_FORMATS)
def test_zeros_have_the_noise_of_the_smallest_number_of_their_type(dtype):
    # The number whose bits are those of the integer one.
    bits = FLOAT_FORMATS[dtype].integer
    smallest = torch.ones(1, dtype=bits).view(dtype).double().item()
    delta = storage_noise(torch.zeros(400, 400, dtype=dtype)).delta.item()
    # δ of float64 is itself one of the least numbers there are, some ten of which it is.
    assert delta == pytest.approx(2 * 20 * smallest / math.sqrt(12), rel=0.05, abs=0)


@pytest.mark.parametrize("dtype", FLOAT_FORMATS)
def test_the_spacing_doubles_where_the_type_has_fewer_bits_left(dtype):
    """Behind each number, subnormal or normal, the next one is as far as the noise says."""
    form = FLOAT_FORMATS[dtype]
    normal = 1 << (form.precision - 1)  # bits of the smallest normal number
    for pattern in (1, normal - 1, normal, 2 * normal - 1, 2 * normal, 3 * normal):
        pair = torch.tensor([pattern, pattern + 1], dtype=form.integer).view(dtype).double()
        value = torch.tensor([pattern], dtype=form.integer).view(dtype)
        delta = storage_noise(value.expand(1, 1)).delta.item()
        spacing = (pair[1] - pair[0]).item()
        # √(S) + √(S) of a single entry; float64 rounds a spacing of 5e-324.
        assert delta == pytest.approx(2 * spacing / math.sqrt(12), rel=1e-6, abs=5e-324)


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


@pytest.mark.parametrize(
    "step", [torch.ones(5), torch.ones(0, 3), torch.ones(()), torch.ones(2, 2, dtype=torch.int8)]
)
def test_a_grid_of_no_matrix_of_numbers_is_refused(step):
    with pytest.raises(InputError, match="step must be a non-empty matrix"):
        grid_noise(step)


def test_integers_are_refused():
    with pytest.raises(UnknownDtypeError, match="int8"):
        storage_noise(torch.ones(2, 2, dtype=torch.int8))


def test_scale_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="broadcast"):
        storage_noise(torch.ones(4, 6), scale=torch.ones(4))


def test_what_is_known_without_values_does_not_repeat():
    assert not StorageNoise(torch.ones(3), torch.ones(3)).repeated
    assert grid_noise(torch.ones(2, 3, 4)).repeated.tolist() == [False, False]


def test_no_temporary_is_larger_than_a_few_blocks():
    weight = torch.ones(3000, 2000, dtype=torch.bfloat16)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        storage_noise(weight)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 8 * noise_module._BLOCK
