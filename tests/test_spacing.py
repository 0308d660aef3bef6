"""The distance of neighbouring stored numbers."""

from __future__ import annotations

import pytest
import torch

from flagscope.spacing import spacing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_spacing_is_the_step_to_the_next_number(dtype):
    tiny = float(torch.finfo(dtype).tiny)
    values = torch.tensor([1.0, -1.5, 3.0, 1000.0, tiny, tiny / 4, 0.0], dtype=dtype)
    away = torch.full_like(values, torch.inf)
    step = torch.nextafter(values.abs(), away).double() - values.abs().double()
    assert torch.equal(spacing(values), step)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_spacing_of_float8(dtype):
    codes = torch.arange(120, dtype=torch.uint8).view(dtype)
    numbers = codes.double()
    assert torch.equal(spacing(codes)[:-1], numbers.diff())
    assert spacing(torch.arange(3)) is None
