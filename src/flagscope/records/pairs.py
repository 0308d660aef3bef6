"""Records of adjacent pairs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flagscope.records.literals import Attention, Freedom, PairKind
from flagscope.records.record import Record


class ArraySummary(Record):
    """What is kept of an array longer than the stated limit."""

    summarised: Literal[True] = True
    length: int
    top: list[float] = Field(description="The largest values, in descending order.")
    quantiles: list[tuple[float, float]] = Field(description="[level, value] pairs.")


Values = Annotated[
    list[float] | ArraySummary,
    Field(description="All values in descending order, or a summary that says so."),
]


class MapReference(Record):
    """Where a linear map lies in the checkpoint."""

    tensor: str
    slice: str = Field(description="Python-like index of the stored tensor, '[:]' for the whole.")
    transposed: bool = Field(description="True where the map is used as its transpose.")
    repeated: bool = Field(
        default=False,
        description="Values repeat so often that the estimate of the storage error, and with it "
        "ranks and exact intersections, may be wrong: the weights may have been rounded more "
        "coarsely than their type says.",
    )


class Incidence(Record):
    """The incidence surface S(i, j) = ‖P_{V_i} P_{U_j}‖_F² on a grid of ranks."""

    ranks_write: list[int]
    ranks_read: list[int]
    surface: list[list[float]] = Field(
        description="surface[a][b] = S(ranks_write[a], ranks_read[b])"
    )


class Functional(Record):
    """What the pair's own freedom cannot move."""

    product_spectrum: Values | None = Field(
        description="Singular values of M = W2 W1; null where they exceed double precision, and "
        "across the residual stream for large maps in mixed precision."
    )
    product_rank: int | None = Field(description="Numerical rank of M.")
    product_effective_rank: float | None = Field(description="Participation ratio of M.")


class Balanced(Record):
    """The observables after gauge fixing; null where the fixing makes them trivial."""

    gauge: str = Field(description="The normal form, in words.")
    commutator_ratio: float | None = None
    gram_correlation: float | None = None
    gram_correlation_z: float | None = Field(
        default=None,
        description="Against the null of balanced pairs (schema 1: against that of others); null "
        "where there is none.",
    )
    commutation_defect: float | None = None
    imbalance: float | None = None
    overlap_ratio: float | None = None
    overlap_z: float | None = Field(default=None, description="Of schema 1; now left out.")
    effective_rank: float | None = Field(
        default=None, description="Participation ratio of the balanced maps."
    )
    status: str = "ok"


class NullValues(Record):
    """What chance gives for this pair: Haar-random position of the read space."""

    overlap_ratio_sd: float | None = Field(description="Its mean is 1.")
    commutator_ratio_interval: tuple[float, float] | None = Field(
        description="Central 95 % interval; the mean is 1."
    )
    gram_correlation_sd: float | None = Field(description="Its mean is 0.")
    commutation_defect: float | None = Field(description="Ratio of means.")
    commutation_defect_sd: float | None
    largest_cosine: float | None = Field(
        description="1 % critical value of the largest cosine that is not forced by dimension."
    )


class OverlapTest(Record):
    """The combined test of the overlap of a pair (schema 2): where it is strongest."""

    rank_write: int = Field(description="Dimensions of the two spaces at which it is strongest.")
    rank_read: int
    overlap_ratio: float = Field(description="Σcos² there, in units of chance.")
    log10_p: float = Field(description="Of the combined test on the maps as they are.")
    log10_p_profile: float | None = Field(
        description="The same for the correlation matrices of the rows, which no profile of "
        "scales moves; null where the maps as they are give no reason to look."
    )
    dominant_log10_p: float | None = Field(
        description="Of the overlap at the effective ranks by itself, over its share of the level "
        "and guarded alike: what overlap_ratio says holds where this is small."
    )
    dominant_p_familywise: float | None = Field(
        default=None, description="The same by Bonferroni over all tests of the report."
    )


class PairRecord(Record):
    """One adjacent pair (W1, W2) that shares R^d."""

    name: str
    kind: PairKind
    between: str = Field(description="linear, rope, norm, relu, gelu, silu, gated, …")
    stack: str
    attention: Attention | None
    layer: int | None
    head: int | None
    kv_head: int | None
    expert: int | None
    write: MapReference
    read: MapReference
    d: int
    folded: list[str] = Field(default=[], description="Norms folded into the maps, if any.")
    rank_write: int | None
    rank_read: int | None
    effective_rank_write: int | None
    effective_rank_read: int | None
    participation_write: float | None = Field(
        default=None, description="Participation ratio of the singular values, (Σσ²)²/Σσ⁴."
    )
    participation_read: float | None = None
    dominant: str | None = Field(
        default=None,
        description="'ok', or why no dominant spaces are compared: nothing stands out of the bulk.",
    )
    depth: Literal["full", "sharp"] = Field(
        default="full",
        description="'sharp' where products and leading directions alone were computed: numbers "
        "that take the whole spectrum are null, full scan only.",
    )
    commutator_ratio: float | None
    commutator_ratio_error: float | None = Field(
        default=None, description="Standard error, where a sharp scan estimated it; else null."
    )
    commutator_p: float | None
    commutator_p_adjusted: float | None = None
    commutator_p_familywise: float | None = None
    gram_correlation: float | None
    gram_correlation_z: float | None
    gram_correlation_p: float | None
    gram_correlation_p_adjusted: float | None = None
    gram_correlation_p_familywise: float | None = None
    commutation_defect: float | None
    commutation_defect_error: float | None = Field(
        default=None, description="Standard error, where a sharp scan estimated it; else null."
    )
    imbalance: float | None
    overlap_ratio: float | None
    overlap_z: float | None
    p: float | None = Field(
        description="Of the overlap: the combined test (schema 1: at the effective ranks alone)."
    )
    log10_p: float | None
    p_adjusted: float | None = Field(
        description="Benjamini-Hochberg over all tests of the report (schema 1: over its pairs)."
    )
    p_adjusted_dependent: float | None = Field(description="Benjamini-Yekutieli.")
    p_familywise: float | None = Field(
        default=None, description="Bonferroni over all tests of the report, kinds weighing alike."
    )
    overlap_test: OverlapTest | None = None
    intersection_exact: int | None = Field(
        description="To storage precision, beyond what dimensions force; null where it is open."
    )
    intersection_beyond_chance: int | None
    intersection_status: str | None = Field(
        default=None, description="'ok', or why an intersection is open or cannot be tested."
    )
    flag_defect: float | None
    kernel_intersection: int | None
    cosines: Values | None
    cosines_forced: int | None = Field(
        default=None, description="How many cosines are 1 by dimension alone."
    )
    profile: list[tuple[int, float]] | None = Field(description="[rank, overlap ratio].")
    incidence: Incidence | None = None
    freedom: Freedom = Field(
        description="Changes of the shared space that leave the function as it is; 'none' where "
        "none is known, which says nothing where `between` is 'unknown'."
    )
    functional: Functional | None
    balanced: Balanced | None
    null: NullValues | None
    status: str = Field(description="'ok', or why numbers are missing.")
