"""Records of groups of attention heads."""

from __future__ import annotations

from pydantic import Field

from flagscope.records.literals import Attention, HeadSpace
from flagscope.records.pairs import Values
from flagscope.records.record import Record


class SharedDirection(Record):
    """A direction of the stream that more heads share than chance allows."""

    eigenvalue: float = Field(description="Of the sum of the heads' projectors.")
    heads: list[int] = Field(description="Heads with vᵀP_h v > ½.")


class HeadPair(Record):
    """Two heads that are nearer to each other than chance."""

    heads: tuple[int, int]
    overlap_ratio: float
    log10_p: float = Field(description="Of their overlap, alone.")
    p_adjusted: float | None = None
    p_familywise: float | None = None
    shared: int = Field(description="Principal cosines beyond chance.")
    rank: int
    mean_squared_cosine: float

    @property
    def closeness(self) -> float:
        """The part of the way from chance, 0, to a copy, 1; 0 where chance alone gives a copy."""
        chance = self.mean_squared_cosine / self.overlap_ratio
        return (self.mean_squared_cosine - chance) / (1 - chance) if chance < 1 else 0.0


class HeadCluster(Record):
    """Heads that are near-copies of each other (schema 2)."""

    heads: list[int]
    mean_squared_cosine: float = Field(description="Over all pairs in it; 1 for copies.")
    log10_p: float = Field(
        description="Of the mean overlap inside it, for the best of all groups of its size."
    )
    p_adjusted: float | None = None
    p_familywise: float | None = None


class HeadRecord(Record):
    """All heads of one layer in one space of the residual stream."""

    stack: str
    attention: Attention | None
    layer: int
    space: HeadSpace
    tensor: str
    count: int
    rank: int | None
    d: int
    folded: list[str] = Field(default=[])
    overlap_ratio: float | None
    overlap_ratio_sd: float | None = Field(description="Under the null; its mean is 1.")
    z: float | None
    p: float | None = Field(
        description="Of the mean overlap: the larger of that of the heads as they are and that of "
        "the heads with the scales of the stream's coordinates divided out."
    )
    log10_p: float | None
    log10_p_profile: float | None = Field(
        default=None, description="With the scales of the coordinates divided out."
    )
    p_adjusted: float | None
    p_adjusted_dependent: float | None
    p_familywise: float | None = None
    max_pair_ratio: float | None
    min_pair_ratio: float | None
    shared_directions: int | None
    shared_threshold: float | None = Field(description="1 % level of the largest eigenvalue.")
    shared_log10_p: float | None = Field(
        default=None, description="Of the largest eigenvalue that dimension does not force."
    )
    shared_p_adjusted: float | None = None
    shared_p_familywise: float | None = None
    shared: list[SharedDirection] = Field(default=[])
    spectrum: Values | None = Field(description="Eigenvalues of the sum of projectors.")
    clusters: list[list[int]] | None = Field(
        description="Groups of near-copies (schema 2: of those beyond chance)."
    )
    cluster_tests: list[HeadCluster] = Field(default=[])
    order: list[int] | None = Field(description="Heads ordered so that clusters stand together.")
    near_copies: list[HeadPair] = Field(default=[])
    pairwise: list[list[float]] | None = Field(description="Overlap ratios; the diagonal is d/r.")
    status: str
