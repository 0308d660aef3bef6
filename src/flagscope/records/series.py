"""Records of a series of checkpoints: `flagscope track`."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.literals import CurvePart, Label
from flagscope.records.record import Record
from flagscope.records.series_adapter import AdapterCurves
from flagscope.records.series_changes import ChangePoints
from flagscope.records.series_motion import MapMotion
from flagscope.records.series_onsets import Onset
from flagscope.records.series_products import ProductMotion
from flagscope.records.series_rates import SeriesRates
from flagscope.records.series_runs import RunsRecord

TRACK_SCHEMA = "flagscope.track/1"
NETWORK = "network"
"""Name and kind of the whole network among the curves of health."""

SeriesFaultCode = Literal[
    "truncated",
    "incomplete",
    "unreadable",
    "being-written",
    "other-tensors",
    "mixed-dtype",
    "not-finite",
    "equal",
    "near-equal",
    "foreign-shard",
    "foreign-initialisation",
    "foreign-step",
    "wrong-order",
    "wrong-number",
    "restart",
    "rolled-back",
    "of-another-run",
    "gap",
]
"""What can be wrong with a series, in words that do not change from release to release."""
SERIES_FAULT_CODES: tuple[SeriesFaultCode, ...] = get_args(SeriesFaultCode)


class SeriesFault(Record):
    """One thing that is wrong with a series, or may be."""

    code: SeriesFaultCode
    steps: list[str] = Field(description="Names of the steps that it is about.")
    plain: str = Field(description="What was seen, in one sentence.")
    evidence: str = Field(description="The numbers behind it, and what else they may mean.")
    tensors: list[str] = Field(
        default_factory=list, description="Tensors that it is about, at most 8; empty for all."
    )


class StepRecord(Record):
    """One checkpoint of a series, as its headers and samples show it."""

    name: str = Field(
        description="Of the file, folder or revision, after the name of its run where there are "
        "several."
    )
    run: str | None = Field(default=None, description="Its training, where there are several.")
    source: str
    revision: str | None = None
    number: int | None = Field(description="Of the step by its name; null where it says none.")
    unit: Literal["step", "epoch"] | None = None
    trainer_step: int | None = Field(
        default=None, description="global_step of the trainer_state.json next to it."
    )
    status: Literal["ok", "truncated", "incomplete", "unreadable", "being-written"] = "ok"
    tensors: int
    dtype: str | None = Field(default=None, description="Type that most of its bytes have.")
    bytes_total: int
    bytes_sampled: int
    distance: float | None = Field(
        default=None,
        description="To the step before: root mean square over tensors of the distance of samples "
        "in units of each tensor's median step.",
    )
    distance_first: float | None = Field(default=None, description="The same to the first step.")
    distance_last: float | None = Field(default=None, description="The same to the last step.")
    correlation_first: float | None = Field(
        default=None, description="Of its samples with those of the first step, centred by tensor."
    )


class Integrity(Record):
    """Whether the checkpoints are what their names say, as far as samples show."""

    faults: list[SeriesFault]
    tensors_compared: int
    samples: int = Field(description="Numbers of each step that were compared.")
    frozen: list[str] = Field(description="Tensors of which no sample ever changes, at most 8.")
    frozen_total: int
    path_length: float | None = Field(
        description="Sum of the distances of neighbours, in the unit of `distance`."
    )
    displacement: float | None = Field(description="Distance of the first and the last step.")
    not_looked_at: list[str] = Field(description="What the answer does not cover, in words.")


class SeriesCurve(Record):
    """One number of a pair, of the heads of a layer, or of health, over the steps of a series."""

    part: CurvePart = Field(
        default="pairs", description="Part of a scan that it is from: pairs, heads or health."
    )
    pair: str = Field(
        description="Name of the pair, as in a scan. Of heads their layer and space, such as "
        "layer.0.heads.k; of health the block, as in a scan, layer.0.heads, or network."
    )
    kind: str = Field(
        description="Of the pair; of heads their space (q, k, v or o); of health the kind of the "
        "block, heads, or network."
    )
    layer: int | None
    observable: str = Field(
        description="Field of the pair's record in a scan. Of heads head_overlap_ratio, "
        "max_pair_ratio, distinct_heads or shared_directions; of health dead_neurons, dead_heads "
        "or not_finite."
    )
    label: Label | None = Field(
        description="Whether the pair's own freedom leaves the number (functional) or moves it "
        "(gauge); null where that is not known, and for health."
    )
    values: list[float | None] = Field(description="One for each step; null where there is none.")
    low: list[float | None] = Field(
        description="What chance gives at each step, its lower end; null where no random model "
        "says it."
    )
    high: list[float | None]


class SeriesRecord(Record):
    """Everything of a series (schema `flagscope.track/1`)."""

    schema_: Literal["flagscope.track/1"] = Field(default=TRACK_SCHEMA, alias="schema")
    version: str = Field(default="", description="Of flagscope.")
    sources: list[str] = Field(description="What was named.")
    integrity: Integrity
    steps: list[StepRecord] = Field(description="In the order of their numbers.")
    curves: list[SeriesCurve] = Field(description="Empty where only integrity was asked for.")
    adapters: list[AdapterCurves] = Field(
        default_factory=list, description="Modules of LoRA adapters, from their factors."
    )
    motion: list[MapMotion] = Field(
        default_factory=list, description="The way of each map; empty where none was followed."
    )
    products: list[ProductMotion] = Field(
        default_factory=list,
        description="The way of each product of two maps that a freedom between them leaves.",
    )
    onsets: list[Onset] = Field(
        default_factory=list, description="When each pair reaches what it stands on at the end."
    )
    change_points: list[ChangePoints] = Field(
        default_factory=list, description="Jumps of curves: one entry for each training."
    )
    rates: list[SeriesRates] = Field(
        default_factory=list, description="Rates of linear pairs: one entry for each training."
    )
    runs: RunsRecord | None = Field(
        default=None,
        description="Several trainings side by side; null for one. Steps then are those of all "
        "runs, one run after the other, and each curve has a value for each of them.",
    )
    notes: list[str]

    def steps_of(self, run: str | None) -> list[StepRecord]:
        """The steps of one training of several; all for None."""
        return [step for step in self.steps if run is None or step.run == run]
