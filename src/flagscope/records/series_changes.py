"""Records of where curves of a series leave their course."""

from __future__ import annotations

from pydantic import Field

from flagscope.records.record import Record


class ChangePoint(Record):
    """A jump of one curve between two neighbouring checkpoints."""

    pair: str = Field(description="Name of the pair, as in a scan.")
    kind: str
    layer: int | None
    observable: str
    after: str = Field(description="The step before it.")
    by: str = Field(description="The step after it.")
    after_number: int
    by_number: int
    jump: float = Field(
        description="Change between the two, less what the five changes on either side lead to "
        "expect."
    )
    p_familywise: float = Field(description="By Bonferroni over all tests of the run.")


class ChangePoints(Record):
    """Jumps of all curves of a training."""

    run: str | None = Field(default=None, description="Run, where there are several.")
    curves: int = Field(description="Curves that have enough steps.")
    tests: int = Field(description="Changes between neighbouring checkpoints that were tested.")
    points: list[ChangePoint] = Field(description="In the order of the steps.")
    not_looked_at: str = Field(description="What the answer does not cover, in words.")
