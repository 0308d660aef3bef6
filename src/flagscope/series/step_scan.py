"""What a series keeps of the scan of one step."""

from __future__ import annotations

from typing import NamedTuple, Self

from flagscope.records import HeadRecord, Health, PairRecord, ScanResult


class StepScan(NamedTuple):
    """Records of one step; all empty where it was not measured.

    Attributes
    ----------
    pairs, heads
        Without the lists that no curve needs: those of all steps are held at once.
    health
        None where it was not looked at.
    """

    pairs: list[PairRecord]
    heads: list[HeadRecord]
    health: Health | None

    @classmethod
    def none(cls) -> Self:
        """Of a step that was not measured."""
        return cls([], [], None)

    @classmethod
    def of(cls, result: ScanResult) -> Self:
        """Of the scan of a step."""
        pairs = {"incidence": None, "profile": None, "functional": None, "balanced": None}
        heads = {"pairwise": None, "spectrum": None, "order": None, "shared": []}
        return cls(
            [one.model_copy(update=pairs) for one in result.pairs],
            [one.model_copy(update=heads) for one in result.heads],
            result.health,
        )
