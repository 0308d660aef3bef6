"""Records of an adapter against a base and a merged model."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.record import Record

ModuleStatus = Literal[
    "applied",
    "applied_and_more",
    "not_applied",
    "at_strength",
    "twice",
    "other_scaling",
    "subtracted",
    "exchanged",
    "transposed",
    "requantised",
    "dora",
    "dora_without_magnitudes",
    "zero_effect",
    "replaced",
    "other_change",
    "unclear",
    "no_target",
    "no_merged_tensor",
    "shape_mismatch",
    "unusable",
    "not_replayed",
    "not_finite",
]
ReplayOutcome = Literal[
    "applied",
    "not_applied",
    "applied_at_strength",
    "applied_twice",
    "partly",
    "other_scaling",
    "transposed",
    "subtracted",
    "exchanged",
    "not_unloaded",
    "applied_and_more",
    "other_adapter",
    "other_base",
    "other_change",
    "requantised",
    "dora",
    "dora_without_magnitudes",
    "nothing_matches",
    "zero_effect",
    "unclear",
]


FaultCode = Literal[
    "not_applied",
    "other_strength",
    "applied_twice",
    "applied_partly",
    "other_scaling",
    "transposed",
    "subtracted",
    "exchanged",
    "not_unloaded",
    "changed_besides",
    "other_adapter",
    "other_base",
    "other_change",
    "requantised",
    "dora_without_magnitudes",
    "nothing_matches",
    "no_effect",
    "entries_differ",
    "embeddings_left_out",
    "whole_left_out",
    "other_tensors_changed",
    "names_match_nothing",
    "whole_match_nothing",
    "prefix_mismatch",
    "module_missing",
    "shape_mismatch",
    "unusable_factors",
    "zero_effect",
]
"""What is wrong with an adapter or a merge, in words that do not change."""
FAULT_CODES: tuple[FaultCode, ...] = get_args(FaultCode)


class Fault(Record):
    """Something that is wrong, or would surprise."""

    code: FaultCode = Field(description="Stable name of the fault, for programs.")
    text: str = Field(description="What it is, with numbers.")
    names: list[str] = Field(
        default_factory=list, description="The first modules or tensors that it concerns."
    )
    count: int = Field(default=1, description="How many it concerns.")


class TargetCoverage(Record):
    """One module of an adapter, and the base's tensor that it would change."""

    module: str = Field(description="Name in the adapter, without PEFT's prefix.")
    tensor: str | None = Field(description="The base's tensor; null where none fits.")
    rank: int | None = Field(description="Columns of B; null where the factors do not fit.")
    scaling: float | None = Field(description="s = α/r, or α/√r if rank stabilised.")
    status: Literal[
        "matched", "zero_effect", "no_target", "shape_mismatch", "unusable", "not_replayed"
    ] = Field(
        description="zero_effect: would change no stored number of the base. not_replayed: of a "
        "kind of module that is not understood here."
    )
    detail: str = Field(default="", description="Why, in words.")


class CoverageRecord(Record):
    """What of an adapter finds its place in a base, without a merged model."""

    modules: list[TargetCoverage] = Field(description="Every module of the adapter.")
    counts: dict[str, int] = Field(description="Modules by status.")
    whole_matched: list[str] = Field(description="Tensors stored whole that a base tensor fits.")
    whole_unmatched: list[str] = Field(description="Tensors stored whole that no base tensor fits.")
    token_rows: list[str] = Field(description="Embeddings of which single tokens are replaced.")
    missing_modules: list[str] = Field(
        description="Modules of the base that the settings target and the file has no factors for."
    )
    suggested_prefix: tuple[str, str] | None = Field(
        description="Start of the adapter's names and the base's: exchanged, most names that match "
        "nothing would match; null if there is no such pair."
    )
    variants: list[str] = Field(description="What makes it another thing than W + s·B A.")
    cannot_tell: list[str] = Field(description="What was not looked at, and why.")
    faults: list[Fault] = Field(description="What is wrong.")


class ModuleReplay(Record):
    """One module of an adapter, against what the merged model holds."""

    module: str = Field(description="Name in the adapter, without PEFT's prefix.")
    tensor: str | None = Field(description="The base's tensor.")
    merged_tensor: str | None = Field(description="The merged model's tensor.")
    rank: int | None = Field(description="Rank of the factors.")
    scaling: float | None = Field(description="Configured s.")
    status: ModuleStatus = Field(description="What the merged tensor is.")
    rounding: str | None = Field(
        default=None, description="The order of roundings that reproduces the merged tensor."
    )
    entries: int = Field(default=0, description="Entries compared.")
    entries_equal: int | None = Field(
        default=None, description="Entries that the replay gives bit for bit."
    )
    entries_outside: int | None = Field(
        default=None,
        description="Entries that no order of summation in the replay can give, for the rounding "
        "that fits best.",
    )
    entries_unchanged: int | None = Field(
        default=None, description="Entries equal to the base's as stored."
    )
    strength: float | None = Field(
        default=None, description="Fitted multiple of the configured change."
    )
    strength_interval: tuple[float, float] | None = Field(
        default=None,
        description="All strengths that round to the merged tensor in every entry, or in its first "
        "half million entries where the replay at strength 1 gives all; null if none does.",
    )
    standard_error: float | None = Field(
        default=None,
        description="Of a least-squares strength, from the storage rounding of both tensors.",
    )
    change_norm: float | None = Field(default=None, description="‖merged - base‖_F.")
    adapter_norm: float | None = Field(default=None, description="‖s·B A‖_F.")
    residual_norm: float | None = Field(
        default=None, description="Of merged - base less its part along B A."
    )
    rounding_norm: float | None = Field(
        default=None, description="Norm of the residual that rounding alone would give."
    )
    share_in_span: float | None = Field(
        default=None,
        description="Share of ‖merged - base‖² inside column space of B times row space of A.",
    )
    chance_share: float | None = Field(
        default=None, description="The same share of a random change: r²/(mn)."
    )
    detail: str = Field(default="", description="What stands out, in words.")


class WholeReplay(Record):
    """One tensor that an adapter stores whole."""

    name: str = Field(description="Name in the adapter, without PEFT's prefix.")
    tensor: str | None = Field(description="The merged model's tensor.")
    status: Literal["applied", "left_out", "same_as_base", "other", "no_target", "base_copy"] = (
        Field(description="left_out: the merged model has the base's values instead.")
    )
    entries_different: int | None = Field(default=None, description="From the adapter's tensor.")


class UntouchedRecord(Record):
    """Tensors that the adapter does not change."""

    compared: int = Field(description="Tensors in both models.")
    changed: int = Field(description="Those that differ by more than a change of type.")
    changed_share: float | None = Field(
        description="Share of the compared entries that lie in those; null if there are none."
    )
    largest_relative: float | None = Field(
        description="Largest ‖merged - base‖/‖base‖ among them; null if none differs."
    )
    changed_names: list[str] = Field(description="The first of them.")
    only_base: list[str] = Field(description="The first tensors that the merged model lacks.")
    only_base_count: int = Field(description="How many there are.")
    only_merged: list[str] = Field(description="The first tensors that the base lacks.")
    only_merged_count: int = Field(description="How many there are.")
    not_compared: list[str] = Field(description="Names that could not be compared, with reason.")


class ReplayRecord(Record):
    """Whether, how and at which strength a merged model holds an adapter."""

    outcome: ReplayOutcome = Field(description="What the merged model is.")
    strength: float | None = Field(
        description="Multiple of the configured change over all modules, weighted by information; "
        "null where modules do not agree."
    )
    standard_error: float | None = Field(description="Of the strength.")
    modules: list[ModuleReplay] = Field(description="Every module of the adapter.")
    counts: dict[str, int] = Field(description="Modules by status.")
    whole: list[WholeReplay] = Field(description="Tensors that the adapter stores whole.")
    untouched: UntouchedRecord = Field(description="Tensors that it does not change.")
    coverage: CoverageRecord = Field(description="The adapter against the base alone.")
    evidence: list[str] = Field(description="What the outcome rests on, with numbers.")
    cannot_tell: list[str] = Field(description="What was not looked at, or cannot be known.")
    faults: list[Fault] = Field(description="What is wrong.")
