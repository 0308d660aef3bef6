"""Axes of a stored tensor, and the part of them that a map occupies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor

from flagscope.arch.layout import Groups
from flagscope.errors import InputError


@dataclass(frozen=True)
class MapAxes:
    """Sizes of axes, indices along those that hold other maps, and windows (start, length).

    Examples
    --------
    >>> axes = MapAxes({"three": 3, "h": 2, "k": 4}, {"three": 1}, {})
    >>> axes.cut(("three", "h", "k")), axes.range_text(("three", "h", "k"), {"three": 1, "h": 1})
    (slice(8, 16, None), '12:16')
    """

    sizes: Mapping[str, int]
    select: Mapping[str, int]
    window: Mapping[str, tuple[int, int]]

    def extent(self, axis: str) -> int:
        """Size of an axis, or of the part of it that the maps occupy."""
        return self.window[axis][1] if axis in self.window else self.sizes[axis]

    def cut(self, group: tuple[str, ...]) -> slice:
        """The part of one stored dimension that must be read."""
        start, extent, is_part = 0, prod(self.sizes[n] for n in group), False
        for name in _leading(group, self.select):
            extent //= self.sizes[name]
            start += self.select[name] * extent
            is_part = is_part or self.sizes[name] > 1
        first = _first_left(group, self.select)
        if first in self.window and self.extent(first) < self.sizes[first]:
            extent //= self.sizes[first]
            start += self.window[first][0] * extent
            return slice(start, start + self.extent(first) * extent)
        return slice(start, start + extent) if is_part else slice(None)

    def range_text(self, group: tuple[str, ...], fixed: Mapping[str, int]) -> str:
        """Range of a map along one stored dimension, with its batch axes fixed at these indices."""
        stride = prod(self.sizes[n] for n in group)
        extent, start, step, blocks, was_free = stride, 0, 1, 0, False
        for name in group:
            stride //= self.sizes[name]
            if name in fixed:
                start += fixed[name] * stride
                was_free = was_free and self.sizes[name] == 1
            else:
                start += self.window.get(name, (0, 0))[0] * stride
                whole = self.extent(name) == self.sizes[name]
                blocks += self.extent(name) > 1 and not (was_free and whole)
                was_free = was_free or self.extent(name) > 1
                step = stride if self.extent(name) > 1 else step
        free = prod(self.extent(n) for n in group if n not in fixed)
        if free == extent:
            return ":"
        if blocks > 1:  # not contiguous: name the axes and their indices
            held = [f"{n}={fixed[n]}" for n in group if n in fixed]
            held += [f"{n}={a}:{a + n_}" for n, (a, n_) in self.window.items() if n in group]
            return "; ".join(dict.fromkeys(held))
        stop = start + (free - 1) * step + 1
        return f"{start}:{stop}" if step == 1 or free == 1 else f"{start}:{stop}:{step}"

    def selected(self, stored: Tensor, groups: Groups, tensor: str) -> Tensor:
        """View of a contiguous tensor with elementary axes, without the selected ones.

        Raises
        ------
        InputError
            If the shape is neither that of the stored tensor nor that of the part to read.
        """
        cut = {n for group in groups for n in group if n in self.select}
        window = {
            n: interval
            for n, interval in self.window.items()
            if any(n in group for group in groups)
        }
        full = tuple(prod(self.sizes[n] for n in group) for group in groups)
        part_shape = tuple(
            len(range(*self.cut(group).indices(extent)))
            for group, extent in zip(groups, full, strict=True)
        )
        names = [n for group in groups for n in group]
        if tuple(stored.shape) == full:
            sizes, select = self.sizes, self.select
        elif tuple(stored.shape) == part_shape:
            gone = {n for group in groups for n in _leading(group, self.select)}
            sizes = {**self.sizes, **dict.fromkeys(gone, 1)}
            select = {n: 0 if n in gone else index for n, index in self.select.items()}
            taken = [n for group in groups if (n := _first_left(group, self.select)) in window]
            for name in taken:
                sizes[name] = self.extent(name)
                del window[name]
        else:
            either = f"{full} or its part {part_shape}" if part_shape != full else f"{full}"
            raise InputError(
                f"{tensor!r} was expected with shape {either}, got {tuple(stored.shape)}",
                hint="pass the tensor as it is stored, whole or cut by index()",
            )
        view = stored.reshape([sizes[n] for n in names])
        for name, (start, length) in window.items():
            view = view.narrow(names.index(name), start, length)
        for axis in reversed(range(len(names))):
            if names[axis] in cut:
                view = view.select(axis, select[names[axis]])
        return view


def _leading(group: tuple[str, ...], select: Mapping[str, int]) -> list[str]:
    names: list[str] = []
    for name in group:
        if name not in select:
            break
        names.append(name)
    return names


def _first_left(group: tuple[str, ...], select: Mapping[str, int]) -> str:
    return next((name for name in group if name not in select), "")
