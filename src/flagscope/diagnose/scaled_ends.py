"""Heads at the ends of links, with the scales of the stream's coordinates divided out.

A writer and a reader that use some coordinates more than others overlap without either knowing of
the other. So links that seem to be beyond chance are tested again, as `head_tests` does: what
is written is divided by the scales that all heads of the writing layer share, what is read by those
of all that read through the norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from flagscope.diagnose.links import HeadEnds, LinkName, Links, ends_of, head_links
from flagscope.geometry import (
    ScaleProfile,
    flat_spread,
    head_spaces,
    profiles,
    row_scales,
    testable,
    unit_rows,
)
from flagscope.null import Significance, correlation_null, gram_spectrum


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
        at = slice(h, h + 1)
        return ends_of(head_spaces(rows), circuits, self.ends.measured[at], self.ends.finite[at])


def flat_composition(writer: ScaledEnds, reader: ScaledEnds, i: int, j: int) -> Significance | None:
    """The composition of two heads with the coordinates of each circuit brought to one scale.

    A circuit may lie on a few coordinates by itself, where its weights have heavy tails. Two that
    do meet there more often than in general position, and that is not composition.

    Returns
    -------
    Significance or None
        None where the scales of the two circuits could not pass for composition, see `profiles`.

    References
    ----------
    As for pairs, see `guard`.
    """
    one, two = writer.ends.circuits[i].mT, reader.ends.circuits[j].mT
    scales = [row_scales(w[None], (w.mT @ w).square().sum()[None]) for w in (one, two)]
    found = profiles(scales[0], scales[1])
    if not bool(found.any[0]):
        return None
    alive, unlike = found.alive[0], bool(found.unlike[0])
    count = int(alive.sum())
    if not testable(count, unlike=unlike):
        return Significance.undefined("too few coordinates are left")
    one, two = one[alive].double(), two[alive].double()
    if unlike:
        one, two = (
            unit_rows(w, side.square[0][alive]) for w, side in ((one, scales[0]), (two, scales[1]))
        )
    spectra = [
        gram_spectrum(torch.linalg.eigvalsh(w.mT @ w).clamp_min(0).cpu().numpy(), count)
        for w in (one, two)
    ]
    null = correlation_null(spectra[0], spectra[1])
    if null is None:
        return Significance.undefined("a circuit is the same in every direction")
    norms = [w.square().sum() for w in (one, two)]
    centred = [
        (w.mT @ w).square().sum() - norm**2 / count
        for w, norm in zip((one, two), norms, strict=True)
    ]
    inner = (one.mT @ two).square().sum() - norms[0] * norms[1] / count
    correlation = float(inner / (centred[0] * centred[1]).sqrt())
    spread = flat_spread(count) if unlike else 1.0
    return null.significance(min(max(correlation / spread, -1.0), 1.0))


def divided_link(
    name: LinkName, writers: ScaledEnds, readers: ScaledEnds, i: int, j: int
) -> Links | None:
    """The link from head i to head j alone, without the scales of both; None if none differ."""
    if not (writers.differ or readers.differ):
        return None
    live = writers.live & readers.live
    return head_links(name, writers.head(i, live), readers.head(j, live))
