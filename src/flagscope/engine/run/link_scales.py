"""Second looks at links: with the scales divided out that all heads of a place share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from flagscope.arch import LinkGroup, StreamMap
from flagscope.diagnose import HeadEnds, Links, ScaledEnds, divided_link, flat_composition
from flagscope.geometry import scale_profile
from flagscope.null import Significance


class LinkScales:
    """Gives single links of a task with the scales of the stream's coordinates divided out.

    Heads that write share the scales of their layer's outputs; heads that read, those of all that
    read through their norm. Everything is made on its first use.

    Parameters
    ----------
    groups
        The links of the task.
    ends
        Makes the ends that a face of the stream has, no mean taken out; called once for each.
    """

    def __init__(self, groups: Sequence[LinkGroup], ends: Callable[[StreamMap], HeadEnds]) -> None:
        self._groups, self._make = groups, ends
        self._ends: dict[str, HeadEnds] = {}
        self._scaled: dict[str, ScaledEnds] = {}

    def divided(self, links: Links, group: LinkGroup, i: int, j: int) -> Links | None:
        """The link from head i to head j alone; None where no scales differ."""
        write, read = self._scaled_ends(group.write), self._scaled_ends(group.read)
        return divided_link(links.name, write, read, i, j)

    def flat(self, group: LinkGroup, i: int, j: int) -> Significance | None:
        """Their composition, the scales of each circuit divided out; None where they are alike."""
        write, read = self._scaled_ends(group.write), self._scaled_ends(group.read)
        return flat_composition(write, read, i, j)

    def _scaled_ends(self, face: StreamMap) -> ScaledEnds:
        if face.label not in self._scaled:
            faces = [face] if face.role == "o" else self._same_place(face)
            pool = [self._ends_of(other).spaces for other in faces]
            self._scaled[face.label] = ScaledEnds(self._ends_of(face), scale_profile(pool))
        return self._scaled[face.label]

    def _same_place(self, face: StreamMap) -> list[StreamMap]:
        """The faces that read at one place with this one."""
        faces = {group.read.label: group.read for group in self._groups}
        return [other for other in faces.values() if _place(other) == _place(face)]

    def _ends_of(self, face: StreamMap) -> HeadEnds:
        if face.label not in self._ends:
            self._ends[face.label] = self._make(face)
        return self._ends[face.label]


def _place(face: StreamMap) -> Hashable:
    # Labels are of a block and a role: layer.3.q, layer.3.cross.q.
    block = face.label.rpartition(".")[0]
    return block, None if face.norm is None else face.norm.name
