"""The record of what a scan measured of a checkpoint, and of what it did not, by reason."""

from __future__ import annotations

from pydantic import Field

from flagscope.records.literals import What
from flagscope.records.record import Record


class LeftOut(Record):
    """Matrices that were not measured for one reason."""

    reason: str
    matrices: int
    parameters: int = Field(description="Numbers in them.")
    expected: bool = Field(
        description="Whether that is so of every model: an embedding or an output layer has no "
        "neighbour to be compared with. False where something was missing or not understood."
    )
    names: list[str] = Field(
        description="Names of tensors; {0-5} stands for each number of a range, {a,b} for each "
        "of the words."
    )
    unlisted: int = Field(default=0, description="Matrices that `names` leaves out for room.")


class WithoutNumbers(Record):
    """Results that the scan looked for and has no number of, for one reason."""

    what: What
    count: int
    of: int = Field(description="Results of this kind that were looked for.")
    reason: str


class NotFinite(Record):
    """Tensors that hold NaN or infinity, and what the scan has no number of for it."""

    tensors: int = Field(
        description="Of those that the scan read: maps, and gains and variances of norms."
    )
    names: list[str] = Field(description="At most a few, in the form of `LeftOut.names`.")
    unlisted: int = Field(default=0, description="Tensors that `names` leaves out for room.")
    pairs: int = Field(description="Pairs without a number.")
    balanced: int = Field(
        description="Other pairs that have no balanced number, as one that shares a map with them "
        "is not finite."
    )
    head_groups: int
    links: int


class Coverage(Record):
    """How much of a checkpoint was measured. A weight under several names counts once."""

    matrices: int = Field(
        description="Tensors of two or more dimensions that are weights, buffers left out."
    )
    measured: int = Field(
        description="Of these, the ones that a pair, a head group or a link has a number of. One "
        "that holds several maps counts if one of them was measured."
    )
    parameters: int = Field(
        description="Numbers in all weights; packed integers that cannot be read as weights are "
        "among them, as many as are stored."
    )
    parameters_measured: int = Field(description="Numbers in the matrices that were measured.")
    left_out: list[LeftOut] = Field(description="The other matrices.")
    buffers: list[str] = Field(
        default=[],
        description="Names of tensors of two or more dimensions that are no weights: masks, "
        "tables of positions. At most a few; in the form of `LeftOut.names`.",
    )
    without_numbers: list[WithoutNumbers] = Field(default=[])
    not_finite: NotFinite | None = Field(
        default=None, description="null where no tensor that was read holds NaN or infinity."
    )

    def __repr__(self) -> str:
        return (
            f"Coverage({self.measured:,} of {self.matrices:,} matrices measured, "
            f"{self.parameters_measured:,} of {self.parameters:,} parameters; "
            f"{len(self.left_out)} reasons why others were not)"
        )
