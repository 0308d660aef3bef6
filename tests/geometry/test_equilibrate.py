import math

import pytest
import torch
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry import equilibrate as module
from flagscope.geometry import equilibrated
from geometry.planted import seeded


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def deviations(values: Tensor) -> Tensor:
    """Of the mean squares of the rows and columns that are not zero, from 1."""
    values = values.double()[(values != 0).any(1)][:, (values != 0).any(0)]
    square = values.square()
    return torch.cat([square.mean(0), square.mean(1)]) - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_profile_is_taken_off(dtype):
    # Entries ±1 are their own equilibration, whatever scales their rows and columns have.
    sign = normal(20, 50).sign()
    rows, columns = torch.logspace(-12, 8, 20), torch.logspace(5, -9, 50)
    result = equilibrated((sign * rows[:, None] * columns).to(dtype))
    torch.testing.assert_close(result.values, sign.to(dtype), rtol=1e-5, atol=0)
    assert result.values.dtype == dtype


@pytest.mark.parametrize("shape", [(8, 8), (1, 7), (7, 1), (40, 300)])
def test_rows_and_columns_get_mean_square_one(shape):
    w = normal(*shape, seed=1) ** 3 * torch.logspace(-3, 3, shape[0])[:, None]
    result = equilibrated(w, passes=200)
    assert deviations(result.values).abs().max() <= 1e-4
    assert result.deviation <= 1e-4
    # Rows and columns are scaled, and nothing else: of every 2 x 2 minor the cross ratio stays.
    cross = [x[0, 0] * x[-1, -1] / (x[0, -1] * x[-1, 0]) for x in (w, result.values)]
    torch.testing.assert_close(cross[0], cross[1])


def test_zero_rows_and_columns_stay_in_their_place_and_are_counted():
    w = normal(3, 6, 10)
    w[0, 2] = 0
    w[1, :, 4:7] = 0
    w[1, 0] = 0
    w[2] = 0
    result = equilibrated(w)
    assert result.rows.tolist() == [5, 5, 0]
    assert result.columns.tolist() == [10, 7, 0]
    assert torch.equal(result.values == 0, w == 0)
    without = equilibrated(w[1, 1:][:, [0, 1, 2, 3, 7, 8, 9]])
    torch.testing.assert_close(result.values[1, 1:][:, [0, 1, 2, 3, 7, 8, 9]], without.values)
    assert result.deviation[2] == 0


@pytest.mark.parametrize("size", [1e-200, 5e-324, 1e200, 1e308])
def test_no_size_of_entries_is_out_of_range(size):
    sign = normal(5, 9).sign()
    torch.testing.assert_close(equilibrated(sign * size).values, sign)
    mixed = torch.cat([sign * size, normal(2, 9), sign * 1e10])
    assert deviations(equilibrated(mixed).values).abs().max() <= 1e-4


@pytest.mark.parametrize("size", [1e-45, 1e-38, 3e38])
def test_the_ends_of_float32(size):
    sign = normal(5, 9).sign().float()
    torch.testing.assert_close(equilibrated(sign * size).values, sign)


def test_half_precision_is_widened():
    w = normal(6, 9).bfloat16()
    assert equilibrated(w).values.dtype == torch.float32
    torch.testing.assert_close(equilibrated(w).values, equilibrated(w.float()).values)


def test_a_map_does_not_depend_on_its_batch_nor_on_blocks(monkeypatch):
    # One map converges at once, one late, one never.
    w = torch.stack([torch.ones(12, 12).double(), normal(12, 12) ** 5, normal(12, 12).triu()])
    together = equilibrated(w)
    monkeypatch.setattr(module, "_BLOCK", 30)
    for i, single in enumerate(w):
        alone = equilibrated(single)
        torch.testing.assert_close(together.values[i], alone.values, rtol=1e-12, atol=0)
        torch.testing.assert_close(together.deviation[i], alone.deviation, rtol=1e-9, atol=1e-12)
    assert equilibrated(w[None, :, None]).values.shape == (1, 3, 1, 12, 12)


def test_columns_are_scaled_where_rows_agree_already():
    values = equilibrated(torch.tensor([[1.0, 5.0], [-1.0, 5.0]])).values
    torch.testing.assert_close(values, torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))


def test_the_iteration_ends_where_it_has_converged(monkeypatch):
    passes = []
    run = module._pass
    monkeypatch.setattr(module, "_pass", lambda *given: (passes.append(1), run(*given))[1])
    found = equilibrated(torch.randn(200, 300, generator=seeded(5)), passes=100)
    assert 1 < len(passes) <= 5
    assert found.deviation <= 1e-4


def test_a_pattern_without_equilibration_ends_and_says_so():
    result = equilibrated(torch.ones(6, 6).triu())
    assert result.values.isfinite().all()
    assert result.deviation > 1e-2
    assert equilibrated(torch.ones(6, 6).triu(), passes=200).deviation < result.deviation


def test_fewer_passes_leave_a_larger_deviation():
    w = normal(30, 30) ** 7
    found = [float(equilibrated(w, passes=k).deviation) for k in (1, 3, 12)]
    assert found[0] > found[1] > found[2]
    for passes, deviation in zip((1, 3, 12), found, strict=True):
        values = equilibrated(w, passes=passes).values
        assert deviations(values).abs().max().item() == pytest.approx(deviation, rel=1e-9)


def test_the_input_is_left_alone_and_empty_maps_are_allowed():
    w = normal(4, 5)
    before = w.clone()
    equilibrated(w)
    assert torch.equal(w, before)
    assert equilibrated(torch.ones(2, 0, 5)).rows.tolist() == [0, 0]


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="NaN"):
        equilibrated(torch.full((2, 2), math.nan))
    with pytest.raises(InputError, match="dimensions"):
        equilibrated(torch.ones(3))
    with pytest.raises(InputError, match="passes"):
        equilibrated(torch.ones(3, 3), passes=0)


@pytest.mark.parametrize("spread", [0.0, 40.0])
@pytest.mark.parametrize("unit", [2.0**-60, 2.0**-10, 2.0**50])
def test_a_large_map_has_the_same_digits_in_any_unit(unit, spread):
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(200, 400, generator=generator)
    w = w * torch.exp2(-spread * torch.rand(200, 1, generator=generator).round())
    found, other = equilibrated(w), equilibrated(unit * w)
    assert torch.equal(found.values, other.values)
    torch.testing.assert_close(found.values.square().mean(0), torch.ones(400), rtol=1e-4, atol=0)
    batch = equilibrated(torch.stack([w, torch.full_like(w, 1e-30)]))
    assert torch.equal(batch.values[0], found.values)
