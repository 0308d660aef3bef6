"""Solves the axis sizes of maps from their shapes, the config, and each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flagscope.arch.config_values import Known
from flagscope.arch.layout import LayoutMismatchError, axis_sizes, parse_layout
from flagscope.arch.maps import LinearMap, solved_map
from flagscope.arch.rules import MapRule
from flagscope.errors import ArchitectureError

Maps = dict[str, LinearMap]
"""Maps by role."""
Solved = dict[tuple[Any, ...], Maps | None]
"""Cache of solved maps, by the known sizes and the forms and shapes of their tensors."""


@dataclass(frozen=True)
class Place:
    """A map located in a checkpoint: its rule, and the names and shape of its tensors."""

    rule: MapRule
    tensor: str
    shape: tuple[int, ...]
    bias: str | None

    @property
    def layout(self) -> str:
        """The rule's layout; a 1 × 1 convolution is a linear map with extra axes."""
        axes = len(parse_layout(self.rule.layout))
        pointwise = len(self.shape) == axes + 2 and self.shape[axes:] == (1, 1)
        return f"{self.rule.layout} y x" if pointwise else self.rule.layout


def solved_places(
    places: Sequence[Place], known: Mapping[str, Known], cache: Solved
) -> Maps | None:
    """The maps at these places, or None if sizes remain open.

    Most layers and experts differ only in names, so a solution for one is reused for the others.

    Parameters
    ----------
    places
        Places of the maps of one block, which share their axes.
    known
        Axis sizes from the config or the heads argument.
    cache
        Earlier solutions, shared by the layers of a network.

    Raises
    ------
    ArchitectureError
        If a tensor's shape contradicts the config, the heads argument or another tensor.
    """
    sizes = tuple((axis, size.value) for axis, size in known.items())
    key = (sizes, tuple((place.rule.form, place.shape) for place in places))
    if key not in cache:
        cache[key] = _solution(places, known)
    maps = cache[key]
    if maps is None:
        return None
    return {
        place.rule.role: maps[place.rule.role].moved(place.tensor, place.bias) for place in places
    }


def _solution(places: Sequence[Place], known: Mapping[str, Known]) -> Maps | None:
    sizes = {axis: size.value for axis, size in known.items()}
    origins = {axis: size.origin for axis, size in known.items()}
    complete, count = False, -1
    # Each map may yield a size that another one needs: repeat until none yields a new one.
    while not complete and len(sizes) > count:
        complete, count = True, len(sizes)
        for place in places:
            try:
                solved, whole = axis_sizes(parse_layout(place.layout), place.shape, sizes)
            except LayoutMismatchError as error:
                raise _mismatch(place, error, origins) from None
            for axis, size in solved.items():
                origins.setdefault(axis, f"tensor {place.tensor!r}")
                sizes.setdefault(axis, size)
            complete = complete and whole
    return {place.rule.role: _map(place, sizes) for place in places} if complete else None


def _map(place: Place, sizes: Mapping[str, int]) -> LinearMap:
    rule = place.rule
    return solved_map(
        role=rule.role, tensor=place.tensor, shape=place.shape, layout=place.layout, out=rule.out,
        inp=rule.inp, known=sizes, select=rule.select, batch=rule.batch, bias=place.bias,
        window=rule.window,
    )  # fmt: skip


def _mismatch(place: Place, error: Exception, origins: Mapping[str, str]) -> ArchitectureError:
    axes = [axis for group in parse_layout(place.layout) for axis in group]
    sources = [f"{axis} from {origins[axis]}" for axis in axes if axis in origins]
    return ArchitectureError(
        f"tensor {place.tensor!r} of shape {place.shape} does not fit {place.layout!r}: "
        f"{error}" + (f" ({'; '.join(sources)})" if sources else ""),
        hint="is this the config of this checkpoint? Give another one (--config F), the number "
        "of heads (--heads N) or another family (--family NAME)",
    )
