"""All maps of a graph, of a task, or of a part of either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from flagscope.arch import HeadGroup, LinearMap, LinkGroup, PairGroup


class HasMaps(Protocol):
    """What has pairs, head groups and links, such as a graph or a task."""

    @property
    def pairs(self) -> Iterable[PairGroup]:
        """Groups of pairs."""
        ...

    @property
    def heads(self) -> Iterable[HeadGroup]:
        """Groups of heads."""
        ...

    @property
    def links(self) -> Iterable[LinkGroup]:
        """Groups of links."""
        ...


def every_map(of: HasMaps) -> Iterator[LinearMap]:
    """Yield the maps of pairs, of head groups and of links; one that several use comes again."""
    for pair in of.pairs:
        yield from (pair.write.map, pair.read.map)
    for head in of.heads:
        yield head.map
    yield from maps_of_links(of.links)


def maps_of_links(links: Iterable[LinkGroup]) -> Iterator[LinearMap]:
    """Yield the maps of the heads at both ends, and of their partners."""
    for link in links:
        for face in (link.write, link.read):
            yield from (map_ for map_ in (face.heads, face.partner) if map_ is not None)


def tensors_of(parts: Iterable[HasMaps]) -> set[str]:
    """Names of the tensors that hold the maps of some parts."""
    return {map_.tensor for part in parts for map_ in every_map(part)}
