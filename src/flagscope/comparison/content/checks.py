"""Rules that say which entries of a pair rounding explains, one class each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from flagscope.checkpoint import TensorInfo
from flagscope.checkpoint.dtypes import dtype_name
from flagscope.comparison.content.encodings import Codes, Rule, group_length
from flagscope.comparison.content.evidence import CastEvidence
from flagscope.comparison.content.grids import clipped_ends, half_steps
from flagscope.comparison.content.naming import (
    code_bits,
    differing_bits,
    finite,
    in_words,
    position,
)
from flagscope.comparison.content.reading import Rows, Side, bits_of
from flagscope.records.comparison.content_parts import EntryDifference, ScaleDifference
from flagscope.spacing import spacing

SideName = Literal["a", "b"]
# Types with arithmetic of their own.
_STANDARD = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Entries and scales that are named.
_NAMED = 8
# A rule that explains fewer of the first rows' entries is given up.
_LEAST = 0.9
# Entries on which a rule is tried first.
_PROBE = 1 << 14
# Steps of formats with a least entry come from a difference in float32.
_STEP_ERROR = 2.0**-13


@dataclass
class Tally:
    """What a check has found so far."""

    checked: int = 0
    outside: int = 0
    clipped: int = 0
    entries: list[EntryDifference] = field(default_factory=list)
    groups: int = 0
    groups_outside: int = 0
    scales: list[ScaleDifference] = field(default_factory=list)
    given_up: bool = False


class Check(ABC):
    """A rule, and the entries that do not follow it.

    Attributes
    ----------
    name
        The rule in words; None for the half steps of both grids.
    rounded
        The side that the rule gives; None where it treats both alike.
    most
        Entries outside from which on they are not named, and a rule is given up.
    """

    name: str | None = None
    rounded: SideName | None = None
    most: int | None = None

    def __init__(self) -> None:
        self.tally = Tally()

    def add(self, rows: Rows) -> None:
        """Check a run of rows."""
        if self.tally.given_up:
            return
        mask = self._outside(rows)
        if mask is None:
            self.tally.given_up = True
            return
        self.tally.checked += mask.numel()
        count = int(torch.count_nonzero(mask))
        self.tally.outside += count
        many = self.most is not None and self.tally.outside > self.most
        if self.name is not None and (
            many or self.tally.outside > (1 - _LEAST) * self.tally.checked + 1
        ):
            self.tally.given_up = True
        if count and not many and len(self.tally.entries) < _NAMED:
            self._name(rows, mask)

    @abstractmethod
    def _outside(self, rows: Rows) -> Tensor | None:
        """Entries that the rule does not explain; None where it cannot be applied."""

    def _bits(self, rows: Rows, place: int) -> str | None:
        """Which bits of an entry differ from what the rule gives."""
        one, other = rows.a.stored.reshape(-1), rows.b.stored.reshape(-1)
        plain = rows.a.step is None and rows.b.step is None
        return differing_bits(one[place], other[place]) if plain else None

    def _name(self, rows: Rows, mask: Tensor) -> None:
        left = _NAMED - len(self.tally.entries)
        shape = tuple(rows.a.values.shape)
        for place in mask.reshape(-1).nonzero().flatten()[:left].tolist():
            a = float(rows.a.values.reshape(-1)[place])
            b = float(rows.b.values.reshape(-1)[place])
            entry = EntryDifference(
                index=position(place, shape, rows.start), value_a=finite(a), value_b=finite(b),
                text_a=in_words(a), text_b=in_words(b), bits=self._bits(rows, place),
            )  # fmt: skip
            self.tally.entries.append(entry)

    def _sides(self, rows: Rows) -> tuple[Side, Side]:
        """The side that was rounded, and what it was rounded from."""
        return (rows.a, rows.b) if self.rounded == "a" else (rows.b, rows.a)


def same_entries(one: Tensor, other: Tensor, a: Tensor, b: Tensor, *, nan: bool = True) -> Tensor:
    """Which entries are equal: in every bit where the types are one, else in value.

    A zero of the other sign is another number there. All NaN count as one; `nan` is False where
    there is none.
    """
    equal = bits_of(one) == bits_of(other) if one.dtype == other.dtype else a == b
    return equal | (a.isnan() & b.isnan()) if nan else equal


class WithinSteps(Check):
    """Entries within the half steps of both grids; equal ones where both have one plain type.

    One plain type on both sides is one grid, and what is rounded to a grid twice is not moved.

    Attributes
    ----------
    one_grid
        Whether that is so, after rows were added.
    """

    def __init__(self, a: TensorInfo, b: TensorInfo) -> None:
        super().__init__()
        self._a, self._b = a, b
        self.one_grid = False
        self._squares, self._counted = 0.0, 0

    @property
    def step_rms(self) -> float | None:
        """Root mean square of the differences in steps of the coarser grid."""
        mean = self._squares / max(1, self._counted)
        return mean**0.5 if self._counted and math.isfinite(mean) else None

    def _outside(self, rows: Rows) -> Tensor:
        a, b = rows.a.values, rows.b.values
        same_type = rows.a.stored.dtype == rows.b.stored.dtype
        self.one_grid = one_grid = same_type and rows.a.plain and rows.b.plain
        gap = (a - b).abs_()
        if one_grid:
            self._count_steps(gap, self._largest_half(rows))
            return ~same_entries(rows.a.stored, rows.b.stored, a, b, nan=not rows.finite)
        equal = a == b
        if not rows.finite:
            equal |= a.isnan() & b.isnan()
        one, other = half_steps(rows.a, self._a), half_steps(rows.b, self._b)
        self._count_steps(gap, torch.maximum(one, other))
        clipped = clipped_ends(rows.a, b, self._a) | clipped_ends(rows.b, a, self._b)
        # Sums in float64 of numbers that it holds: a unit in the last place of the larger.
        bound = one + other + 2.0**-50 * torch.maximum(a.abs(), b.abs())
        within = equal | (gap <= bound)
        self.tally.clipped += int((clipped & ~within).sum())
        return ~(within | clipped)

    def _largest_half(self, rows: Rows) -> Tensor:
        """The larger of both half steps, where both sides are of one plain type."""
        one, other = rows.a.stored, rows.b.stored
        if one.dtype in _STANDARD:
            # The step at the larger of two numbers is the larger step.
            largest = torch.maximum(one.abs(), other.abs())
            return half_steps(replace(rows.a, stored=largest), self._a)
        return torch.maximum(half_steps(rows.a, self._a), half_steps(rows.b, self._b))

    def _count_steps(self, gap: Tensor, half: Tensor) -> None:
        """Add the squares of gaps in steps, where both are finite and there is a step."""
        steps = (gap / half).reshape(-1)
        square, counted = float(steps.dot(steps)) / 4, steps.numel()
        if not math.isfinite(square):
            fine = steps[steps.isfinite()]
            square, counted = float(fine.dot(fine)) / 4, fine.numel()
        self._squares += square
        self._counted += counted


class Cast(Check):
    """One side is the other, cast to one floating-point type or to two in turn.

    Attributes
    ----------
    evidence
        What shows that the cast was made.
    """

    def __init__(
        self, rounded: SideName, types: tuple[torch.dtype, ...], *, toward_zero: bool = False
    ) -> None:
        super().__init__()
        self.rounded, self._types, self._toward_zero = rounded, types, toward_zero
        self.evidence = CastEvidence()
        way = " and then to ".join(dtype_name(kind) for kind in types)
        self.name = f"{'cut off' if toward_zero else 'rounded'} to {way}"

    def _expected(self, source: Tensor) -> Tensor:
        if self._toward_zero:
            bits = source.to(torch.float32).contiguous().view(torch.int32) & ~0xFFFF
            return bits.view(torch.float32).to(self._types[-1])
        for kind in self._types:
            source = source.to(kind)
        return source

    def _outside(self, rows: Rows) -> Tensor:
        stored, source = self._sides(rows)
        expected = self._expected(source.values).to(stored.stored.dtype)
        # A cast may overflow to NaN: no finite number that is stored equals that.
        held = same_entries(expected, stored.stored, expected, stored.values, nan=not rows.finite)
        self._look(stored, source, held)
        return ~held

    def _look(self, stored: Side, source: Side, held: Tensor) -> None:
        """Add the entries that follow the cast to what shows that it was made."""
        rounded, values = stored.values[held], source.values[held]
        step = spacing(rounded.to(self._types[0]))
        if step is not None:
            self.evidence.add(rounded, (values - rounded) / (step / 2))

    def _bits(self, rows: Rows, place: int) -> str | None:
        stored, source = self._sides(rows)
        last = stored.stored.dtype
        expected = self._expected(source.values.reshape(-1)[place].reshape(1)).to(last)
        return differing_bits(expected, stored.stored.reshape(-1)[place])


class Blocks(Check):
    """One side is codes of blocks, with scales that a rule makes of the other side's numbers."""

    def __init__(self, rounded: SideName, info: TensorInfo, name: str, rule: Rule) -> None:
        super().__init__()
        self.rounded, self.name, self._rule = rounded, name, rule
        self._kind = info.quantised or ""
        self._length: int | None = None

    def _blocks(self, rows: Rows) -> tuple[Codes, Tensor, Tensor, Tensor] | None:
        stored, source = self._sides(rows)
        if stored.step is None or stored.values.ndim != 2:
            return None
        if not bool(torch.isfinite(source.values).all() & torch.isfinite(stored.values).all()):
            return None
        if self._length is None:
            self._length = group_length(stored.step, self._kind)
        if self._length is None:
            return None
        x, v, step = (
            part.reshape(-1, self._length) for part in (source.values, stored.values, stored.step)
        )
        return self._rule(x), x, v, step[:, :1].to(torch.float64)

    def _holds(self, rows: Rows) -> bool:
        """Whether the rule explains most of the first entries; most rules fail there."""
        count = max(1, _PROBE // max(1, rows.a.values[0].numel()))
        blocks = self._blocks(rows.first(count))
        if blocks is None:
            return False
        codes, x, v, _ = blocks
        return float(codes.obeyed(x, v).double().mean()) >= _LEAST / 2

    def _outside(self, rows: Rows) -> Tensor | None:
        if not self.tally.checked and not self._holds(rows):
            return None
        blocks = self._blocks(rows)
        if blocks is None:
            return None
        codes, x, v, step = blocks
        expected = codes.stored.abs()
        off = (step - expected).abs() > _STEP_ERROR * expected
        obeyed = codes.obeyed(x, v)
        if bool(off.any()):
            self._note_scales(rows, off, codes, step)
            found = Codes(
                codes.scale, torch.where(off, codes.stored.sign() * step, codes.stored),
                codes.low, codes.high, codes.least, codes.least_before,
            )  # fmt: skip
            obeyed = torch.where(off, found.obeyed(x, v), obeyed)
        self.tally.groups += len(off)
        return ~obeyed.reshape(rows.a.values.shape)

    def _note_scales(self, rows: Rows, off: Tensor, codes: Codes, step: Tensor) -> None:
        self.tally.groups_outside += int(off.sum())
        if self.tally.groups_outside > max(1, self.tally.checked) // 8 + _NAMED * 4:
            return
        length = self._length or 1
        across = rows.a.values.shape[-1] // length
        for block in off.flatten().nonzero().flatten()[: _NAMED - len(self.tally.scales)].tolist():
            row, column = divmod(block, across)
            first = column * length
            wanted, there = float(codes.stored[block]), float(step[block])
            there = -there if wanted < 0 else there
            half = (torch.tensor(value).half() for value in (wanted, there))
            self.tally.scales.append(
                ScaleDifference(
                    place=f"row {row + rows.start}, columns {first} to {first + length - 1}",
                    expected=finite(wanted),
                    found=finite(there),
                    bits=differing_bits(*half),
                )
            )

    def _bits(self, rows: Rows, place: int) -> str | None:
        blocks = self._blocks(rows)
        if blocks is None:
            return None
        codes, x, v, _ = blocks
        block, within = divmod(place, x.shape[-1])
        wanted = int(codes.quotients(x)[block, within].round())
        there = int(codes.codes(v)[block, within].round())
        low = int(codes.low[block, 0])
        width = int(codes.high[block, 0] - low).bit_length()
        if self._kind == "Q8_0":  # two's complement
            changed = (wanted & 255) ^ (there & 255)
        else:
            changed = (wanted - low) ^ (there - low) if there >= low else 0
        return code_bits(changed, width, f"code of {width} bits")
