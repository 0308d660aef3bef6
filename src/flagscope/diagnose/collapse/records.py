"""Results on neural collapse: frozen records of numbers."""

from __future__ import annotations

from pydantic import Field

from flagscope.records import Record


class SimplexFit(Record):
    """How near K vectors are to a simplex equiangular tight frame; all four are 0 at one."""

    norm_variation: float | None = Field(
        description="Standard deviation of the K norms over their mean."
    )
    cosine_variation: float | None = Field(
        description="Standard deviation of the cosines of the K(K-1)/2 pairs."
    )
    cosine_excess: float | None = Field(
        description="Mean of |cos + 1/(K-1)| over the pairs: -1/(K-1) is the widest common angle."
    )
    simplex_distance: float | None = Field(
        description="‖G/‖G‖ - G*/‖G*‖‖_F, in [0, √2]; G the Gram matrix of the vectors, "
        "G* = I - 11ᵀ/K."
    )


class CollapseRecord(Record):
    """NC1 to NC4 of one data set and one classifier. All fall to 0 at collapse, but `nc4` to 1."""

    classes: int
    d: int = Field(description="Number of features; 0 before any batch.")
    samples: int
    smallest_class: int = Field(description="Samples in the smallest class.")
    largest_class: int
    rank: int | None = Field(description="Of the centred class means, K-1 at most.")
    nc1: float | None = Field(description="tr(Σ_W Σ_B⁺)/K: variability within classes.")
    nc1_trace_ratio: float | None = Field(description="tr Σ_W / tr Σ_B.")
    nc2_means: SimplexFit | None = Field(description="Of the class means about their mean.")
    nc2_weights: SimplexFit | None = Field(description="Of the classifier's rows as they are.")
    nc3: float | None = Field(
        description="Self-duality ‖W/‖W‖_F - M/‖M‖_F‖_F, in [0, 2]; M the centred class means."
    )
    nc3_centred: float | None = Field(
        description="The same with the mean of the rows, which a softmax cannot see, taken off W."
    )
    nc4: float | None = Field(
        description="Share of samples that the classifier and the nearest class mean put alike."
    )
    status: str = Field(description="'ok', or why numbers are missing.")
