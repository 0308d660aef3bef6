"""Rows and columns of tensors whose zeros or copies are said of neurons or heads already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from math import prod
from typing import Literal

from flagscope.arch import LinearMap
from flagscope.engine.health.map_flags import End
from flagscope.engine.health.shown import Shown

Side = Literal["rows", "columns"]
What = Literal["zero", "copies"]


class Accounted:
    """Counts rows and columns by tensor; a map that several pairs use counts once.

    Parameters
    ----------
    shown
        The looks, which say along what the rows of a tensor run.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._counts: Counter[tuple[str, Side, What]] = Counter()
        self._seen: set[tuple[Hashable, End, What]] = set()

    def add(self, map_: LinearMap, end: End, units: int, what: What) -> None:
        """Account for some outputs, inputs or whole maps of a batch."""
        name = self._shown.first_name(map_.tensor)
        look = self._shown.looks.get(name)
        key = (map_.place, end, what)
        if not units or look is None or look.kind == "vector" or key in self._seen:
            return
        self._seen.add(key)
        stacked = look.kind == "stack"
        sides: dict[int, Side] = {1: "rows", 2: "columns"} if stacked else {0: "rows", 1: "columns"}
        ends = {"out": map_.out_axes, "inp": map_.inp_axes, "whole": map_.batch_axes}[end]
        for dimension, side in sides.items():
            group = set(map_.groups[dimension])
            # A map that is zero as a whole is so along both sides of its own matrix.
            if group & {*ends} or (stacked and end == "whole"):
                fixed = {*ends, *map_.batch_axes, *map_.select}
                each = prod(map_.extent(axis) for axis in group - fixed)
                self._counts[name, side, what] += units * each

    def covers(self, tensor: str, side: Side, count: int, what: What) -> bool:
        """Whether as many rows or columns of a tensor are accounted for."""
        return count <= self._counts[tensor, side, what]
