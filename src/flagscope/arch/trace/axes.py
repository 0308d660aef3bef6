"""Tracks the channels of a map in a tensor through reshapes and transpositions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Axis:
    """A factor of a dimension of a tensor.

    `stride` is its step among the output rows of the map that wrote the tensor; None if the factor
    counts something else (batch, positions, pixels).
    """

    size: int
    stride: int | None = None

    @property
    def channel(self) -> bool:
        """Whether it is a factor of the channels."""
        return self.stride is not None


Dims = tuple[tuple[Axis, ...], ...]
"""The factors of each dimension, slowest first."""


def plain(shape: Iterable[int]) -> Dims:
    """Dimensions without channels.

    Examples
    --------
    >>> plain((2, 3))
    ((Axis(size=2, stride=None),), (Axis(size=3, stride=None),))
    """
    return tuple((Axis(int(n)),) for n in shape)


def size_of(axes: Iterable[Axis]) -> int:
    """The product of the sizes of some factors, such as those of one dimension."""
    return prod(axis.size for axis in axes)


def shape_of(dims: Dims) -> tuple[int, ...]:
    """The shape of a tensor of these dimensions."""
    return tuple(map(size_of, dims))


def merged(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """The factors without size 1, with neighbours merged if they have the strides of one axis.

    Examples
    --------
    >>> merged((Axis(2, 3), Axis(3, 1), Axis(5)))
    (Axis(size=6, stride=1), Axis(size=5, stride=None))
    """
    result: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        last = result[-1] if result else None
        if last is not None and _joins(last, axis):
            result[-1] = Axis(last.size * axis.size, axis.stride)
        else:
            result.append(axis)
    return tuple(result)


def _joins(outer: Axis, inner: Axis) -> bool:
    if outer.stride is None or inner.stride is None:
        return outer.stride is inner.stride
    return outer.stride == inner.stride * inner.size


def reshaped(dims: Dims, shape: Sequence[int]) -> Dims | None:
    """The dimensions after a row-major reshape; None if a factor is cut unevenly.

    Examples
    --------
    >>> reshaped(((Axis(2),), (Axis(6, 1),)), (2, 3, 2))[1:]
    ((Axis(size=3, stride=2),), (Axis(size=2, stride=1),))
    """
    left = [axis for dim in dims for axis in dim if axis.size != 1]
    left.reverse()
    result = []
    for extent in shape:
        need, taken = int(extent), []
        while need > 1:
            if not left:
                return None
            axis = left.pop()
            if need % axis.size == 0:
                taken.append(axis)
                need //= axis.size
            elif axis.size % need == 0:
                inner = axis.size // need
                left.append(Axis(inner, axis.stride))
                taken.append(Axis(need, None if axis.stride is None else axis.stride * inner))
                need = 1
            else:
                return None
        result.append(merged(taken))
    return tuple(result) if not left else None


def channels(dims: Dims) -> tuple[Axis, ...]:
    """All channel factors, in order."""
    return merged(axis for dim in dims for axis in dim if axis.channel)


def holders(dims: Dims) -> tuple[int, ...]:
    """Positions of the dimensions that hold channels."""
    return tuple(i for i, dim in enumerate(dims) if any(a.channel and a.size > 1 for a in dim))


def rows(offset: int, axes: Iterable[Axis]) -> frozenset[int]:
    """The output rows that channel factors cover.

    Examples
    --------
    >>> sorted(rows(1, (Axis(2, 4), Axis(2, 1))))
    [1, 2, 5, 6]
    """
    covered = [offset]
    for axis in axes:
        stride = axis.stride or 0
        covered = [row + stride * i for row in covered for i in range(axis.size)]
    return frozenset(covered)
