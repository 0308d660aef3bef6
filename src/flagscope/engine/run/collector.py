"""Collects the outcomes of tasks into the lists of a report, in the order of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappush, heappushpop
from typing import Any, TypeVar

from flagscope.engine.health.tensor_health import TensorHealth
from flagscope.engine.run.outcome import Outcome
from flagscope.engine.run.stream_links import strength
from flagscope.records import EdgeRecord, FailureRecord, HeadRecord, PairRecord

T = TypeVar("T")
Entry = TypeVar("Entry", bound=tuple[Any, ...])

# Incidence surfaces are for drawing; only this many pairs, those furthest from chance, keep theirs.
SURFACES = 400


class ScanCollector:
    """Collects task outcomes in any order of arrival.

    A report holds the surfaces and links furthest from chance; the others are dropped at once, so
    that memory does not grow with them.

    Parameters
    ----------
    edges
        Number of links to keep.
    surfaces
        Number of pairs that keep their incidence surface.

    Attributes
    ----------
    edge_tests
        Number of links tested.
    not_finite
        Names of tensors that hold NaN or infinity.
    links_not_finite
        Number of links without a number because of them.
    health, unread
        What tensors showed, and tensors that could not be read, of all tasks.
    """

    def __init__(self, *, edges: int, surfaces: int = SURFACES) -> None:
        self._most_edges, self._most_surfaces = edges, surfaces
        self._pairs: dict[int, list[PairRecord]] = {}
        self._heads: dict[int, list[HeadRecord]] = {}
        self._failures: dict[int, FailureRecord] = {}
        # Min-heaps whose first entry is dropped first. Of entries equally far from chance those
        # first in the plan stay, so indices are negated.
        self._with_surface: list[tuple[float, int, int]] = []
        self._links: list[tuple[float, int, int, EdgeRecord]] = []
        self.edge_tests = self.links_not_finite = 0
        self.not_finite: set[str] = set()
        self.health: list[TensorHealth] = []
        self.unread: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """Number of tasks so far."""
        return len(self._pairs) + len(self._failures)

    def add(self, index: int, outcome: Outcome) -> None:
        """Add the outcome of the task with this index in the plan."""
        if isinstance(outcome, FailureRecord):
            self._failures[index] = outcome
            return
        self._pairs[index], self._heads[index] = list(outcome.pairs), outcome.heads
        for i, pair in enumerate(outcome.pairs):
            self._keep_surface(-(pair.log10_p or 0.0), index, i)
        for i, edge in enumerate(outcome.edges):
            _pushed(self._links, (strength(edge), -index, -i, edge), self._most_edges)
        self.edge_tests += outcome.edge_tests
        self.not_finite.update(outcome.not_finite)
        self.links_not_finite += outcome.links_not_finite
        self.health += outcome.health
        self.unread += outcome.unread

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
        """The links with the largest z of either kind, the largest first."""
        return [edge for *_, edge in sorted(self._links, key=lambda link: link[:3], reverse=True)]

    @property
    def failures(self) -> list[FailureRecord]:
        """Tasks that failed, in the order of the plan."""
        return [self._failures[index] for index in sorted(self._failures)]

    def _keep_surface(self, distance: float, index: int, i: int) -> None:
        out = _pushed(self._with_surface, (distance, -index, -i), self._most_surfaces)
        if out is not None:
            _, minus_index, minus_i = out
            records = self._pairs[-minus_index]
            records[-minus_i] = records[-minus_i].model_copy(update={"incidence": None})


def _pushed(heap: list[Entry], entry: Entry, most: int) -> Entry | None:
    """Push onto a heap of at most `most` entries, and return the entry that is dropped."""
    if len(heap) < most:
        heappush(heap, entry)
        return None
    return heappushpop(heap, entry)


def _in_order(records: Mapping[int, list[T]]) -> list[T]:
    return [record for index in sorted(records) for record in records[index]]
