"""Records of links between heads."""

from __future__ import annotations

from pydantic import Field

from flagscope.records.literals import ReadSpace
from flagscope.records.record import Record


class EdgeRecord(Record):
    """A link from one head's output to a later head's input, across the residual stream."""

    source: str = Field(alias="from", description="As in L4H7.o: head 7 of layer 4 writes.")
    target: str = Field(alias="to", description="As in L5H1.q: the queries of a head read.")
    stack: str
    layer_from: int
    head_from: int
    layer_to: int
    head_to: int = Field(description="The query head, or the key-value head for k and v.")
    space: ReadSpace
    overlap_ratio: float = Field(
        description="Σcos² between what the one writes and the other reads, over chance."
    )
    overlap_z: float | None
    p: float | None = Field(description="Two-sided, of the overlap.")
    log10_p: float | None
    p_adjusted: float | None = Field(
        description="Benjamini-Hochberg over all tests of the report, those of links that are not "
        "listed included (schema 1: over all links)."
    )
    p_familywise: float | None = None
    composition: float | None = Field(
        description="Composition score: ‖W_QK W_OV‖ / (‖W_QK‖ ‖W_OV‖), or with W_OV for W_QK; "
        "null where the other factor of a circuit does not face the stream."
    )
    composition_ratio: float | None = Field(
        description="Its square over the mean under a Haar-random position, 1/d."
    )
    composition_z: float | None
    composition_log10_p: float | None
    composition_p_adjusted: float | None = None
    composition_p_familywise: float | None = None
