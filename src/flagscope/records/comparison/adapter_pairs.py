"""Records of an adapter against another adapter."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from flagscope.records.comparison.adapters import Fault
from flagscope.records.record import Record

PairStatus = Literal["same", "shared_beyond_start", "shared_by_start", "chance", "zero"]
PairOutcome = Literal[
    "same", "shared_beyond_start", "shared_by_start", "chance", "nothing_in_common", "unclear"
]


class AdapterModule(Record):
    """One adapter's change of one module, from its factors."""

    module: str = Field(description="Name in the adapter, without PEFT's prefix.")
    rank: int = Field(description="Columns of B.")
    scaling: float = Field(description="s = α/r, or α/√r if rank stabilised.")
    norm: float = Field(description="‖s·B A‖_F.")
    singular_values: list[float] = Field(description="Of s·B A, the largest 64, descending.")
    used_rank: int = Field(
        description="Singular values above the rounding of the factors as they are stored."
    )
    dead_directions: int = Field(description="rank - used_rank.")
    participation: float = Field(description="(Σσ²)²/Σσ⁴: directions that carry the change.")


class SpaceOverlap(Record):
    """Overlap of two spaces with what chance gives."""

    dimension_a: int = Field(description="Of the space of a.")
    dimension_b: int = Field(description="Of the space of b.")
    dimension: int = Field(description="Of the whole.")
    overlap: float | None = Field(description="Σcos² of the principal angles.")
    ratio: float | None = Field(description="In units of chance, p q/d.")
    log10_p: float | None = Field(description="Two-sided, against random position.")
    explained: float | None = Field(
        default=None, description="Σcos² that the common start of the factors alone gives."
    )
    explained_sd: float | None = Field(default=None, description="Its standard deviation.")
    left_z: float | None = Field(
        default=None, description="(overlap - explained)/explained_sd; null without a common start."
    )
    status: str = Field(default="ok", description="ok, or why numbers are missing.")


class StartRecord(Record):
    """Whether the random factors of a module started from the same numbers."""

    factor: Literal["lora_A", "lora_B"] = Field(description="The factor that starts random.")
    correlation: float = Field(description="Of its entries in the two adapters.")
    other_rows: float = Field(description="Root mean square cosine of rows of different numbers.")
    log10_p: float | None = Field(description="One-sided, for entries in random direction.")
    common: bool = Field(description="Whether a common start is plain.")


class ModulePair(Record):
    """Two adapters' changes of one module."""

    a: AdapterModule = Field(description="The first adapter's.")
    b: AdapterModule = Field(description="The second's.")
    inner: float = Field(description="⟨ΔW_a, ΔW_b⟩ = s_a s_b tr(A_aᵀ B_aᵀ B_b A_b).")
    energy_cosine: float | None = Field(description="inner/(‖ΔW_a‖‖ΔW_b‖); null if one is zero.")
    energy_cosine_left: float | None = Field(
        description="The same with the part along the common start's rows taken out; the cosine "
        "itself without a common start."
    )
    left_z: float | None = Field(
        description="energy_cosine_left in standard deviations of what random rows would give."
    )
    start: StartRecord | None = Field(description="Null where a factor is zero.")
    write: SpaceOverlap = Field(description="Of the spaces of B.")
    read: SpaceOverlap = Field(description="Of the spaces of A.")
    status: PairStatus = Field(description="What the two changes share.")

    def mirrored(self) -> Self:
        """The same pair with sides exchanged."""
        return self.model_copy(
            update={
                "a": self.b, "b": self.a,
                "write": _mirrored(self.write), "read": _mirrored(self.read),
            }
        )  # fmt: skip


class AdapterPairRecord(Record):
    """What two adapters share, from their factors alone."""

    outcome: PairOutcome = Field(description="What most of the modules say.")
    norm_a: float = Field(description="‖ΔW‖_F over all modules of the first.")
    norm_b: float = Field(description="The same of the second.")
    energy_cosine: float | None = Field(description="Over all modules; null if one is zero.")
    energy_cosine_left: float | None = Field(
        description="The same with what common starts explain taken out."
    )
    start_correlation: float | None = Field(
        description="Of all entries of the random factors of modules that both have."
    )
    modules: list[ModulePair] = Field(description="Modules that both have.")
    only_a: list[str] = Field(description="Modules of the first alone.")
    only_b: list[str] = Field(description="Modules of the second alone.")
    counts: dict[str, int] = Field(description="Modules of both by status.")
    evidence: list[str] = Field(description="What the outcome rests on, with numbers.")
    cannot_tell: list[str] = Field(description="What was not looked at, or cannot be known.")
    faults_a: list[Fault] = Field(description="What is wrong with the first.")
    faults_b: list[Fault] = Field(description="What is wrong with the second.")

    def mirrored(self) -> Self:
        """The same record with sides exchanged."""
        return self.model_copy(
            update={
                "norm_a": self.norm_b, "norm_b": self.norm_a,
                "modules": [module.mirrored() for module in self.modules],
                "only_a": self.only_b, "only_b": self.only_a,
                "faults_a": self.faults_b, "faults_b": self.faults_a,
            }
        )  # fmt: skip


def _mirrored(overlap: SpaceOverlap) -> SpaceOverlap:
    return overlap.model_copy(
        update={"dimension_a": overlap.dimension_b, "dimension_b": overlap.dimension_a}
    )
