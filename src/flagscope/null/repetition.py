"""Repetition in stored matrices: rows and columns that are equal, values that are few.

Equal numbers round alike, so the rounding errors of a matrix in which numbers repeat are not
independent. Everything here works on the stored bits as integers, whatever the format.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

# Entries of a line that are looked at first. Lines that differ do so there, unless they are sparse.
_PROBE = 32

# Entries of a map whose values are counted, on a grid of rows and columns.
_SAMPLE = 1 << 12

# Fewer values than this have too little to say.
_FEWEST = 16

# Last bits of the mantissa that are 0 in all of them where they were rounded to a shorter format
# before: by chance with probability 2^-64 or less.
_LAST_BITS, _LONG = 4, 10

# Entries hashed at a time: 128 KiB of 64-bit integers, which stay in a core's cache.
_BLOCK = 1 << 14

# 2^64 over the golden ratio, odd, as a signed integer: multiplying by it spreads digits upwards (D.
# Knuth, The Art of Computer Programming, volume 3, section 6.4).
_GOLDEN = -7046029254386353131


def line_keys(bits: Integer[Tensor, "b p m"], axis: int) -> Int[Tensor, "b lines"] | None:
    """Integers that are equal for rows (axis -1) or columns (axis -2) that are equal up to sign.

    Parameters
    ----------
    bits
        The stored numbers, viewed as integers of the same width.
    axis
        The axis along which a line runs.

    Returns
    -------
    Tensor or None
        Each line's key: 0 for a zero line. None where no two lines of a map are equal, which
        usually the first look at 32 entries a line says. Different lines get one key with
        probability 2^-63.
    """
    length = bits.shape[axis]
    step = -(-length // _PROBE)
    keys = _hashes(bits[..., ::step] if axis == -1 else bits[..., ::step, :], axis)
    if _has_pairs(keys) and step > 1:
        keys = _hashes(bits, axis)
    return keys if _has_pairs(keys) else None


def group_sums(
    keys: Int[Tensor, "b lines"], sums: Float[Tensor, "b lines"]
) -> tuple[Float[Tensor, "b lines"], Bool[Tensor, "b lines"]]:
    """Sums over the lines with the same key, in any order; and which line is the first of its key.

    Zero lines stay by themselves: what was rounded to zero was not equal before.
    """
    ordered, order = keys.sort(dim=-1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[..., 1:] = (ordered[..., 1:] != ordered[..., :-1]) | (ordered[..., 1:] == 0)
    group = first.cumsum(-1) - 1
    totals = torch.zeros_like(sums).scatter_add_(-1, group, sums.gather(-1, order))
    return totals, torch.empty_like(first).scatter_(-1, order, first)


def few_values(
    bits: Integer[Tensor, "b p m"],
    rows: Bool[Tensor, "b p"],
    columns: Bool[Tensor, "b m"],
    *,
    mantissa: int,
) -> Bool[Tensor, " b"]:
    """Whether a map has far fewer values than numbers of a continuous law, or shorter ones.

    Parameters
    ----------
    bits
        The stored numbers, viewed as integers of the same width.
    rows, columns
        Which of them are looked at.
    mantissa
        Stored bits of the mantissa.

    Notes
    -----
    Counted are the magnitudes in a sample of up to 4096 entries, zeros and subnormals left out.
    Of c numbers with one exponent, spread over the L representable ones between the least and the
    greatest found, L(1 - (1 - 1/L)^c) are expected to be distinct; fewer than half are few. L is 4
    at least: numbers within one spacing round alike too. In formats with a mantissa of 10 bits and
    more, numbers that all end in four zeros are those of a shorter format.
    """
    count, p, m = bits.shape
    height = min(p, max(128, _SAMPLE // m))
    down, across = -(-p // height), -(-m // min(m, _SAMPLE // height))
    sign = 1 << (8 * bits.element_size() - 1)
    # A uint8 has no sign to lose, and int32 holds all but float64's.
    wide = torch.int64 if bits.element_size() == 8 else torch.int32
    magnitude = bits[:, ::down, ::across].to(wide) & (sign - 1)
    exponent = magnitude >> mantissa
    known = (exponent > 0) & rows[:, ::down, None] & columns[:, None, ::across]
    # What does not count gets the exponent 0 and is dropped with it.
    value = torch.where(known, magnitude, 0).reshape(count, -1).sort(-1).values
    index = (value >> mantissa).long()
    fresh = torch.ones_like(value, dtype=torch.bool)
    fresh[:, 1:] = value[:, 1:] != value[:, :-1]
    shape = (count, int(index.max()) + 1)
    zeros = torch.zeros(shape, dtype=torch.float64, device=bits.device)
    total = zeros.scatter_add(1, index, torch.ones_like(index, dtype=torch.float64))
    distinct = zeros.scatter_add(1, index, fresh.double())
    place = (value & ((1 << mantissa) - 1)).double()
    span = (
        zeros.scatter_reduce(1, index, place, "amax", include_self=False)
        - zeros.scatter_reduce(1, index, place, "amin", include_self=False)
        + 1
    ).clamp_min(4)
    expected = -span * torch.expm1(total * torch.log1p(-1 / span))
    few = distinct[:, 1:].sum(-1) < expected[:, 1:].sum(-1) / 2
    if mantissa >= _LONG:
        few |= ((value & ((1 << _LAST_BITS) - 1)) == 0).all(-1)
    return few & (total[:, 1:].sum(-1) >= _FEWEST)


def _has_pairs(keys: Int[Tensor, "b lines"]) -> bool:
    ordered = keys.sort(dim=-1).values
    return bool(((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != 0)).any())


def _hashes(bits: Integer[Tensor, "b p m"], axis: int) -> Int[Tensor, "b lines"]:
    """Σ_j a_j f(w_j) modulo 2^64 with odd f, of which the sign is dropped."""
    if bits.dtype == torch.uint8:
        # The highest bit is the sign in every format.
        bits = bits.view(torch.int8)
    mask = (1 << (8 * bits.element_size() - 1)) - 1
    factors = _mixed(_mixed(torch.arange(1, bits.shape[axis] + 1, device=bits.device)))
    span = max(1, _BLOCK // (bits.numel() // bits.shape[1]))
    total, parts = torch.zeros_like(bits[:, 0], dtype=torch.int64), []
    for start in range(0, bits.shape[1], span):
        wide = bits[:, start : start + span].to(torch.int64)
        # All ones where the number is negative: (x ^ -1) - -1 is -x. `wide` may be the weights.
        negative = wide >> 63
        keys = _mixed(wide & mask).bitwise_xor_(negative).sub_(negative)
        if axis == -1:
            parts.append(keys.mul_(factors).sum(-1))
        else:
            total += keys.mul_(factors[start : start + span, None]).sum(-2)
    sums = torch.cat(parts, dim=-1) if axis == -1 else total
    return torch.maximum(sums, -sums)


def _mixed(v: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """A one-to-one map of 64-bit integers, 0 to 0, that spreads their digits up and down."""
    v = v * _GOLDEN
    return v.bitwise_xor_((v >> 32).bitwise_and_(0xFFFFFFFF))
