"""Stored numbers with a scale next to them: which rule made the scales, and the codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.scales import spread_scale
from flagscope.comparison.content.checks import Check, SideName
from flagscope.comparison.content.naming import differing_bits, finite
from flagscope.comparison.content.pairing import Pair
from flagscope.comparison.content.reading import Rows, bits_of, rows_of
from flagscope.errors import FlagscopeError
from flagscope.records.comparison.content_parts import ScaleDifference

# A scale is one of a tensor, a row or a block; more groups than this are not kept.
_MOST_GROUPS = 1 << 22
_NAMED = 8
# A quotient in float32, and its product with a reciprocal that was rounded.
_ARITHMETIC = 2.0**-22
# Groups from which a rule of scales may be inferred, and how many of them may break it.
_LEAST_GROUPS, _BREAK = 10, 0.01


@dataclass(frozen=True)
class Scales:
    """The largest magnitude of each group of numbers, and the scale that is stored for it."""

    stored: Tensor
    largest: Tensor
    index_of: Tensor
    limit: float

    def expected(self, rule: Callable[[Tensor, float], Tensor]) -> Tensor:
        """The scales that a rule gives, in the type in which they are stored."""
        return rule(self.largest.to(torch.float32), self.limit).to(self.stored.dtype)


def _over(largest: Tensor, limit: float) -> Tensor:
    return largest / limit


def _times(largest: Tensor, limit: float) -> Tensor:
    return largest * torch.tensor(1 / limit, dtype=torch.float32)


def _wide(largest: Tensor, limit: float) -> Tensor:
    return (largest.to(torch.float64) / limit).to(torch.float32)


def _half_more(largest: Tensor, limit: float) -> Tensor:
    return largest / (limit + 0.5)


def _one_more(largest: Tensor, limit: float) -> Tensor:
    return largest / (limit + 1)


def _power(largest: Tensor, limit: float) -> Tensor:
    return torch.exp2(torch.ceil(torch.log2(largest / limit)))


SCALE_RULES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "max |x| / {0:g}": _over,
    "max |x| · (1 / {0:g})": _times,
    "max |x| / {0:g} in float64": _wide,
    "max |x| / {0:g}.5": _half_more,
    "max |x| / ({0:g} + 1)": _one_more,
    "the power of 2 above max |x| / {0:g}": _power,
}


def group_scales(pair: Pair, rounded: SideName, a: Checkpoint, b: Checkpoint) -> Scales | None:
    """Scales of a tensor and the largest magnitude that each stands for; None without scales."""
    checkpoint = a if rounded == "a" else b
    info = pair.a if rounded == "a" else pair.b
    name = checkpoint.scale_name(info.name)
    if name is None or pair.transposed or pair.common_shape != info.shape:
        return None
    stored = checkpoint.read(name)
    if not stored.is_floating_point() or stored.numel() > _MOST_GROUPS or name.endswith("SCB"):
        return None
    numbers = torch.arange(stored.numel(), dtype=torch.float64).reshape(stored.shape)
    whole = tuple(slice(0, size) for size in info.shape)
    try:
        index = spread_scale(
            numbers, whole, info.shape, tensor=info.name, name=name, config=checkpoint.config
        )
    except FlagscopeError:
        return None
    largest = torch.zeros(stored.numel(), dtype=torch.float64)
    kind = torch.int8 if info.dtype == "int8" else getattr(torch, info.dtype)
    for rows in rows_of(pair, a, b):
        source = (rows.b if rounded == "a" else rows.a).values
        places = group_index(index, rows.start, source)
        magnitudes = source.abs().nan_to_num(0.0, 0.0, 0.0).reshape(-1)
        largest.scatter_reduce_(0, places.reshape(-1), magnitudes, "amax")
    limit = 127.0 if kind == torch.int8 else torch.finfo(kind).max
    return Scales(stored.reshape(-1), largest, index, limit)


def group_index(index: Tensor, start: int, like: Tensor) -> Tensor:
    """Number of the group of each entry of a run of rows."""
    part = index if index.ndim == 0 else index[start : start + len(like)]
    return part.expand(like.shape).to(torch.int64)


def common_rule(every: Sequence[Scales]) -> str | None:
    """The rule that nearly all scales of all tensors follow; None if there is none."""
    total = sum(len(scales.stored) for scales in every)
    if total < _LEAST_GROUPS:
        return None
    kept = max(1, int(_BREAK * total))
    counts = {
        name: sum(int((scales.expected(rule) != scales.stored).sum()) for scales in every)
        for name, rule in SCALE_RULES.items()
    }
    best = min(counts, key=lambda name: counts[name])
    return best if counts[best] <= kept else None


class Scaled(Check):
    """One side is codes over a stored scale, rounded from the other side's numbers."""

    def __init__(self, rounded: SideName, scales: Scales, rule: str | None) -> None:
        super().__init__()
        self.rounded, self._scales = rounded, scales
        self._factors = scales.stored.to(torch.float32)
        text = "" if rule is None else f", scale {rule.format(scales.limit)}"
        self.name = f"rounded to codes over a scale{text}"
        if rule is None:
            return
        expected = scales.expected(SCALE_RULES[rule])
        off = (expected != scales.stored).nonzero().flatten().tolist()
        self.tally.groups, self.tally.groups_outside = len(expected), len(off)
        self._factors = expected.to(torch.float32)
        for group in off[:_NAMED]:
            self.tally.scales.append(
                ScaleDifference(
                    place=f"scale {group} of {len(expected)}",
                    expected=finite(float(expected[group])),
                    found=finite(float(scales.stored[group])),
                    bits=differing_bits(expected[group], scales.stored[group]),
                )
            )

    def _quotients(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Stored codes, and what was rounded to them, clipped to what the type holds."""
        stored, source = self._sides(rows)
        factor = self._factors[group_index(self._scales.index_of, rows.start, source.values)]
        limit = self._scales.limit
        low = -128.0 if stored.stored.dtype == torch.int8 else -limit
        values = source.values.to(torch.float32)
        return stored.stored, torch.where(factor != 0, values / factor, 0.0).clamp(low, limit)

    def _outside(self, rows: Rows) -> Tensor:
        codes, steps = self._quotients(rows)
        if codes.dtype == torch.int8:
            reach = 0.5 + _ARITHMETIC * steps.abs()
            return ~((steps - codes.to(torch.float32)).abs() <= reach)
        there = bits_of(codes)
        limit = self._scales.limit
        within = torch.zeros(codes.shape, dtype=torch.bool)
        for turn in (1.0, 1 + _ARITHMETIC, 1 - _ARITHMETIC):
            rounded = (steps * turn).clamp(-limit, limit).to(codes.dtype)
            within |= bits_of(rounded) == there
        return ~within

    def _bits(self, rows: Rows, place: int) -> str | None:
        codes, steps = self._quotients(rows)
        step = steps.reshape(-1)[place].reshape(1)
        expected = step.round() if codes.dtype == torch.int8 else step
        return differing_bits(expected.to(codes.dtype), codes.reshape(-1)[place])
