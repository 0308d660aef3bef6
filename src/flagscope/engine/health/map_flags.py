"""Flags of a tensor's rows and columns, as flags of the outputs and inputs of maps in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from flagscope.arch import LinearMap
from flagscope.arch.map_axes import MapAxes

End = Literal["out", "inp", "whole"]


def unit_flags(
    map_: LinearMap, end: End, sides: Mapping[tuple[int, ...], np.ndarray]
) -> np.ndarray | None:
    """Which outputs or inputs of each map have a property that all of their entries must have.

    Parameters
    ----------
    map_
        The maps.
    end
        "out" for the outputs, "inp" for the inputs, "whole" for each map as one.
    sides
        Flags of the rows and of the columns, by the stored dimensions that they run along: (0,)
        and (1,), or (0, 1) and (0, 2) of a stack of matrices.

    Returns
    -------
    array or None
        Shape (count, units), or (count, 1). None where rows and columns do not decide it.
    """
    placed = _placed(map_, end, sides)
    if placed is None:
        return None
    values, names, wanted = placed
    others = [axis for axis, name in enumerate(names) if name not in wanted]
    for axis in reversed(others):
        values = values.all(axis)
        names.pop(axis)
    batch = " ".join(map_.batch_axes) or "1"
    if end == "whole":
        return rearrange(values, f"{' '.join(names)} -> ({batch}) 1").numpy()
    unit = " ".join(map_.out_axes if end == "out" else map_.inp_axes)
    return rearrange(values, f"{' '.join(names)} -> ({batch}) ({unit})").numpy()


def unit_labels(
    map_: LinearMap, end: End, sides: Mapping[tuple[int, ...], np.ndarray]
) -> np.ndarray | None:
    """As `unit_flags`, for numbers of single rows or columns; None where a unit has several."""
    placed = _placed(map_, end, sides)
    if placed is None:
        return None
    values, names, wanted = placed
    if any(values.shape[axis] > 1 for axis, name in enumerate(names) if name not in wanted):
        return None
    batch = " ".join(map_.batch_axes) or "1"
    unit = map_.out_axes if end == "out" else map_.inp_axes
    spare = [name for name in names if name not in wanted]
    target = f"({batch}) ({' '.join([*unit, *spare])})"
    return rearrange(values, f"{' '.join(names)} -> {target}").numpy()


def _placed(
    map_: LinearMap, end: End, sides: Mapping[tuple[int, ...], np.ndarray]
) -> tuple[Tensor, list[str], set[str]] | None:
    """Values along elementary axes, the names of these, and those that distinguish units."""
    wanted = {*map_.batch_axes}
    wanted |= {"out": {*map_.out_axes}, "inp": {*map_.inp_axes}, "whole": set[str]()}[end]
    cut = {
        name
        for name in {*map_.select, *map_.window}
        if name in map_.select or map_.extent(name) < map_.sizes[name]
    }
    needed = {
        dimension
        for dimension, group in enumerate(map_.groups)
        if any(name in wanted or (name in cut and map_.sizes[name] > 1) for name in group)
    }
    dimensions = next((key for key in sides if needed <= {*key}), None)
    if dimensions is None:
        return None
    groups = tuple(map_.groups[dimension] for dimension in dimensions)
    axes = MapAxes(map_.sizes, map_.select, map_.window)
    values = axes.selected(torch.from_numpy(sides[dimensions]), groups, map_.tensor)
    names = [name for group in groups for name in group if name not in map_.select]
    return values, names, wanted
