"""Lines of a monitor's journal, `monitor.jsonl`: one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from flagscope.records.record import Record

MONITOR_SCHEMA = "flagscope.monitor/1"

AlertCode = Literal[
    "not-finite",
    "rank-collapse",
    "dead-heads",
    "dead-neurons",
    "copied-heads",
    "frozen-block",
    "spike",
    "dead-lora-rank",
]
"""Codes of alerts; they do not change from release to release."""


class _Line(Record):
    schema_: Literal["flagscope.monitor/1"] = Field(default=MONITOR_SCHEMA, alias="schema")
    step: int = Field(description="Number of optimizer steps that were taken.")


class MeasurementLine(_Line):
    """A measurement."""

    kind: Literal["measurement"]
    part: str = Field(description="all, a kind of pair, heads, residual or health.")
    seconds: float = Field(description="How long it took.")
    scalars: dict[str, float] = Field(description="The numbers that loggers get, by name.")
    norms: dict[str, float | None] = Field(
        description="Frobenius norm of each block; null where it is not finite."
    )
    scan: str | None = Field(description="Name of the file of the whole scan, next to this one.")


class GapLine(_Line):
    """A measurement that was due and not made."""

    kind: Literal["gap"]
    reason: str


class AlertLine(_Line):
    """An alert that fired."""

    kind: Literal["alert"]
    code: AlertCode
    place: str = Field(description="The tensor, block or heads.")
    text: str = Field(description="A sentence.")


class PartLine(Record):
    """What one measurement looks at."""

    name: str
    only: list[str]
    kinds: list[str] | None


class ScheduleLine(_Line):
    """The schedule that the calibration fixed."""

    kind: Literal["schedule"]
    every: int = Field(description="Steps between two measurements.")
    parts: list[PartLine] = Field(description="Measured in turn.")
    seconds: list[float] = Field(description="How long each part took.")
    after: int = Field(description="Step of the calibration.")
    budget: float = Field(description="Share of the training time.")
    step_seconds: float = Field(description="Time of one step of the training.")


class MonitorLine(RootModel[
    Annotated[
        MeasurementLine | GapLine | AlertLine | ScheduleLine, Field(discriminator="kind")
    ]
]):  # fmt: skip
    """One line of `monitor.jsonl` (schema `flagscope.monitor/1`)."""
