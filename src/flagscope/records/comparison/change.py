"""Records of what moved between two sets of weights, a and b."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flagscope.records.comparison.sided import SidedRecord
from flagscope.records.literals import Attention, Freedom, HeadSpace, Label, PairKind
from flagscope.records.record import Record


class EnergyShare(Record):
    """How much of a change lies in one singular space of one side."""

    rank: int = Field(description="Dimension k of the space.")
    d: int = Field(description="Dimension of the space that it lies in.")
    share: float | None = Field(description="‖P ΔW‖² / ‖ΔW‖².")
    ratio: float | None = Field(description="The share over k/d, what chance gives on average.")
    p: float | None = Field(
        description="Two-sided, against a random rotation of the change: the larger of that of "
        "the change as it is and of the change with its lines brought to equal size."
    )
    log10_p: float | None = Field(description="Its decimal logarithm.")
    status: str = Field(description="'ok', or why numbers are missing.")


class ChangeEnergies(Record):
    """Where the change lies in the spaces of one side."""

    signal_rank: int | None = Field(
        description="Directions of the side's map that stand out of the bulk: the dimension of "
        "its leading spaces."
    )
    signal_rank_complete: bool = Field(
        description="False where only some leading directions were computed and more may stand out."
    )
    write_leading: EnergyShare = Field(description="In its leading output directions.")
    read_leading: EnergyShare = Field(description="In its leading input directions.")
    write_trailing: EnergyShare = Field(
        description="In as many output directions of the smallest singular values."
    )
    read_trailing: EnergyShare = Field(
        description="In as many input directions of the smallest singular values."
    )


class BlockDrift(SidedRecord):
    """How far one block of singular directions turned."""

    first: int = Field(description="Index of its first singular value, from 0.")
    size: int = Field(description="Number of directions.")
    sigma_a: float = Field(description="Largest singular value of the block in a.")
    sigma_b: float = Field(description="Largest singular value of the block in b.")
    mean_square_sine: float | None = Field(
        description="Mean sin² of the principal angles between a's and b's block."
    )
    largest_angle: float | None = Field(description="Largest principal angle, in radians.")
    expected: float | None = Field(
        description="Mean sin² that a random update of equal norm gives, to first order: the mean "
        "of its values for a and for b."
    )
    ratio: float | None = Field(description="Observed over expected mean sin².")
    p: float | None = Field(
        description="Two-sided, of the observed mean sin² against random updates of equal norm."
    )
    log10_p: float | None = Field(description="Its decimal logarithm.")
    status: str = Field(description="'ok', or why a number is missing or not to be trusted.")


class SideDrift(SidedRecord):
    """Turn of the leading singular spaces on one side of a map."""

    freedom: Freedom = Field(
        description="Freedom of the space on this side: where it is not 'none', part of the drift "
        "may be a change of basis that the network's function does not see."
    )
    leading: BlockDrift | None = Field(
        description="All directions that stand out in both maps, as one block."
    )
    blocks: list[BlockDrift] = Field(
        description="The first blocks of near-equal singular values among them: a block ends where "
        "neither storage rounding nor a random update of the size of the change mixes what is "
        "behind it."
    )
    blocks_left_out: int = Field(description="Further blocks that are not listed.")
    status: str = Field(description="'ok', or why nothing is compared.")


class Intruders(Record):
    """Leading directions of one side that the other side does not have."""

    peft_count: int | None = Field(
        description="As `peft` counts them: of the top_k left singular vectors, those whose "
        "largest |cos| with any left singular vector of the other side is below epsilon."
    )
    peft_top_k: int = Field(description="Its top_k.")
    peft_epsilon: float = Field(description="Its epsilon.")
    peft_status: str = Field(description="'ok', or why it was not counted.")
    tested: int = Field(
        description="Leading directions that were compared with the directions of the other side "
        "that stand out, or whose singular values are at least as large, less twice the norm of a "
        "random update."
    )
    write: int | None = Field(
        description="Of these, output directions with more than half of their energy outside."
    )
    read: int | None = Field(
        description="Of these, input directions with more than half of their energy outside."
    )
    p: float | None = Field(
        description="Bound on the probability that a random update of equal norm gives any "
        "direction of the map as much energy outside as was found."
    )
    log10_p: float | None = Field(description="Its decimal logarithm.")
    p_adjusted: float | None = Field(
        default=None, description="Benjamini-Hochberg over all maps and both sides."
    )
    status: str = Field(description="'ok', or why nothing was tested.")


class MapChange(SidedRecord):
    """What moved in one linear map; ΔW = W_b - W_a."""

    name: str = Field(
        description="Layer and role; of a sequence of maps, as in an MLP or a CNN, the tensor as "
        "one side names it."
    )
    role: str = Field(description="q, k, v, o, up, gate, down, conv, …")
    stack: str = Field(description="Stack of layers, such as encoder.")
    attention: Attention | None = Field(description="Self or cross, of maps of attention.")
    layer: int | None = Field(description="Layer; null in a sequence of maps.")
    expert: int | None = Field(description="Expert, where there are several.")
    tensor_a: str = Field(description="Tensor that holds it in a.")
    tensor_b: str = Field(description="Tensor that holds it in b.")
    slice: str = Field(description="Its place in the tensor, '[:]' for the whole.")
    shape: tuple[int, int] = Field(description="Outputs and inputs.")
    norm_a: float | None = Field(description="‖W_a‖, Frobenius.")
    norm_b: float | None = Field(description="‖W_b‖, Frobenius.")
    change: float | None = Field(description="‖ΔW‖, Frobenius.")
    relative_a: float | None = Field(description="‖ΔW‖ / ‖W_a‖.")
    relative_b: float | None = Field(description="‖ΔW‖ / ‖W_b‖.")
    spectral_norm: float | None = Field(description="Largest singular value of ΔW.")
    signal_rank: int | None = Field(
        description="Directions of ΔW that stand out of the bulk of independent entries."
    )
    signal_rank_complete: bool = Field(
        default=True,
        description="False where only some leading directions of ΔW were computed and more may "
        "stand out.",
    )
    participation: float | None = Field(
        description="Participation ratio of the singular values of ΔW."
    )
    rounding_share: float | None = Field(
        description="Expected squared norm of the storage rounding of both sides over ‖ΔW‖²."
    )
    depth: Literal["full", "leading"] = Field(
        description="'leading' where leading directions alone were computed."
    )
    energies_a: ChangeEnergies | None = Field(description="Where ΔW lies in the spaces of a.")
    energies_b: ChangeEnergies | None = Field(description="Where ΔW lies in the spaces of b.")
    drift_write: SideDrift | None = Field(description="Turn of the output directions.")
    drift_read: SideDrift | None = Field(description="Turn of the input directions.")
    intruders_a: Intruders | None = Field(description="Leading directions of a that b lacks.")
    intruders_b: Intruders | None = Field(description="Leading directions of b that a lacks.")
    status: str = Field(
        description="'ok', 'identical', 'moved less than rounding can tell', or why numbers are "
        "missing."
    )


class ProductChange(SidedRecord):
    """What moved in the product W2 W1 of one pair, which no change of the basis between them moves.

    For attention heads these are the QK and OV products.
    """

    name: str = Field(description="The pair.")
    kind: PairKind = Field(description="Kind of the pair.")
    stack: str = Field(description="Stack of layers, such as encoder.")
    attention: Attention | None = Field(description="Self or cross, of heads.")
    layer: int | None = Field(description="Layer.")
    head: int | None = Field(description="Head.")
    freedom: Freedom = Field(description="Freedom of the space between the two maps.")
    over_positions: bool = Field(
        description="Whether norms are root mean squares over all relative positions, as for heads "
        "with a rotary embedding."
    )
    norm_a: float | None = Field(description="‖W2 W1‖ in a, Frobenius.")
    norm_b: float | None = Field(description="‖W2 W1‖ in b, Frobenius.")
    change: float | None = Field(description="Norm of the change of the product.")
    relative_a: float | None = Field(description="The change over the norm in a.")
    relative_b: float | None = Field(description="The change over the norm in b.")
    raw_relative_a: float | None = Field(
        description="√(‖ΔW1‖² + ‖ΔW2‖²) over the same norm of a's maps, which a mere change of "
        "basis moves as well."
    )
    raw_relative_b: float | None = Field(description="The same over the norm of b's maps.")
    floor: float | None = Field(
        description="What the storage rounding of all four maps gives the change, relative to the "
        "geometric mean of the norms."
    )
    rank: int | None = Field(
        description="Place among all products of its kind by the change over the geometric mean "
        "of both norms, 1 for the largest; "
        "null where it moved less than rounding can tell."
    )
    status: str = Field(
        description="'ok', 'identical', 'moved less than rounding can tell', or why numbers are "
        "missing."
    )


class LayerChange(SidedRecord):
    """All maps of one role in one layer, or one map of a network without layers."""

    stack: str = Field(description="Stack of layers, such as encoder.")
    layer: int | None = Field(description="Layer; null in a sequence of maps.")
    role: str = Field(description="q, k, v, o, up, gate, down, …")
    map: str | None = Field(
        default=None,
        description="Name of the map where there is no layer, as in an MLP or a CNN; else null.",
    )
    maps: int = Field(description="Maps that were compared.")
    identical: int = Field(description="Maps of these that are equal number by number.")
    within_rounding: int = Field(
        description="Maps of these that moved less than rounding can tell."
    )
    change: float | None = Field(description="√Σ‖ΔW‖².")
    relative_a: float | None = Field(description="It over √Σ‖W_a‖².")
    relative_b: float | None = Field(description="It over √Σ‖W_b‖².")


class TensorChange(SidedRecord):
    """A tensor outside the maps: an embedding, a bias, a norm's gain."""

    name_a: str = Field(description="Its name in a.")
    name_b: str = Field(description="Its name in b.")
    shape: list[int] = Field(description="Its shape.")
    norm_a: float | None = Field(description="Its norm in a.")
    norm_b: float | None = Field(description="Its norm in b.")
    change: float | None = Field(description="Norm of the difference.")
    relative_a: float | None = Field(description="The change over the norm in a.")
    relative_b: float | None = Field(description="The change over the norm in b.")
    status: str = Field(description="'ok', 'identical', or why numbers are missing.")


class DiagnosticChange(SidedRecord):
    """One diagnostic of one adjacent pair in both scans."""

    pair: str = Field(description="Name of the pair.")
    layer: int | None = Field(description="Its layer.")
    observable: str = Field(description="Field of the pair's record in a scan.")
    value_a: float = Field(description="Its value in a.")
    value_b: float = Field(description="Its value in b.")
    difference: float = Field(description="b's value less a's.")
    noise: float | None = Field(
        description="Error of the difference from the storage rounding of both sides and from "
        "estimates, where it is known."
    )
    floor: float = Field(description="Difference below which a change is too small to be told.")
    flagged: bool = Field(description="Whether the difference exceeds both.")
    status: str = Field(description="'ok', or what is not known of the noise.")


class PairChange(SidedRecord):
    """ρ and C of one adjacent pair in both scans."""

    pair: str = Field(description="Name of the pair.")
    gram_correlation_a: float | None = Field(description="ρ in a.")
    gram_correlation_b: float | None = Field(description="ρ in b.")
    commutator_ratio_a: float | None = Field(description="C in a.")
    commutator_ratio_b: float | None = Field(description="C in b.")
    label: Label | None = Field(
        description="Whether a change of basis that leaves the function as it is moves one of the "
        "two (gauge) or none (functional); null where it is not known."
    )


class HeadGroupChange(SidedRecord):
    """The heads of one layer in one space, in both scans."""

    stack: str = Field(description="Stack of layers, such as encoder.")
    attention: Attention | None = Field(description="Self or cross.")
    layer: int = Field(description="Layer.")
    space: HeadSpace = Field(description="q, k, v or o.")
    overlap_ratio_a: float | None = Field(description="Head overlap ratio in a.")
    overlap_ratio_b: float | None = Field(description="Head overlap ratio in b.")
    difference: float | None = Field(description="b's ratio less a's.")
    spread: float | None = Field(
        description="Standard deviation of a ratio under the null of random heads."
    )
    near_copies_a: list[tuple[int, int]] = Field(
        description="Pairs of heads that are near-copies in a alone."
    )
    near_copies_b: list[tuple[int, int]] = Field(
        description="Pairs of heads that are near-copies in b alone."
    )


class ChangeRecord(SidedRecord):
    """What moved between two sets of weights of one architecture."""

    maps: list[MapChange] = Field(description="Every map that both graphs have.")
    products: list[ProductChange] = Field(
        description="Every pair with a linear or rotary freedom: which heads moved in function."
    )
    layers: list[LayerChange] = Field(description="The maps by layer and role, or one by one.")
    tensors: list[TensorChange] = Field(description="What lies outside the maps.")
    diagnostics: list[DiagnosticChange] = Field(
        description="Flagged changes of the scans' diagnostics."
    )
    diagnostics_compared: int = Field(description="How many were compared.")
    pairs: list[PairChange] = Field(
        default_factory=list,
        description="Pairs that both scans have, in their order; of more than 20, those of which ρ "
        "or C changed most, the furthest first.",
    )
    pairs_compared: int = Field(default=0, description="Pairs that both scans have.")
    heads: list[HeadGroupChange] = Field(description="Groups of heads that both scans have.")
    unpaired_a: list[str] = Field(description="Maps of a that have no counterpart in b.")
    unpaired_b: list[str] = Field(description="Maps of b that have no counterpart in a.")
    change: float | None = Field(description="√Σ‖ΔW‖² over all maps.")
    relative_a: float | None = Field(description="It over the norm of all maps of a.")
    relative_b: float | None = Field(description="It over the norm of all maps of b.")
    identical: int = Field(description="Maps that are equal number by number.")
    within_rounding: int = Field(
        description="Maps that differ, and moved less than rounding can tell."
    )
    moved: int = Field(description="Maps that moved more than rounding explains.")
    notes: list[str] = Field(description="What was not looked at, and what was assumed.")
