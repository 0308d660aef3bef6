"""Heads at the ends of links, with the scales of the stream's coordinates divided out.

A writer and a reader that use some coordinates more than others overlap without either knowing of
the other. So links that seem to be beyond chance are tested once more, as `head_tests` does: what
is written is divided by the scales that all heads of the writing layer share, what is read by those
of all that read through the norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from flagscope.diagnose.head_spaces import head_spaces
from flagscope.diagnose.links import HeadEnds, LinkName, Links, ends_of, head_links
from flagscope.diagnose.scale_profile import ScaleProfile


@dataclass(frozen=True, eq=False)
class ScaledEnds:
    """The heads of one layer at one end of links, and the scales of their coordinates.

    Attributes
    ----------
    ends
        The heads, in the coordinates that the scales are of: no mean taken out.
    profile
        The scales; None where they are not known.
    """

    ends: HeadEnds
    profile: ScaleProfile | None
    _made: dict[tuple[int, bytes], HeadEnds] = field(default_factory=dict, repr=False)

    @property
    def differ(self) -> bool:
        """Whether there is anything to divide out."""
        return self.profile is not None and self.profile.differ

    @property
    def live(self) -> Bool[Tensor, " d"]:
        """The coordinates that any of the heads uses; all where nothing is divided out."""
        if self.profile is not None and self.differ:
            return self.profile.live
        return torch.ones_like(self.ends.circuits[0, 0], dtype=torch.bool)

    def head(self, h: int, live: Bool[Tensor, " d"]) -> HeadEnds:
        """One head without the scales, in some of the coordinates."""
        key = h, live.cpu().numpy().tobytes()
        if key not in self._made:
            self._made[key] = self._head(h, live)
        return self._made[key]

    def _head(self, h: int, live: Bool[Tensor, " d"]) -> HeadEnds:
        spaces, circuits = self.ends.spaces, self.ends.circuits[h : h + 1, :, live]
        rank = int(spaces.ranks[h])
        rows = spaces.bases[h : h + 1, live, :rank].mT
        if self.profile is not None and self.differ:
            inverse = self.profile.scales[live].reciprocal()
            rows, circuits = rows * inverse.to(rows), circuits * inverse.to(circuits)
        return ends_of(head_spaces(rows), circuits, self.ends.measured[h : h + 1])


def divided_link(
    name: LinkName, writers: ScaledEnds, readers: ScaledEnds, i: int, j: int
) -> Links | None:
    """The link from head i to head j alone, without the scales of both; None if none differ."""
    if not (writers.differ or readers.differ):
        return None
    live = writers.live & readers.live
    return head_links(name, writers.head(i, live), readers.head(j, live))
