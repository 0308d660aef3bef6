"""Outcomes of tasks as they come, put together in the order of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappush, heappushpop, nsmallest
from typing import TypeVar

from flagscope.diagnose import EdgeRecord, FailureRecord, HeadRecord, PairRecord
from flagscope.engine.execute import TaskResult
from flagscope.engine.executors import Outcome
from flagscope.engine.stream import strength

T = TypeVar("T")

# Incidence surfaces are for drawing; beyond this many pairs those furthest from chance keep theirs.
SURFACES = 400


class Gathered:
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
    """

    def __init__(self, *, edges: int, surfaces: int = SURFACES) -> None:
        self._most_edges, self._most_surfaces = edges, surfaces
        self._pairs: dict[int, list[PairRecord]] = {}
        self._heads: dict[int, list[HeadRecord]] = {}
        self._failures: dict[int, FailureRecord] = {}
        self._edges: list[tuple[tuple[float, int, int], EdgeRecord]] = []
        # The pairs with surfaces, the one nearest to chance first.
        self._drawn: list[tuple[float, int, int]] = []
        self.edge_tests = 0

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
            self._draw(-(pair.log10_p or 0.0), place, i)
        self._list(place, outcome)

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
        return [edge for _, edge in self._edges]

    @property
    def failures(self) -> list[FailureRecord]:
        """Tasks that failed, in the order of the plan."""
        return [self._failures[place] for place in sorted(self._failures)]

    def _draw(self, distance: float, place: int, i: int) -> None:
        # Of pairs at the same distance the first of the plan keep theirs.
        one = (distance, -place, -i)
        if len(self._drawn) < self._most_surfaces:
            heappush(self._drawn, one)
            return
        _, place, i = heappushpop(self._drawn, one)
        records = self._pairs[-place]
        records[-i] = records[-i].model_copy(update={"incidence": None})

    def _list(self, place: int, result: TaskResult) -> None:
        self.edge_tests += result.edge_tests
        new: Iterable[tuple[tuple[float, int, int], EdgeRecord]] = (
            ((-strength(edge), place, i), edge) for i, edge in enumerate(result.edges)
        )
        self._edges = nsmallest(self._most_edges, [*self._edges, *new], key=lambda one: one[0])


def _in_order(records: Mapping[int, list[T]]) -> list[T]:
    return [one for place in sorted(records) for one in records[place]]
