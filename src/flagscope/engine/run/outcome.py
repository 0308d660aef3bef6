"""The outcome of a task: its records, or its failure."""

from __future__ import annotations

from dataclasses import dataclass, field

from flagscope.engine.health.tensor_health import TensorHealth
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
    health
        What the tensors show that the task looked at.
    unread
        Those that could not be read: name and reason.
    """

    pairs: list[PairRecord]
    heads: list[HeadRecord]
    edges: list[EdgeRecord] = field(default_factory=list)
    edge_tests: int = 0
    not_finite: list[str] = field(default_factory=list)
    links_not_finite: int = 0
    health: list[TensorHealth] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)


Outcome = TaskResult | FailureRecord
