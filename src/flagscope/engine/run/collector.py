"""Outcomes of tasks as they come, put together in the order of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappush, heappushpop
from typing import Any, TypeVar

from flagscope.diagnose import EdgeRecord, FailureRecord, HeadRecord, PairRecord
from flagscope.engine.run.outcome import Outcome
from flagscope.engine.run.stream_links import strength

T = TypeVar("T")
Entry = TypeVar("Entry", bound=tuple[Any, ...])

# Incidence surfaces are for drawing; beyond this many pairs those furthest from chance keep theirs.
SURFACES = 400


class ScanCollector:
    """What the outcomes so far come to, whatever the order in which they came.

    Of surfaces and links a report holds those furthest from chance; the others are let go at once,
    so that memory does not grow with them.

    Parameters
    ----------
    edges
        Links to keep.
    surfaces
        Pairs that keep their incidence surface.

    Attributes
    ----------
    edge_tests
        Links that were tested.
    not_finite
        Names of tensors that hold NaN or infinity.
    links_not_finite
        Links that have no number for it.
    """

    def __init__(self, *, edges: int, surfaces: int = SURFACES) -> None:
        self._most_edges, self._most_surfaces = edges, surfaces
        self._pairs: dict[int, list[PairRecord]] = {}
        self._heads: dict[int, list[HeadRecord]] = {}
        self._failures: dict[int, FailureRecord] = {}
        # Heaps, what is let go first in front: of things as far from chance as each other the first
        # of the plan stay, hence places and numbers with a minus.
        self._with_surface: list[tuple[float, int, int]] = []
        self._links: list[tuple[float, int, int, EdgeRecord]] = []
        self.edge_tests = self.links_not_finite = 0
        self.not_finite: set[str] = set()

    def __len__(self) -> int:
        """Tasks so far."""
        return len(self._pairs) + len(self._failures)

    def add(self, place: int, outcome: Outcome) -> None:
        """The outcome of the task at a place of the plan."""
        if isinstance(outcome, FailureRecord):
            self._failures[place] = outcome
            return
        self._pairs[place], self._heads[place] = list(outcome.pairs), outcome.heads
        for i, pair in enumerate(outcome.pairs):
            self._keep_surface(-(pair.log10_p or 0.0), place, i)
        for i, edge in enumerate(outcome.edges):
            _pushed(self._links, (strength(edge), -place, -i, edge), self._most_edges)
        self.edge_tests += outcome.edge_tests
        self.not_finite.update(outcome.not_finite)
        self.links_not_finite += outcome.links_not_finite

    @property
    def pairs(self) -> list[PairRecord]:
        """Of all tasks, in the order of the plan."""
        return _in_order(self._pairs)

    @property
    def heads(self) -> list[HeadRecord]:
        """Of all tasks, in the order of the plan."""
        return _in_order(self._heads)

    @property
    def edges(self) -> list[EdgeRecord]:
        """The links of the largest z of either kind, the largest first."""
        return [edge for *_, edge in sorted(self._links, key=lambda one: one[:3], reverse=True)]

    @property
    def failures(self) -> list[FailureRecord]:
        """Tasks that failed, in the order of the plan."""
        return [self._failures[place] for place in sorted(self._failures)]

    def _keep_surface(self, distance: float, place: int, i: int) -> None:
        out = _pushed(self._with_surface, (distance, -place, -i), self._most_surfaces)
        if out is not None:
            _, minus_place, minus_i = out
            records = self._pairs[-minus_place]
            records[-minus_i] = records[-minus_i].model_copy(update={"incidence": None})


def _pushed(heap: list[Entry], one: Entry, most: int) -> Entry | None:
    """Add to a heap of at most so many; what has to leave it."""
    if len(heap) < most:
        heappush(heap, one)
        return None
    return heappushpop(heap, one)


def _in_order(records: Mapping[int, list[T]]) -> list[T]:
    return [one for place in sorted(records) for one in records[place]]
