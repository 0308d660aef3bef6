"""Second look at links: without the scales that all heads of a place share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from flagscope.arch import LinkGroup, StreamMap
from flagscope.diagnose import HeadEnds, Links, ScaledEnds, divided_link, flat_composition
from flagscope.geometry import scale_profile
from flagscope.null import Significance


class LinkScales:
    """Divides the scales of the stream's coordinates out of single links of a task.

    Heads that write share the scales of their layer's outputs; heads that read share those of all
    heads that read through the same norm. Everything is computed on first use.

    Parameters
    ----------
    groups
        The links of the task.
    ends
        Computes the ends of a face of the stream, with the mean left in; called once per face.
    """

    def __init__(self, groups: Sequence[LinkGroup], ends: Callable[[StreamMap], HeadEnds]) -> None:
        self._groups, self._make = groups, ends
        self._ends: dict[str, HeadEnds] = {}
        self._scaled: dict[str, ScaledEnds] = {}

    def divided(self, links: Links, group: LinkGroup, i: int, j: int) -> Links | None:
        """The link from head i to head j alone; None if all scales are equal."""
        write, read = self._scaled_ends(group.write), self._scaled_ends(group.read)
        return divided_link(links.name, write, read, i, j)

    def flat(self, group: LinkGroup, i: int, j: int) -> Significance | None:
        """Their composition without the scales of each circuit; None if these are all equal."""
        write, read = self._scaled_ends(group.write), self._scaled_ends(group.read)
        return flat_composition(write, read, i, j)

    def _scaled_ends(self, face: StreamMap) -> ScaledEnds:
        if face.label not in self._scaled:
            faces = [face] if face.role == "o" else self._same_place(face)
            pool = [self._ends_of(other).spaces for other in faces]
            self._scaled[face.label] = ScaledEnds(self._ends_of(face), scale_profile(pool))
        return self._scaled[face.label]

    def _same_place(self, face: StreamMap) -> list[StreamMap]:
        """The faces that read at the same place as this one."""
        faces = {group.read.label: group.read for group in self._groups}
        return [other for other in faces.values() if _place(other) == _place(face)]

    def _ends_of(self, face: StreamMap) -> HeadEnds:
        if face.label not in self._ends:
            self._ends[face.label] = self._make(face)
        return self._ends[face.label]


def _place(face: StreamMap) -> Hashable:
    # Labels name a block and a role: layer.3.q, layer.3.cross.q.
    block = face.label.rpartition(".")[0]
    return block, None if face.norm is None else face.norm.name
