"""Which map of one graph is which of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from flagscope.arch import Graph, LinearMap, PairGroup, Side
from flagscope.records import Attention, Freedom

_HEAD_OUTPUTS, _HEAD_INPUTS = ("q", "k", "v"), ("o",)
_FREE: tuple[Freedom, ...] = ("gl", "rotary", "scaling", "permutation", "scale")


@dataclass(frozen=True)
class NamedMap:
    """One map of a network: all heads of a layer together, and each expert by itself.

    Attributes
    ----------
    name
        Layer and role.
    map
        A single map, or one of a batch (see `expert`).
    write_freedom, read_freedom
        Freedoms of its output and of its input space.
    in_sequence
        Whether it lies in a sequence of maps, such as an MLP or a CNN, which has no layers of
        several maps: `layer` is then that of a pair.
    unknown
        Whether it is not known what lies between it and a neighbour, so that a freedom of "none"
        says nothing.
    """

    name: str
    stack: str
    attention: Attention | None
    layer: int | None
    expert: int | None
    map: LinearMap
    write_freedom: Freedom = "none"
    read_freedom: Freedom = "none"
    in_sequence: bool = False
    unknown: bool = False

    @property
    def title(self) -> str:
        """The name; of a map in a sequence its tensor, since a pair's number is not a layer's."""
        if not self.in_sequence:
            return self.name
        part = self.map.slice_text(self.expert or 0)
        return self.map.tensor if part == "[:]" else f"{self.map.tensor}{part}"


@dataclass(frozen=True)
class MapPair:
    """The same map in both networks."""

    a: NamedMap
    b: NamedMap


@dataclass(frozen=True)
class Pairing:
    """Maps that both graphs have, and names of those that one alone has."""

    pairs: tuple[MapPair, ...]
    unpaired_a: tuple[str, ...]
    unpaired_b: tuple[str, ...]


def paired_maps(graph_a: Graph, graph_b: Graph) -> Pairing:
    """The maps of two graphs that have one name and one shape.

    Maps of a sequence go by their tensors, and by their order where no tensor has one name on both
    sides.
    """
    maps_a, maps_b = named_maps(graph_a), named_maps(graph_b)
    if _sequence_titles(maps_a) & _sequence_titles(maps_b):
        maps_a, maps_b = _by_title(maps_a), _by_title(maps_b)
    both = [name for name, map_ in maps_a.items() if name in maps_b and _fit(map_, maps_b[name])]
    kept = set(both)
    return Pairing(
        tuple(MapPair(maps_a[name], maps_b[name]) for name in both),
        tuple(map_.title for name, map_ in maps_a.items() if name not in kept),
        tuple(map_.title for name, map_ in maps_b.items() if name not in kept),
    )


def _sequence_titles(maps: Mapping[str, NamedMap]) -> set[str]:
    return {map_.title for map_ in maps.values() if map_.in_sequence}


def _by_title(maps: Mapping[str, NamedMap]) -> dict[str, NamedMap]:
    return {map_.title: map_ for map_ in maps.values()}


def _fit(a: NamedMap, b: NamedMap) -> bool:
    return (a.map.outputs, a.map.inputs, _kernel(a.map)) == (
        b.map.outputs, b.map.inputs, _kernel(b.map),
    )  # fmt: skip


def _kernel(map_: LinearMap) -> tuple[int, ...]:
    return tuple(map_.extent(axis) for axis in map_.spatial)


def named_maps(graph: Graph) -> dict[str, NamedMap]:
    """All maps of a graph by a name that does not hang on the tensor's.

    Maps of one name, as a residual network may have, also carry the name of their pair.
    """
    places: dict[object, NamedMap] = {}
    taken: dict[str, object] = {}
    # What lies inside blocks knows the freedoms of its spaces, and goes first.
    for group in sorted(graph.pairs, key=lambda pair: pair.kind == "residual"):
        for side, view in ((group.write, "write"), (group.read, "read")):
            layer = group.layer
            if view == "write" and group.write_layer is not None:
                layer = group.write_layer
            for expert, single in _single_maps(side.map):
                _add(places, taken, _named(group, layer, expert, single), group.name, expert)
                _free(places, single, expert, side, view, group)
    for heads in graph.heads:
        for expert, single in _single_maps(heads.map):
            name = _name(heads.stack, heads.attention, heads.layer, single.role, expert)
            named = NamedMap(name, heads.stack, heads.attention, heads.layer, expert, single)
            _add(places, taken, named, heads.space, expert)
    return {named.name: named for named in places.values()}


def _single_maps(map_: LinearMap) -> Iterator[tuple[int | None, LinearMap]]:
    """A map of all heads, or the maps of a batch of experts one by one."""
    if map_.batch is None or map_.count == 1:
        yield None, map_
    elif map_.role in _HEAD_OUTPUTS:
        yield None, map_.joined("write")
    elif map_.role in _HEAD_INPUTS:
        yield None, map_.joined("read")
    else:
        for index in range(map_.count):
            yield index, map_


def _named(group: PairGroup, layer: int | None, expert: int | None, map_: LinearMap) -> NamedMap:
    attention = group.attention if group.kind in ("qk", "ov") else None
    # A residual pair has the expert's or the layer's maps, whose names are made anew.
    known = group.members[0].expert if expert is None and len(group.members) == 1 else expert
    name = _name(group.stack, attention, layer, map_.role, known)
    in_sequence = group.kind in ("sequential", "conv")
    return NamedMap(name, group.stack, attention, layer, known, map_, in_sequence=in_sequence)


def _name(
    stack: str, attention: Attention | None, layer: int | None, role: str, expert: int | None
) -> str:
    parts = [stack, "" if layer is None else f"layer.{layer}"]
    parts += ["cross" if attention == "cross" else "", "" if expert is None else f"expert.{expert}"]
    return ".".join(part for part in (*parts, role) if part)


def _add(
    places: dict[object, NamedMap], taken: dict[str, object], named: NamedMap, where: str,
    expert: int | None,
) -> None:  # fmt: skip
    place = _place(named.map, expert)
    if place in places:
        return
    if named.in_sequence:
        count = sum(map_.in_sequence and map_.stack == named.stack for map_ in places.values())
        named = replace(named, name=f"{named.stack}.map.{count}")
    if named.name in taken:
        named = replace(named, name=f"{named.name} of {where}")
    if named.name in taken:
        named = replace(named, name=f"{named.name} in {named.map.tensor}")
    taken[named.name] = place
    places[place] = named


def _place(map_: LinearMap, expert: int | None) -> object:
    """Key of the stored numbers, however their axes are called where they write and read."""
    parts = (tuple(mapping.items()) for mapping in (map_.select, map_.window))
    return (map_.tensor, *parts, expert)


def _free(
    places: dict[object, NamedMap], map_: LinearMap, expert: int | None, side: Side, view: str,
    group: PairGroup,
) -> None:  # fmt: skip
    """Note the freedom of the space that a pair shares on the side of the map it lies on."""
    if group.kind == "residual":
        return
    place = _place(map_, expert)
    if group.freedom == "none" and group.between == "unknown":
        places[place] = replace(places[place], unknown=True)
    if group.freedom not in _FREE:
        return
    output = (view == "write") != side.transposed
    field = "write_freedom" if output else "read_freedom"
    if getattr(places[place], field) == "none":
        places[place] = replace(places[place], **{field: group.freedom})
