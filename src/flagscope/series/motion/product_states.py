"""The products of one step: of the maps of heads, and of linear neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flagscope.arch import LinearMap, PairGroup, Side
from flagscope.checkpoint import Checkpoint
from flagscope.comparison.change.pairing import NamedMap
from flagscope.comparison.change.products import (
    WIDEST,
    SideMaps,
    is_linear,
    product_rounding,
    read_side,
)
from flagscope.engine import return_freed_memory
from flagscope.records import Attention, Freedom
from flagscope.series.motion.product_state import ProductState, product_state
from flagscope.series.motion.step_states import MapPlace

_BYTES = 28  # that multiplying takes for each entry of both sides


@dataclass(frozen=True)
class ProductPlace(MapPlace):
    """Which product it is: W2 W1, with the freedoms of its outer sides.

    Attributes
    ----------
    between
        Freedom of the space between the two maps.
    shared
        Its dimension.
    """

    attention: Attention | None
    head: int | None
    between: Freedom
    shared: int


def measured_products(
    checkpoint: Checkpoint, groups: Iterable[PairGroup], maps: Iterable[NamedMap]
) -> dict[MapPlace, ProductState | None]:
    """Read the maps of each group whose product a freedom leaves, and keep what motion takes.

    Parameters
    ----------
    checkpoint
        As the graph takes it.
    groups
        Groups of pairs; those whose product is not what the network computes are passed over.
    maps
        All maps of the graph, whose outer freedoms are those of the products.

    Returns
    -------
    dict
        None for a product over more than 1,024 shared dimensions, and where a map is not finite.

    Raises
    ------
    SourceError
        If a tensor cannot be read.
    """
    of_maps = {_where(named.map): named for named in maps}
    found: dict[MapPlace, ProductState | None] = {}
    for group in groups:
        if is_linear(group):
            found |= dict(_measured(checkpoint, group, of_maps))
            sides = group.write.map, group.read.map
            return_freed_memory(_BYTES * sum(map_.outputs * map_.inputs for map_ in sides))
    return found


def _measured(
    checkpoint: Checkpoint, group: PairGroup, maps: Mapping[object, NamedMap]
) -> Iterator[tuple[MapPlace, ProductState | None]]:
    places = list(_places(group, maps))
    if group.d > WIDEST:
        yield from ((place, None) for place in places)
        return
    first = read_side(checkpoint, group.write, "write")
    second = read_side(checkpoint, group.read, "read")
    for place, member in zip(places, group.members, strict=True):
        state = None
        if first is not None and second is not None:
            w2, noise2 = _one(second, member.read_index)
            w1, noise1 = _one(first, member.write_index)
            rounding = product_rounding((w2[None], w1[None]), (noise2[None], noise1[None]))
            state = product_state(w2, w1, rounding=float(rounding))
        yield place, state


def _one(maps: SideMaps, index: int) -> tuple[Float[Tensor, "r c"], Float[Tensor, " d"]]:
    return maps.values[index].double(), maps.mean_square[index].double()


def _places(group: PairGroup, maps: Mapping[object, NamedMap]) -> Iterator[ProductPlace]:
    first, second = (_outer(group.write, maps, "write"), _outer(group.read, maps, "read"))
    for member in group.members:
        yield ProductPlace(
            name=member.name,
            role=group.kind,
            stack=group.stack,
            layer=None if group.kind in ("sequential", "conv") else group.layer,
            expert=member.expert,
            tensor=f"{group.read.map.tensor} · {group.write.map.tensor}",
            shape=(second.size, first.size),
            write_freedom=second.freedom,
            read_freedom=first.freedom,
            unknown=first.unknown or second.unknown,
            attention=group.attention if group.kind in ("qk", "ov") else None,
            head=member.head,
            between=group.freedom,
            shared=group.d,
        )


@dataclass(frozen=True)
class _Outer:
    """The side of a map that a product shows."""

    size: int
    freedom: Freedom
    unknown: bool


def _outer(side: Side, maps: Mapping[object, NamedMap], view: str) -> _Outer:
    map_ = side.map
    named = maps.get(_where(map_))
    inputs = (view == "write") != side.transposed
    size = map_.inputs if inputs else map_.outputs
    if named is None:
        return _Outer(size, "none", True)
    return _Outer(size, named.read_freedom if inputs else named.write_freedom, named.unknown)


def _where(map_: LinearMap) -> object:
    return map_.tensor, *map_.select.items(), *map_.window.items()
