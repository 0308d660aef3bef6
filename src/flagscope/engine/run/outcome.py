"""The outcome of a task: its records, or its failure."""

from __future__ import annotations

from dataclasses import dataclass, field

from flagscope.records import EdgeRecord, FailureRecord, HeadRecord, PairRecord


@dataclass(frozen=True)
class TaskResult:
    """Records of one task: for links, those that stand out and how many were tested.

    Attributes
    ----------
    not_finite
        Names of tensors that hold NaN or infinity.
    links_not_finite
        Number of links without a number because of them.
    """

    pairs: list[PairRecord]
    heads: list[HeadRecord]
    edges: list[EdgeRecord] = field(default_factory=list)
    edge_tests: int = 0
    not_finite: list[str] = field(default_factory=list)
    links_not_finite: int = 0


Outcome = TaskResult | FailureRecord
