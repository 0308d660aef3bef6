"""Records of all heads of a model against each other: `flagscope heads`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flagscope.records.literals import Attention, FoldNorms, HeadSpace, StreamBasis
from flagscope.records.record import Record

HEADS_SCHEMA = "flagscope.heads/1"


class ComparedHead(Record):
    """One head in one space."""

    label: str = Field(description="Such as L4H7.q, or L4H7.cross.q in cross-attention.")
    layer: int
    head: int = Field(description="For k and v the key-value head.")
    rank: int = Field(description="Of its map; 0 where it cannot be measured.")
    status: str = Field(description="ok, or why the rank is 0.")


class HeadOverlap(Record):
    """Two heads in one space."""

    first: str = Field(description="Label of a head.")
    second: str
    overlap_ratio: float = Field(description="Σcos² over its mean by chance, r_i r_j / d.")
    mean_squared_cosine: float = Field(description="Σcos² over the smaller rank; 1 for a copy.")
    chance: float = Field(description="The mean squared cosine by chance: the larger rank over d.")
    z: float | None = Field(description="null where the dimensions fix the overlap.")
    p: float | None = Field(description="Two-sided, of this pair alone.")
    log10_p: float | None
    p_adjusted: float | None = Field(
        description="Benjamini-Hochberg, over all pairs of all spaces that were compared."
    )
    common_basis: bool | None = Field(
        default=None,
        description="Whether both meet in one basis of the stream: true in one layer, and across "
        "layers where the `basis` of the space is shared. false across layers of a post-norm "
        "stack: the numbers then depend on the basis. null where that is not known.",
    )

    @property
    def closeness(self) -> float:
        """The part of the way from chance, 0, to a copy, 1."""
        return (self.mean_squared_cosine - self.chance) / (1 - self.chance)


class HeadSpaceRecord(Record):
    """All heads of a stack in one space, each against each."""

    stack: str
    attention: Attention | None
    space: HeadSpace
    d: int
    basis: StreamBasis = Field(
        description="shared: heads of different layers meet in one basis of the stream. post-norm: "
        "a norm behind each sum changes it, so that numbers across layers depend on the basis. "
        "unknown: the norms of the stream are not known."
    )
    heads_measured: int
    pairs_tested: int
    overlap_ratio: float | None = Field(description="Mean over all pairs; chance is 1.")
    overlap_ratio_sd: float | None
    z: float | None
    p: float | None
    log10_p: float | None
    form: str
    status: str
    near_copies: list[HeadOverlap] = Field(
        description="Pairs at least half of the way from chance to a copy, and beyond chance at "
        "1 % among all pairs of the space; the closest first, at most 200."
    )
    near_copies_total: int
    closest: HeadOverlap | None = Field(
        description="The pair furthest on the way from chance to a copy, near-copy or not."
    )
    clusters: list[list[str]] | None = Field(
        description="Groups of near-copies by label, beyond chance at 1 %; null where none were "
        "sought."
    )
    pairs: list[HeadOverlap] = Field(description="Those of the largest z, the largest first.")
    heads: list[ComparedHead]


class HeadOverlapsRecord(Record):
    """Everything but the tables of a comparison of all heads (schema `flagscope.heads/1`)."""

    schema_: Literal["flagscope.heads/1"] = Field(default=HEADS_SCHEMA, alias="schema")
    version: str = Field(default="", description="Of flagscope.")
    source: str
    family: str
    fold_norms: FoldNorms
    asked: list[HeadSpace] = Field(description="The spaces that were asked for.")
    notes: list[str]
    unplaced: int = Field(
        description="Matrices of the checkpoint that could not be placed: heads may be among them."
    )
    spaces: list[HeadSpaceRecord]
