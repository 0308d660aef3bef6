"""Widening, against the values that the bits stand for."""

from __future__ import annotations

import math

import pytest
import torch

from flagscope.checkpoint import widen
from flagscope.errors import InputError, UnknownDtypeError


def decoded(code: int, *, bits: int, mantissa: int, bias: int, special: str) -> float:
    """Value of a floating-point code: sign, exponent, mantissa, as the standards define them."""
    sign = -1.0 if code >> (bits - 1) else 1.0
    exponent = (code >> mantissa) & ((1 << (bits - 1 - mantissa)) - 1)
    fraction = code & ((1 << mantissa) - 1)
    top = (1 << (bits - 1 - mantissa)) - 1
    if special == "ieee" and exponent == top:
        return math.nan if fraction else sign * math.inf
    if special == "fn" and exponent == top and fraction == (1 << mantissa) - 1:
        return math.nan
    if special == "fnuz" and code == 1 << (bits - 1):
        return math.nan
    if exponent == 0:
        return sign * math.ldexp(fraction, 1 - bias - mantissa)
    return sign * math.ldexp((1 << mantissa) + fraction, exponent - bias - mantissa)


FORMATS = {
    torch.float16: {"bits": 16, "mantissa": 10, "bias": 15, "special": "ieee"},
    torch.bfloat16: {"bits": 16, "mantissa": 7, "bias": 127, "special": "ieee"},
    torch.float8_e4m3fn: {"bits": 8, "mantissa": 3, "bias": 7, "special": "fn"},
    torch.float8_e4m3fnuz: {"bits": 8, "mantissa": 3, "bias": 8, "special": "fnuz"},
    torch.float8_e5m2: {"bits": 8, "mantissa": 2, "bias": 15, "special": "ieee"},
    torch.float8_e5m2fnuz: {"bits": 8, "mantissa": 2, "bias": 16, "special": "fnuz"},
}


@pytest.mark.parametrize("target", [torch.float64, torch.float32])
@pytest.mark.parametrize("stored", FORMATS, ids=str)
def test_every_code_has_its_value(stored, target):
    layout = FORMATS[stored]
    integers = torch.arange(1 << layout["bits"])
    codes = integers.to(torch.uint16 if layout["bits"] == 16 else torch.uint8).view(stored)
    exact = torch.tensor([decoded(c, **layout) for c in integers.tolist()], dtype=torch.float64)
    wide = widen(codes, target)
    assert wide.dtype == target
    assert torch.equal(wide.isnan(), exact.isnan())
    number = ~exact.isnan()
    assert torch.equal(wide[number].double(), exact[number])
    assert torch.equal(wide[number].signbit(), exact[number].signbit())


@pytest.mark.parametrize("target", [torch.float64, torch.float32])
def test_exponent_only_type_holds_powers_of_two(target):
    codes = torch.arange(255, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    expected = torch.tensor([math.ldexp(1.0, k - 127) for k in range(255)], dtype=torch.float64)
    assert torch.equal(widen(codes, target).double(), expected)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32]
)
def test_integers_at_their_ends(dtype):
    ends = torch.iinfo(dtype)
    tensor = torch.tensor([ends.min, ends.max, ends.max - 1], dtype=torch.int64)
    assert widen(tensor.to(dtype)).long().equal(tensor)


def test_nothing_to_do_returns_the_tensor_itself():
    tensor = torch.ones(3, dtype=torch.float64)
    assert widen(tensor) is tensor


@pytest.mark.parametrize(
    ("tensor", "dtype", "kind"),
    [
        (torch.ones(2, dtype=torch.float64), torch.float32, InputError),
        (torch.ones(2, dtype=torch.int32), torch.float32, InputError),
        (torch.ones(2), torch.float16, InputError),
        (torch.ones(2), torch.bfloat16, InputError),
        (torch.ones(2, dtype=torch.int64), torch.float64, UnknownDtypeError),
        (torch.ones(2, dtype=torch.complex64), torch.float64, UnknownDtypeError),
    ],
)
def test_inexact_widening_is_refused(tensor, dtype, kind):
    with pytest.raises(kind) as error:
        widen(tensor, dtype)
    assert error.value.hint


class TestScale:
    stored = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1), (4, 1), (1, 6), (4, 6)])
    def test_product_is_exact_in_float64(self, shape):
        # 4 bits of float8 times 24 of float32 stay within the 53 of float64.
        scale = torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.5
        product = widen(self.stored, scale=scale)
        assert product.shape == self.stored.shape
        assert product.equal(self.stored.double() * scale.double())

    def test_number(self):
        assert widen(self.stored, scale=0.5).equal(self.stored.double() / 2)

    def test_scale_in_powers_of_two(self):
        scale = torch.tensor([2.0]).to(torch.float8_e8m0fnu)
        assert widen(self.stored, scale=scale).equal(self.stored.double() * 2)

    @pytest.mark.parametrize("shape", [(6,), (4,), (2, 3), (1, 4, 6), (6, 4)])
    def test_shape_that_could_be_meant_otherwise_is_refused(self, shape):
        with pytest.raises(InputError, match="scale of shape") as error:
            widen(self.stored, scale=torch.ones(shape))
        assert error.value.hint

    def test_complex_scale_is_refused(self):
        with pytest.raises(InputError, match="complex"):
            widen(self.stored, scale=torch.ones(1, dtype=torch.complex64))
