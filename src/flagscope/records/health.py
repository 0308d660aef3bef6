"""The record of what a health check saw: broken numbers, dead parts, copies, what is missing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flagscope.records.literals import Attention, HeadSpace, PairKind
from flagscope.records.record import Record

WeightCheck = Literal[
    "nan",
    "infinity",
    "all-zero",
    "constant",
    "zero-rows",
    "zero-columns",
    "duplicate-rows",
    "duplicate-columns",
]
UnitCheck = Literal["neurons", "unclear-neurons", "heads"]
MissingCheck = Literal["layers", "tensors", "outside"]


class NotLookedAt(Record):
    """Tensors that were not looked at for one reason."""

    reason: str
    tensors: int
    entries: int = Field(description="Numbers in them, as the header says.")
    expected: bool = Field(
        description="Whether nothing is amiss: buffers, a second name of the same weights, layers "
        "that were not asked for."
    )
    names: list[str] = Field(description="At most a few, in the form of `LeftOut.names`.")
    unlisted: int = Field(default=0, description="Tensors that `names` leaves out for room.")


class FaultyTensor(Record):
    """One of the tensors with a fault."""

    name: str
    count: int = Field(description="Entries, rows or columns with the fault.")
    of: int = Field(description="All entries, rows or columns of the tensor.")
    where: str = Field(
        default="", description="Indices of rows or columns, shortened; empty for entries."
    )


class WeightFault(Record):
    """Tensors with one fault. Rows run along the first axis, columns along the second."""

    check: WeightCheck = Field(
        description="nan and infinity: entries that are not finite. all-zero and constant: the "
        "tensor has one value. zero-rows, zero-columns: all entries of the row are zero. "
        "duplicate-rows, duplicate-columns: the row equals an earlier one bit for bit, and is not "
        "zero; rows of fewer than 16 entries, and tensors that are not finite, are not compared."
    )
    expected: bool = Field(
        description="Whether sound models have it too: a bias that is zero, a gain that is one, "
        "an embedding with a row of zeros for padding, weights that no map is known to use."
    )
    tensors: int
    count: int = Field(description="Entries, rows or columns with the fault, in all of them.")
    of: int = Field(description="All entries, rows or columns of these tensors.")
    names: list[str] = Field(description="At most a few, in the form of `LeftOut.names`.")
    unlisted: int = Field(default=0, description="Tensors that `names` leaves out for room.")
    examples: list[FaultyTensor] = Field(description="The tensors with most of it, at most 6.")


class ZeroHeads(Record):
    """Heads of one attention of which one part has weights that are all zero."""

    part: HeadSpace = Field(description="Queries, keys, values, or the output.")
    count: int
    heads: str = Field(description="Their indices, shortened.")
    key_values: str = Field(
        default="",
        description="Indices of the key-value heads whose weights these are, where several heads "
        "share one; empty elsewhere.",
    )
    biased: int | None = Field(
        description="Of these, heads whose bias of the part is not all zero; null where that is "
        "not known. The output has one bias for all heads, which counts as none."
    )
    even: int = Field(
        default=0,
        description="Of queries and keys: heads whose scores are all zero, with no bias and no "
        "term of the position, so that they attend evenly; not counted where that is not known.",
    )


class EqualHeads(Record):
    """Heads of one attention that hold the same weights and biases, bit for bit."""

    parts: list[HeadSpace] = Field(description="Those in which they are equal.")
    heads: str = Field(description="Their indices, shortened.")
    count: int
    key_values: bool = Field(
        default=False, description="Whether the indices are of key-value heads that heads share."
    )
    whole: bool = Field(
        description="Whether they are equal in queries, keys, values and output, keys and values "
        "that they share included."
    )


class FaultyBlock(Record):
    """Neurons of one block, or heads of one attention, with zero weights."""

    name: str = Field(description="Of the pair between whose maps they lie.")
    stack: str
    kind: PairKind
    attention: Attention | None
    layer: int | None
    expert: int | None = Field(
        default=None, description="Of a block of one expert; null where it holds all of a layer."
    )
    write: str = Field(description="Tensor of the first map of the pair.")
    read: str = Field(description="Tensor of the second map.")
    units: int = Field(description="Neurons, those of all experts together, or heads.")
    dead: int = Field(
        description="Those that carry nothing from the input of the block to its output. Neurons "
        "whose outgoing weights are all zero, or whose incoming ones are in such a way that what "
        "lies between gives a constant; heads whose output weights are all zero, or whose value "
        "weights are. Unclear neurons are never called dead."
    )
    no_output: int = Field(
        description="Those whose outgoing (neurons) or output weights (heads) are all zero."
    )
    no_input: int = Field(
        description="Those whose incoming weights (of all factors of a gated MLP), or value "
        "weights, are all zero."
    )
    no_factor: int = Field(
        default=0,
        description="Neurons of a gated MLP of which one of the two factors is always zero, and "
        "not both have zero weights.",
    )
    no_query: int = Field(
        default=0,
        description="Heads whose query weights are all zero: where they attend does not depend on "
        "the token that they attend from, but at most on its position.",
    )
    no_key: int = Field(
        default=0,
        description="Heads whose key weights are all zero: where they attend does not depend on "
        "what stands there, but at most on the position.",
    )
    no_path: int | None = Field(
        default=None,
        description="Of neurons, those that are in both `no_output` and `no_input`; null for heads "
        "and in older files.",
    )
    biased: int | None = Field(
        default=None,
        description="Of the neurons in `no_input` alone, those with a bias that is not zero, so "
        "that they may add a constant; null where that is not known, and for heads.",
    )
    copies: int = Field(
        default=0,
        description="Neurons that read the same as an earlier one of the block: equal incoming "
        "weights and biases, bit for bit, so that both always hold the same value. Heads that "
        "equal an earlier one of the attention in queries, keys, values and output.",
    )
    copied_parts: int = Field(
        default=0,
        description="Heads, or key-value heads, that equal an earlier one in some of these parts "
        "alone.",
    )
    zero: list[ZeroHeads] = Field(default=[], description="Of heads, one for each part.")
    equal: list[EqualHeads] = Field(
        default=[], description="Of heads: groups of equal ones, whole ones first, at most 8."
    )
    where: str = Field(description="Indices, shortened: of dead ones, or else of the others.")


class UnitFaults(Record):
    """Neurons or heads with zero weights, and copies of them."""

    check: UnitCheck = Field(
        description="neurons: those of which it is known what lies between the two maps and that "
        "nothing else reads them; unclear-neurons: the others."
    )
    blocks: int = Field(description="Blocks looked at.")
    units: int = Field(description="Neurons or heads in them.")
    stacks: list[str] = Field(description="Names of the stacks that the blocks lie in, at most 8.")
    faulty_blocks: int = Field(description="Blocks with any of the following.")
    dead: int = Field(description="As in `FaultyBlock`, in all blocks together.")
    no_output: int
    no_input: int
    no_factor: int = 0
    no_query: int = 0
    no_key: int = 0
    no_path: int | None = None
    biased: int | None = None
    copies: int = 0
    copied_parts: int = 0
    listed: list[FaultyBlock] = Field(
        description="Blocks, those with most of it first, at most 12."
    )

    def without_effect(self, block: FaultyBlock | None = None) -> int:
        """Units known to have no effect, in all blocks or in one that is listed.

        Of unclear neurons, which are never called dead, those whose outgoing weights are all zero.
        """
        counts = self if block is None else block
        return counts.no_output if self.check == "unclear-neurons" else counts.dead


class Missing(Record):
    """Layers that a numbered stack lacks, tensors that a layer lacks, or modules outside of it."""

    check: MissingCheck
    stack: str = Field(description="What the names of the layers begin with; empty outside.")
    layers: str = Field(description="Numbers of the layers, shortened; empty outside.")
    count: int = Field(description="Layers, tensors, or modules outside of the layers.")
    present: int = Field(description="Layers of the stack, or modules looked for, that are there.")
    said: str = Field(
        default="", description="What the config says, where that shows it: a key and a number."
    )
    names: list[str] = Field(
        default=[],
        description="Missing tensors or modules; at most a few, in the form of `LeftOut.names`.",
    )
    certain: bool = Field(
        description="Whether it is surely a fault: the layers are those of a known family. Numbers "
        "of other modules may have gaps, and layers may differ, by design."
    )


class EqualLayers(Record):
    """Layers of one stack that hold the same weights, tensor by tensor."""

    stack: str = Field(description="What the names of the layers begin with.")
    layers: list[int] = Field(description="Their numbers.")
    tensors: int = Field(description="Tensors of each of them.")
    present: int = Field(description="Layers of the stack that are there.")


class ScaleOutlier(Record):
    """Matrices of a layer that are far larger or smaller than the same ones in the others."""

    stack: str = Field(description="What the names of the layers begin with.")
    layers: str = Field(description="Numbers of the layers, shortened.")
    names: list[str] = Field(
        description="The matrices, named from the number of the layer on; at most a few, in the "
        "form of `LeftOut.names`."
    )
    tensors: int = Field(description="How many matrices of each of these layers.")
    present: int = Field(description="Layers that have them.")
    larger: bool
    factor: float = Field(
        description="Between the root mean squares of the entries and the median of those of all "
        "layers: the least one of these matrices, at least 1,000."
    )


class Health(Record):
    """What is broken, dead, copied or missing, as the weights alone show it."""

    tensors: int = Field(description="Tensors looked at; a weight of several names counts once.")
    entries: int = Field(description="Numbers in them.")
    zeros: int = Field(description="Of these, exact zeros.")
    not_finite: int = Field(default=0, description="Tensors that hold NaN or infinity.")
    layers: list[int] | None = Field(
        default=None, description="The layers asked for; null for all tensors."
    )
    not_looked_at: list[NotLookedAt]
    faults: list[WeightFault] = Field(
        description="Zero rows and copied rows that `units` accounts for are not in it."
    )
    units: list[UnitFaults]
    missing: list[Missing]
    outside: list[str] | None = Field(
        default=None,
        description="Modules outside of the layers that were looked for, at most 12: those that "
        "every checkpoint of the config's family holds. Null where that is not known.",
    )
    equal_layers: list[EqualLayers] = Field(
        default=[],
        description="Layers whose tensors have equal values and shapes, at most 12 groups. Layers "
        "that share one tensor under several names are not copies, and are not in it.",
    )
    equal_layer_groups: int = Field(default=0, description="How many such groups there are.")
    scale_outliers: list[ScaleOutlier] = Field(
        default=[], description="At most 12; of stacks with at least 4 layers."
    )

    def dead(self, what: Literal["neurons", "heads"]) -> int | None:
        """Neurons or heads known to have no effect; None where there was none to look at."""
        units = [one for one in self.units if one.check.endswith(what)]
        return sum(one.without_effect() for one in units) if units else None
