"""Records of how the maps of a network move over a series of checkpoints."""

from __future__ import annotations

from pydantic import Field

from flagscope.records.literals import Freedom, Label
from flagscope.records.record import Record


class LeadingTurn(Record):
    """How far the leading singular directions of one side turned, step by step.

    Lists have one entry for each step of the series, null where there is nothing to say.
    """

    directions: list[int | None] = Field(
        description="Directions compared as one space: those that stand out in both maps, at most "
        "16, up to the last gap that a random update of equal size leaves open."
    )
    mean_square_sine: list[float | None] = Field(
        description="Mean sin² of the principal angles between the two spaces."
    )
    largest_angle: list[float | None] = Field(description="Largest principal angle, in radians.")
    expected: list[float | None] = Field(
        description="Mean sin² that a random update of equal norm gives, to first order."
    )
    ratio: list[float | None] = Field(description="Observed over expected mean sin².")
    log10_p: list[float | None] = Field(
        description="log10 p, two-sided, of the observed mean sin² against random updates of equal "
        "norm."
    )
    block_first: list[int | None] = Field(
        description="Of the blocks of near-equal singular values, that which turned most beyond a "
        "random update: index of its first direction, from 0; null where none turned more."
    )
    block_size: list[int | None] = Field(description="Its number of directions.")
    block_ratio: list[float | None] = Field(description="Its observed over expected mean sin².")
    log10_p_more: list[float | None] = Field(
        description="log10 p, one-sided, that a random update of equal norm turns the whole space, "
        "or any block of it, as much; adjusted for their number."
    )
    p_adjusted: list[float | None] = Field(
        description="The same, Benjamini-Hochberg over all maps, both sides and all steps."
    )
    status: list[str | None] = Field(description="'ok', or why there is no expectation.")


class SideMotion(Record):
    """One side of a map: its output directions (write) or its input directions (read)."""

    freedom: Freedom = Field(description="Freedom of the space on this side.")
    label: Label | None = Field(
        description="'functional' where no freedom inside the map's blocks moves these directions, "
        "'gauge' where one may, so that part of a turn may be one that the network does not see; "
        "null where it is not known what lies next to the map."
    )
    before: LeadingTurn = Field(description="Against the step before.")
    last: LeadingTurn = Field(description="Against the last step.")


class MapMotion(Record):
    """The way of one map through a series.

    Lists have one entry for each step of the series, null where a step was passed over or the map
    has no finite numbers there. Norms of differences are estimates from sketches where a map has
    more than 8,191 entries: their standard deviation is 0.8 % at most.
    """

    run: str | None = Field(
        default=None, description="Of several trainings, that whose steps the lists are about."
    )
    name: str = Field(description="Layer and role; of a sequence of maps the tensor.")
    role: str = Field(description="q, k, v, o, up, gate, down, conv, …")
    stack: str
    layer: int | None
    expert: int | None
    tensor: str
    shape: tuple[int, int] = Field(description="Outputs and inputs.")
    norm: list[float | None] = Field(description="‖W‖, Frobenius.")
    change: list[float | None] = Field(description="‖ΔW‖ since the step before.")
    relative_change: list[float | None] = Field(description="It over ‖W‖ of the step before.")
    distance_first: list[float | None] = Field(description="‖W - W_first‖.")
    distance_last: list[float | None] = Field(description="‖W - W_last‖.")
    status: list[str | None] = Field(
        description="Of the change since the step before: 'ok', 'identical', or 'moved less than "
        "rounding can tell'; why numbers are missing; null where a step was passed over."
    )
    path_length: float | None = Field(description="Sum of the changes.")
    displacement: float | None = Field(description="‖W_last - W_first‖.")
    straightness: float | None = Field(
        description="Displacement over path length: 1 on a straight line; null for fewer than two "
        "changes."
    )
    straightness_random: float | None = Field(
        description="What changes of these sizes in independent directions give, √Σs² / Σs: 1/√n "
        "for n equal ones."
    )
    write: SideMotion = Field(description="Output directions.")
    read: SideMotion = Field(description="Input directions.")
