"""Links from head to head: which lie beyond chance, and where each head stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flagscope.records import EdgeRecord, ScanResult
from flagscope.report.error_rate import ErrorRate, TestPrefix
from flagscope.report.wording import significance

LinkMeasure = Literal["overlap", "composition"]
MEASURES: tuple[LinkMeasure, ...] = ("overlap", "composition")


@dataclass(frozen=True)
class Judgement:
    """A link under one measure.

    Parameters
    ----------
    ratio, z, log10_p
        Overlap, or square of the composition score, in units of chance; its z and p. No composition
        where a circuit faces the stream on one side only, as in cross-attention.
    """

    ratio: float | None
    z: float | None
    log10_p: float | None

    @property
    def text(self) -> str:
        """z and p in words, as far as they are known."""
        return significance(self.z, self.log10_p) or "not tested"


def judged(edge: EdgeRecord, measure: LinkMeasure) -> Judgement:
    """The numbers of a link under a measure."""
    if measure == "overlap":
        return Judgement(edge.overlap_ratio, edge.overlap_z, edge.log10_p)
    return Judgement(edge.composition_ratio, edge.composition_z, edge.composition_log10_p)


def tested(result: ScanResult) -> int:
    """Number of links tested, those not listed included."""
    return max(result.edge_tests, len(result.edges))


def complete(result: ScanResult) -> bool:
    """Whether every link that was tested is listed."""
    return tested(result) == len(result.edges)


_PREFIXES: dict[LinkMeasure, TestPrefix] = {"overlap": "", "composition": "composition_"}


def beyond_chance(result: ScanResult, measure: LinkMeasure) -> list[bool]:
    """Which of the listed links lie beyond chance at the false-discovery rate of the report.

    Their p-values are adjusted for all tests of the report, those of links not listed included.
    """
    rate = ErrorRate.of(result)
    return [rate.counts(edge, _PREFIXES[measure]) for edge in result.edges]


def certain(result: ScanResult, edge: EdgeRecord, measure: LinkMeasure) -> bool:
    """Whether a link bears a claim by itself, at the error rate of the whole report."""
    return ErrorRate.of(result).certain(edge, _PREFIXES[measure])


def strongest_first(edges: Sequence[EdgeRecord], measure: LinkMeasure) -> list[EdgeRecord]:
    """Links in order of how far they are from chance."""
    return sorted(edges, key=lambda edge: -abs(judged(edge, measure).z or 0.0))


@dataclass(frozen=True)
class HeadRows:
    """Positions of heads in a drawing: query heads in rows 0, 1, …, key-value heads between theirs.

    Parameters
    ----------
    heads
        Number of query heads of a layer, which is also that of its outputs.
    shared
        Number of key-value heads.
    """

    heads: int
    shared: int

    def of(self, space: str, head: int) -> float:
        """The row of a head in a space; a key-value head is in the middle of its query heads.

        Examples
        --------
        >>> HeadRows(8, 2).of("k", 1), HeadRows(8, 2).of("q", 1), HeadRows(4, 4).of("v", 3)
        (5.5, 1, 3)
        """
        if space not in ("k", "v") or self.shared == self.heads:
            return head
        return (head + 0.5) * self.heads / self.shared - 0.5


def head_rows(result: ScanResult, stack: str) -> HeadRows:
    """Rows for the heads of a stack: as many as its head groups say, or its links need."""
    groups = [group for group in result.heads if group.stack == stack]
    edges = [edge for edge in result.edges if edge.stack == stack]
    many = [group.count for group in groups if group.space in ("q", "o")]
    many += [edge.head_from + 1 for edge in edges]
    many += [edge.head_to + 1 for edge in edges if edge.space == "q"]
    few = [group.count for group in groups if group.space in ("k", "v")]
    few += [edge.head_to + 1 for edge in edges if edge.space != "q"]
    heads = max(many, default=1)
    known = any(group.space in ("k", "v") for group in groups)
    return HeadRows(heads, min(heads, max(few, default=heads)) if known else heads)
