"""Rules by which quantisers make codes and scales of blocks of numbers, replayed.

| format | scale d | code |
|---|---|---|
| Q8_0 | max |x| / 127 | round(x / d) |
| Q4_0, Q5_0 | -(x of largest |x|) / 8, 16 | round(x / d), at most 7, 15 |
| Q4_1, Q5_1 | (max - min) / 15, 31 | round((x - min) / d) |
| GPTQ, AWQ, symmetric | 2 max |x| / (2^b - 1) or max |x| / (2^{b-1} - 1) | round(x / d), clipped |
| GPTQ, AWQ with zeros | (max - min) / (2^b - 1), 0 within | round(x / d) + zero, clipped |

References: ggml-org/llama.cpp, ggml/src/ggml-quants.c, quantize_row_q*_ref; AutoGPTQ,
quantization/quantizer.py, find_params; llm-awq, quantize/quantizer.py, pseudo_quantize_tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# A quotient by a scale that was made in float32, and its product with a reciprocal.
_ARITHMETIC = 2.0**-20


@dataclass(frozen=True)
class Codes:
    """What a rule makes of blocks of numbers.

    Attributes
    ----------
    scale
        Before it is rounded to the type in which it is stored, (blocks, 1).
    stored
        As it is stored.
    low, high
        Smallest and largest code, as multiples of the scale.
    least
        What is added to the multiples, as stored; and before it is rounded.
    """

    scale: Float[Tensor, "blocks 1"]
    stored: Float[Tensor, "blocks 1"]
    low: Float[Tensor, "blocks 1"]
    high: Float[Tensor, "blocks 1"]
    least: Float[Tensor, "blocks 1"]
    least_before: Float[Tensor, "blocks 1"]

    def quotients(self, x: Tensor) -> Tensor:
        """The numbers in steps, between the smallest and the largest code."""
        steps = torch.where(self.scale != 0, (x - self.least_before) / self.scale, 0.0)
        return torch.minimum(torch.maximum(steps, self.low), self.high)

    def expected(self, x: Tensor) -> Tensor:
        """The numbers that the codes stand for."""
        return self.quotients(x).round() * self.stored + self.least

    def codes(self, values: Tensor) -> Tensor:
        """The multiples that values stand for, not rounded."""
        return torch.where(self.stored != 0, (values - self.least) / self.stored, 0.0)

    def obeyed(self, x: Tensor, values: Tensor) -> Tensor:
        """Which values the rule gives, either neighbour of a tie among them."""
        codes = self.codes(values)
        whole = (codes - codes.round()).abs() <= _ARITHMETIC * codes.abs() + 1e-9
        steps = self.quotients(x)
        reach = 0.5 + _ARITHMETIC * (1 + steps.abs())
        exact = torch.where(self.stored == 0, values == self.least, whole)
        return exact & ((steps - codes.round()).abs() <= reach) & self._within(codes)

    def _within(self, codes: Tensor) -> Tensor:
        return (codes >= self.low - 0.5) & (codes <= self.high + 0.5)


Rule = Callable[[Tensor], Codes]


def _half(scale: Tensor) -> Tensor:
    return scale.to(torch.float16).to(torch.float64)


def _filled(like: Tensor, value: float) -> Tensor:
    return torch.full_like(like, value)


def symmetric(levels: float, low: int, high: int, *, least_scale: float = 0.0) -> Rule:
    """max |x| / levels, and codes around 0."""

    def rule(x: Tensor) -> Codes:
        scale = (x.abs().amax(-1, keepdim=True).float() / levels).double().clamp_min(least_scale)
        zero = torch.zeros_like(scale)
        stored = _half(scale)
        return Codes(scale, stored, _filled(scale, low), _filled(scale, high), zero, zero)

    return rule


def signed_largest(half: int) -> Rule:
    """The entry of largest magnitude becomes the code -half."""

    def rule(x: Tensor) -> Codes:
        place = x.abs().argmax(-1, keepdim=True)
        scale = (x.gather(-1, place).float() / -half).double()
        zero = torch.zeros_like(scale)
        return Codes(
            scale, _half(scale), _filled(scale, -half), _filled(scale, half - 1), zero, zero
        )

    return rule


def from_least(levels: int) -> Rule:
    """The least entry becomes the code 0, the largest the code `levels`."""

    def rule(x: Tensor) -> Codes:
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        scale = ((high.float() - low.float()) / levels).double()
        zero = torch.zeros_like(scale)
        return Codes(scale, _half(scale), zero, _filled(scale, levels), _half(low), low)

    return rule


def with_zero(bits: int, *, around_zero: bool) -> Rule:
    """A whole zero between the least and the largest entry; the range holds 0 if that is asked."""
    levels = 2**bits - 1

    def rule(x: Tensor) -> Codes:
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        if around_zero:
            low, high = low.clamp_max(0.0), high.clamp_min(0.0)
        scale = ((high.float() - low.float()) / levels).double().clamp_min(1e-9)
        zero = (-low / scale).round().clamp(0, levels)
        nothing = torch.zeros_like(scale)
        return Codes(scale, _half(scale), -zero, levels - zero, nothing, nothing)

    return rule


def encoding_rules(kind: str) -> dict[str, Rule]:
    """Rules that may have made a format's codes, by what they are called."""
    if kind == "Q8_0":
        return {"Q8_0, scale max |x| / 127": symmetric(127, -127, 127)}
    if kind in ("Q4_0", "Q5_0"):
        half = 8 if kind == "Q4_0" else 16
        return {f"{kind}, scale of the largest entry / -{half}": signed_largest(half)}
    if kind in ("Q4_1", "Q5_1"):
        levels = 15 if kind == "Q4_1" else 31
        return {f"{kind}, scale (max - min) / {levels}": from_least(levels)}
    bits = _bits(kind)
    if bits is None:
        return {}
    top = 2 ** (bits - 1)
    return {
        f"round to nearest, {bits} bits with zeros": with_zero(bits, around_zero=True),
        f"round to nearest, {bits} bits with zeros, ends not around 0": with_zero(
            bits, around_zero=False),
        f"round to nearest, {bits} bits, scale 2 max |x| / {2 * top - 1}": symmetric(
            (2 * top - 1) / 2, -top, top - 1),
        f"round to nearest, {bits} bits, scale max |x| / {top - 1}": symmetric(
            top - 1, -top, top - 1),
        f"round to nearest, {bits} bits, scale max |x| / {top}": symmetric(top, -top, top - 1),
    }  # fmt: skip


def _bits(kind: str) -> int | None:
    """Bits of a code of a format with groups of integers."""
    for start, take in (("GPTQ ", slice(5, 6)), ("AWQ ", slice(4, 5)),
                        ("compressed-tensors int", slice(22, 23))):  # fmt: skip
        digit = kind[take]
        if kind.startswith(start) and digit.isdigit() and 2 <= int(digit) <= 8:
            return int(digit)
    return None


def group_length(step: Float[Tensor, "rows columns"], kind: str) -> int | None:
    """Entries of the last axis that share a scale; None where they do not lie together."""
    columns = step.shape[-1]
    if kind.startswith("Q"):
        length = 32
        if columns % length:
            return None
    else:
        changes = (step[:, 1:] != step[:, :-1]).any(0).nonzero().flatten() + 1
        length = columns
        for place in changes.tolist():
            length = math.gcd(length, place)
            if length == 1:
                return None
    blocks = step.reshape(len(step), -1, length)
    return length if bool((blocks == blocks[..., :1]).all()) else None
