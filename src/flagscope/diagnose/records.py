"""The results of a scan: frozen records, which are also the published JSON schema.

Nulls (`None`) stand where a number is undefined; `status` then says why. No record holds a
tensor, and none holds NaN or infinity.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flagscope.diagnose.coverage import Coverage
from flagscope.diagnose.record import Record

SCHEMA = "flagscope.scan/2"

Freedom = Literal["gl", "rotary", "scaling", "permutation", "scale", "outer", "none"]
Label = Literal["functional", "gauge"]
PairKind = Literal["qk", "ov", "mlp", "sequential", "conv", "residual", "latent"]
HeadSpace = Literal["q", "k", "v", "o"]
TestKind = Literal[
    "overlap",
    "commutator",
    "correlation",
    "heads",
    "shared",
    "copies",
    "clusters",
    "link_overlap",
    "link_composition",
]


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
    attention: Literal["self", "cross"] | None
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
    commutator_ratio: float | None
    commutator_p: float | None
    commutator_p_adjusted: float | None = None
    commutator_p_familywise: float | None = None
    gram_correlation: float | None
    gram_correlation_z: float | None
    gram_correlation_p: float | None
    gram_correlation_p_adjusted: float | None = None
    gram_correlation_p_familywise: float | None = None
    commutation_defect: float | None
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
    freedom: Freedom
    functional: Functional | None
    balanced: Balanced | None
    null: NullValues | None
    status: str = Field(description="'ok', or why numbers are missing.")


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
    attention: Literal["self", "cross"] | None
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


class EdgeRecord(Record):
    """A link from one head's output to a later head's input, across the residual stream."""

    source: str = Field(alias="from", description="As in L4H7.o: head 7 of layer 4 writes.")
    target: str = Field(alias="to", description="As in L5H1.q: the queries of a head read.")
    stack: str
    layer_from: int
    head_from: int
    layer_to: int
    head_to: int = Field(description="The query head, or the key-value head for k and v.")
    space: Literal["q", "k", "v"]
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


class FailureRecord(Record):
    """A task that failed."""

    task: str
    error: str
    hint: str | None


class RunRecord(Record):
    """What this run cost; the one part of a result that differs between equal runs."""

    seconds: float
    peak_rss_bytes: int | None = Field(
        description="Of the process; null where the system hides it."
    )
    device: str
    workers: int
    tasks: int = Field(default=0, description="Parts that the scan was carried out in.")
    tasks_from_store: int = Field(
        default=0, description="Of these, carried out by an earlier run and taken from its store."
    )


class ScanResult(Record):
    """Everything that one scan found (schema `flagscope.scan/2`).

    A file of `flagscope.scan/1` is read too; what it lacks is null.
    """

    schema_: Literal["flagscope.scan/1", "flagscope.scan/2"] = Field(default=SCHEMA, alias="schema")
    version: str
    source: str
    fingerprint: str
    family: str
    parameters: int
    dtype: str
    coverage: Coverage | None = Field(
        default=None, description="What was measured of the weights, and what was not; schema 2."
    )
    settings: dict[str, Any]
    labels: dict[Freedom, dict[str, Label]] = Field(
        description="For each freedom, which observables it leaves (functional) or moves (gauge)."
    )
    notes: list[str] = Field(description="What could not be mapped, and what was assumed.")
    unmapped: list[str] = Field(description="Matrices in the checkpoint that no pair uses.")
    pairs: list[PairRecord]
    heads: list[HeadRecord]
    edges: list[EdgeRecord] = Field(description="The links furthest beyond chance.")
    edge_tests: int = Field(default=0, description="Number of links that were tested.")
    tests: dict[TestKind, int] = Field(
        default={},
        description="The family of tests that the adjusted p-values answer for: how many there "
        "are of each kind.",
    )
    failures: list[FailureRecord]
    run: RunRecord
