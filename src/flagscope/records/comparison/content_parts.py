"""Parts of the record of what two checkpoints, A and B, have in common."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from flagscope.records.comparison.sided import SidedRecord
from flagscope.records.record import Record

ContentClass = Literal[
    "identical", "rounding", "few_entries", "different", "reshaped", "unread"
]  # fmt: skip
"""How two tensors that belong together differ."""

ModelPart = Literal["embedding", "block", "norm", "position", "head", "buffer", "other"]

Relation = Literal[
    "identical",
    "reencoded",
    "few_entries",
    "rearranged",
    "shares_parts",
    "layers_changed",
    "merge",
    "related",
    "unrelated",
    "different_architectures",
    "unclear",
]

_OTHER_SIDE = {"a": "b", "b": "a", None: None}


class EntryDifference(SidedRecord):
    """One entry that rounding does not explain."""

    index: tuple[int, ...] = Field(description="Position in the tensor, as A has it.")
    value_a: float | None = Field(description="Null where it is NaN or infinite; text_a has it.")
    value_b: float | None
    text_a: str = Field(description="The value in words of the stored type.")
    text_b: str
    bits: str | None = Field(
        description="Which bits of the stored number differ from what the other side or the "
        "rounding rule gives; null where that is not known."
    )


class ScaleDifference(Record):
    """A group of entries whose common scale is not what the rule of the others gives."""

    place: str = Field(description="Which entries share the scale.")
    expected: float | None = Field(description="The scale that the rule of the other groups gives.")
    found: float | None = Field(description="The scale that is there; null where it is not finite.")
    bits: str | None = Field(description="Which bits of the stored scale differ from the rule's.")


class Rounding(SidedRecord):
    """How far rounding explains the difference of two tensors."""

    rule: str | None = Field(
        description="The rule by which one side was made of the other, where at least 99 % of the "
        "entries follow one; null where only the half steps of both grids were compared."
    )
    rounded: Literal["a", "b"] | None = Field(description="The side that the rule gives.")
    outside: int = Field(description="Entries that rounding does not explain.")
    clipped: int = Field(
        description="Entries at the end of what the type can hold, whose counterpart lies beyond; "
        "counted as explained."
    )
    entries: tuple[EntryDifference, ...] = Field(
        default=(), description="The first of the entries that rounding does not explain."
    )
    groups: int = Field(default=0, description="Groups of entries whose scale could be checked.")
    groups_outside: int = Field(default=0, description="Groups with another scale than expected.")
    scales: tuple[ScaleDifference, ...] = Field(default=(), description="The first of them.")
    step_rms: float | None = Field(
        default=None,
        description="Root mean square of the difference in steps of the coarser grid: 0.29 for "
        "rounding alone; null without such a grid.",
    )

    def mirrored(self) -> Self:
        """The same with the sides exchanged."""
        turned = super().mirrored()
        return turned.model_copy(update={"rounded": _OTHER_SIDE[self.rounded]})


class Difference(SidedRecord):
    """How far two tensors are apart, over the entries that both hold and that are finite."""

    entries: int = Field(description="Entries compared.")
    equal: int = Field(description="Entries whose values are equal.")
    not_finite_a: int = Field(
        description="Entries of A that are NaN or infinite; of tensors of equal bits, quantised "
        "ones were not looked at."
    )
    not_finite_b: int
    relative_a: float | None = Field(description="‖a - b‖ / ‖a‖; null where a is 0.")
    relative_b: float | None = Field(description="‖a - b‖ / ‖b‖; null where b is 0.")
    cosine: float | None = Field(
        description="Cosine of the entries; null where one side is 0 or the sides are equal in "
        "every bit, and were not measured."
    )
    cosine_log10_p: float | None = Field(
        description="One-sided, of a cosine this large, were one of the tensors a vector of "
        "random direction: exact for normal entries."
    )
    agreement: float | None = Field(
        description="Share of equal signs among entries that are 0 on neither side."
    )
    agreement_z: float | None = Field(
        description="The same in standard deviations from what independent signs of the same "
        "shares give."
    )
    product_z: float | None = Field(
        description="Sum of the products of centred entries over the root of the sum of their "
        "squares: standard normal for independent entries of symmetric laws, whatever their scales."
    )
    effective_entries: float | None = Field(
        default=None,
        description="Independent normal entries with which a correlation would show as much as in "
        "the weaker of the tests of signs and of products; null where they cannot be made.",
    )
    scale_a: float | None = Field(
        description="s of a = s · b where that leaves no more than 0.2 % of the norm; null where "
        "it leaves more."
    )
    scale_b: float | None = Field(description="s of b = s · a, likewise.")
    rows_shared: int | None = Field(
        description="Rows of one side that are, in every value, rows of the other in any order; "
        "null for tensors without rows."
    )
    rows_permuted: bool = Field(
        description="Whether the rows of B are those of A in another order."
    )
    zeros_a: int = Field(default=0, description="Entries that are 0 in a and not in b.")
    zeros_b: int = Field(default=0, description="Entries that are 0 in b and not in a.")
    zero_rows_a: int = Field(
        default=0, description="Rows of a matrix that are all zero in a and not in b."
    )
    zero_rows_b: int = Field(default=0, description="Likewise in b and not in a.")
    zero_columns_a: int = Field(
        default=0, description="Indices of the second axis where a is all zero and b is not."
    )
    zero_columns_b: int = Field(default=0, description="Likewise in b and not in a.")
    transposed: bool = Field(description="Whether B was compared as the transpose of A.")


class TensorContent(SidedRecord):
    """A tensor of A and the tensor of B that belongs to it."""

    name_a: str
    name_b: str
    by: Literal["name", "prefix", "tied", "map", "layer"] = Field(
        description="How they were found to belong together: by equal names, by names equal up to "
        "a prefix, since one side leaves out a tensor that is tied to another, by their place in "
        "the network, or by the map of layers."
    )
    part: ModelPart
    layer_a: int | None
    layer_b: int | None
    type_a: str = Field(description="Type as stored, or the quantised format.")
    type_b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    content: ContentClass
    rounding: Rounding | None = Field(description="Null for identical and for unread tensors.")
    difference: Difference | None = Field(description="Null where nothing could be compared.")
    status: str = Field(default="ok", description="ok, or why numbers are missing.")


class ClassCount(Record):
    """Pairs of tensors of one class."""

    content: ContentClass
    tensors: int = Field(
        description="Pairs: a tensor to which several of the other side belong counts with each."
    )
    parameters: int = Field(description="Entries compared; those of A where none were.")


class Unpaired(Record):
    """Tensors of one side to which none of the other belongs."""

    tensors: int
    parameters: int
    buffers: int = Field(description="How many of them are buffers: masks, positions, counts.")
    names: tuple[str, ...] = Field(description="The first of them.")


class PartContent(SidedRecord):
    """Statistics of one part of the model."""

    part: ModelPart
    layer_a: int | None = Field(description="Layer of A, for blocks; null for all others.")
    layer_b: int | None
    tensors: int
    parameters: int
    equal: float | None = Field(description="Share of entries whose values are equal.")
    measured: int = Field(description="Tensors whose bits differ; the following are of those.")
    relative_a: float | None = Field(description="‖a - b‖ / ‖a‖ over all of them.")
    relative_b: float | None
    cosine: float | None


class LayerMatch(Record):
    """The layer of the other side that a layer is like."""

    layer: int
    like: int | None = Field(description="Null where none is like it beyond chance.")
    cosine: float | None = Field(description="Mean cosine of sampled entries with that layer.")
    log10_p: float | None = Field(
        description="Of a cosine this large among all layers, were the entries independent."
    )
    equal: bool = Field(description="Whether the values of all sampled entries are equal.")


class LayerMap(SidedRecord):
    """Which layers of B are which of A, by samples of their entries."""

    stack_a: str = Field(description="Names in front of the layers' numbers, as A has them.")
    stack_b: str
    layers_a: int
    layers_b: int
    sampled: int = Field(description="Entries sampled of each layer.")
    of_b: tuple[LayerMatch, ...] = Field(description="For each layer of B, that of A.")
    of_a: tuple[LayerMatch, ...] = Field(description="For each layer of A, that of B.")
    changed: bool = Field(description="Whether layers were cut, repeated or put in another order.")


class MixtureFit(Record):
    """A side as a linear combination of parents, fitted by least squares."""

    base: bool = Field(description="Whether differences from the other side, as base, were fitted.")
    coefficients: tuple[float, ...] | None = Field(
        description="One for each parent, of all tensors together."
    )
    total: float | None = Field(description="Sum of the coefficients.")
    residual: float | None = Field(
        description="Norm of what is left over the norm of what was fitted; each tensor with "
        "coefficients of its own where one set does not fit."
    )
    rounding: float | None = Field(
        description="What rounding the result once leaves, in the same unit."
    )
    lowest: tuple[float, ...] | None = Field(
        description="Smallest coefficient of each parent among matrices fitted one by one."
    )
    highest: tuple[float, ...] | None
    agree: bool = Field(
        description="Whether one set of coefficients leaves no more than twice the rounding in "
        "every tensor."
    )
    each: bool = Field(description="The same with coefficients for each tensor.")
    slerp: bool = Field(
        description="Whether the coefficients of each tensor are those of a spherical "
        "interpolation of two parents."
    )
    tensors: int = Field(description="Tensors fitted.")
    status: str = "ok"


class MixturePattern(Record):
    """Entries of a side next to those of the base and one parent."""

    parent: int
    equal_to_base: float = Field(description="Share of entries equal to the base's.")
    equal_to_parent: float = Field(description="Share of entries equal to the parent's.")
    scaled: float = Field(
        description="Share of the changed entries whose change is the most common multiple of "
        "the parent's."
    )
    multiple: float | None = Field(description="That multiple.")


class Mixture(Record):
    """Whether a side is a combination of given parents."""

    without_base: MixtureFit = Field(description="The side itself, of the parents.")
    with_base: MixtureFit = Field(
        description="Its difference from the other side, of the parents' differences."
    )
    patterns: tuple[MixturePattern, ...] = Field(
        default=(), description="Of a sample, where no linear combination fits."
    )
    linear: bool = Field(description="Whether one of the two is a combination up to rounding.")


class ContentNumbers(SidedRecord):
    """The fields of a `ContentRecord`, which words are made of."""

    relation: Relation
    evidence: tuple[str, ...] = Field(description="What the relation rests on, in words.")
    cannot_tell: tuple[str, ...] = Field(description="What was not looked at or stays open.")
    counts: tuple[ClassCount, ...]
    tensors: tuple[TensorContent, ...]
    unpaired_a: Unpaired
    unpaired_b: Unpaired
    parts: tuple[PartContent, ...]
    layers: tuple[LayerMap, ...]
    notes: tuple[str, ...] = Field(
        default=(), description="Why tensors could not be paired, where that is known."
    )
    parents: int = Field(default=0, description="Parents that were given.")
    mixture_a: Mixture | None = Field(default=None, description="A of the parents.")
    mixture_b: Mixture | None = Field(default=None, description="B of the parents.")
