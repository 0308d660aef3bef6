"""One module of an adapter against base and merged model: what the merged tensor is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flagscope.comparison.adapters.blocks import Block, Source
from flagscope.comparison.adapters.grids import Rounded, grids
from flagscope.comparison.adapters.least_squares import LeastSquares
from flagscope.comparison.adapters.replays import (
    Added,
    AddedTwice,
    Exchanged,
    Rescaled,
)
from flagscope.comparison.adapters.roundings import STANDARD, roundings
from flagscope.comparison.adapters.strength import Strengths

# Entries of the first rows, of which strengths are always looked at.
_FIRST = 1 << 19


def _is_early(block: Block) -> bool:
    return block.start == 0 or block.stop * block.base.shape[1] <= _FIRST


@dataclass
class Measured:
    """What two readings of a tensor give.

    Attributes
    ----------
    fit
        Least squares.
    added
        W + s·B A in every order of roundings; empty where the merged tensor is packed.
    strengths
        Strengths that round to the tensor, in every order.
    rescaled
        DoRA's replay; None for plain LoRA.
    twice, exchanged, transposed, rounded
        Of the second reading, which is made where the first explains nothing.
    """

    fit: LeastSquares
    added: list[Added] = field(default_factory=list)
    strengths: list[Strengths] = field(default_factory=list)
    rescaled: list[Rescaled] = field(default_factory=list)
    twice: list[AddedTwice] = field(default_factory=list)
    exchanged: list[Exchanged] = field(default_factory=list)
    transposed: list[Strengths] = field(default_factory=list)
    rounded: list[Rounded] = field(default_factory=list)

    @property
    def replayed(self) -> Added | None:
        """The first order of roundings that gives every entry."""
        return next((replay for replay in self.complete if replay.holds), None)

    @property
    def complete(self) -> list[Added]:
        """Orders that every entry so far was held against: of those that fail where another
        holds, no more are counted."""
        most = max((replay.entries for replay in self.added), default=0)
        return [replay for replay in self.added if replay.entries == most]

    @property
    def best(self) -> Added | None:
        """The order of roundings that gives most entries."""
        return min(self.complete, key=lambda replay: replay.outside, default=None)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The narrowest interval of strengths that round to every entry, of all orders."""
        known = [s.interval for s in self.strengths if s.interval is not None]
        return min(known, key=lambda ends: ends[1] - ends[0], default=None)

    @property
    def unchanged(self) -> bool:
        """Whether the merged tensor is the base's."""
        return self.fit.unchanged == self.fit.entries


def measured(source: Source) -> Measured:
    """Read a tensor of both models, once, and a second time where the first explains nothing."""
    found = _first(source)
    settled = found.replayed or found.unchanged or any(r.holds for r in found.rescaled)
    if settled or not found.fit.finite:
        return found
    _all_strengths(source, found)
    if found.interval is None:
        _second(source, found)
    return found


def _all_strengths(source: Source, found: Measured) -> None:
    """Strengths of all entries, after those of the first rows."""
    for block in source.blocks():
        possible = [strengths for strengths in found.strengths if strengths.possible]
        if not possible:
            return
        if not _is_early(block):
            for strengths in possible:
                strengths.add(block)


def _first(source: Source) -> Measured:
    base, stored = source.types
    found = Measured(LeastSquares(source.left, source.right))
    if source.standard:
        orders = roundings(base, stored, source.dtype)
        found.added = [Added(order) for order in orders]
        found.strengths = [
            Strengths(order.compute, order.change) for order in orders if not order.product
        ]
        found.rescaled = _rescaled(source)
    for block in source.blocks():
        if not block.finite:
            found.fit.finite = False
            break
        same = block.base_wide == block.merged_wide
        if source.standard:
            same |= block.base_wide.to(block.merged.dtype) == block.merged
        found.fit.unchanged += int(torch.count_nonzero(same))
        found.fit.add(block)
        holding = [replay for replay in found.added if replay.outside == 0]
        for replay in holding or found.complete:
            replay.add(block)
        for rescaled in found.rescaled:
            rescaled.add(block)
        if _is_early(block):
            for strengths in found.strengths:
                strengths.add(block)
    return found


def _second(source: Source, found: Measured) -> None:
    base, stored = source.types
    rows, columns = source.shape
    largest = found.fit.largest
    if source.standard:
        orders = [order for order in roundings(base, stored, source.dtype) if not order.product]
        found.twice = [AddedTwice(order) for order in orders]
        if base in STANDARD:
            back = [order for order in roundings(stored, base, source.dtype) if not order.product]
            found.exchanged = [Exchanged(order) for order in back]
        if rows == columns:
            found.transposed = [
                Strengths(order.compute, order.change, transposed=True) for order in orders
            ]
        found.rounded = [Rounded(grid, largest) for grid in grids()]
    else:
        found.rounded = [Rounded(None, largest)]
    parts: Sequence[AddedTwice | Exchanged | Strengths | Rounded] = (
        *found.twice, *found.exchanged, *found.transposed, *found.rounded,
    )  # fmt: skip
    for block in source.blocks():
        for part in parts:
            part.add(block)


def _rescaled(source: Source) -> list[Rescaled]:
    """DoRA's replays: the norm in float32, and in the adapter's type where that is short."""
    if source.magnitude is None:
        return []
    columns = source.factors.transposed
    squares: Tensor = torch.zeros(source.shape[1] if columns else 0, dtype=torch.float64)
    rows = []
    for block in source.blocks():
        total = (block.base_wide + block.change).square()
        if columns:
            squares += total.sum(0)
        else:
            rows.append(total.sum(1))
    norms = (squares if columns else torch.cat(rows)).sqrt()
    if norms.numel() != source.magnitude.numel():
        return []
    width = source.shape[0] if columns else source.shape[1]
    units = dict.fromkeys((0.0, torch.finfo(source.dtype).eps / 2))
    return [
        Rescaled(source.magnitude, norms, columns=columns, width=width, unit=unit)
        for unit in units
        if math.isfinite(unit)
    ]
