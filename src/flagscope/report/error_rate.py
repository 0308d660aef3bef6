"""Tests of a report that lie beyond chance, at the one error rate of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flagscope.records import HeadRecord, PairRecord, Record, ScanResult
from flagscope.report.wording import MISSING

TestPrefix = Literal["", "commutator_", "gram_correlation_", "shared_", "composition_", "dominant_"]

SCHEMA_1 = (
    "This file was written with schema flagscope.scan/1, whose p-values were not held at one error "
    "rate: scan again to learn what lies beyond chance."
)


@dataclass(frozen=True)
class ErrorRate:
    """The error rate of a report.

    Parameters
    ----------
    level
        The scan's ``fdr``, of the whole family of tests (`flagscope.engine.with_one_error_rate`).
    held
        Whether the p-values of the result belong to one family; those of schema 1 do not, and
        nothing is then beyond chance.
    """

    level: float
    held: bool

    @classmethod
    def of(cls, result: ScanResult) -> ErrorRate:
        """The error rate of a result."""
        return cls(result.settings.fdr, result.schema_ != "flagscope.scan/1")

    def counts(self, record: Record, test: TestPrefix = "") -> bool:
        """Whether a test is counted: of all that are, a share of ``level`` is expected by chance.

        ``test`` is the prefix of the fields of the test, as in ``commutator_p_adjusted``.
        """
        return self._below(getattr(record, f"{test}p_adjusted"))

    def counted(self, records: Sequence[PairRecord] | Sequence[HeadRecord]) -> str:
        """How many overlaps are counted of those that were tested, in words; a dash where none."""
        known = [record for record in records if record.p_adjusted is not None]
        if not known or not self.held:
            return MISSING
        return f"{sum(self.counts(record) for record in known):,} of {len(known):,}"

    def certain(self, record: Record, test: TestPrefix = "") -> bool:
        """Whether a test bears a claim: the chance that any such one errs is at most ``level``."""
        return self._below(getattr(record, f"{test}p_familywise"))

    def _below(self, p: float | None) -> bool:
        return self.held and p is not None and p <= self.level
