"""The record of a whole scan, which is also the published JSON schema."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flagscope.records.coverage import Coverage
from flagscope.records.finding import Finding
from flagscope.records.heads import HeadRecord
from flagscope.records.health import Health
from flagscope.records.links import EdgeRecord
from flagscope.records.literals import Freedom, Label, TestKind
from flagscope.records.pairs import PairRecord
from flagscope.records.record import Record
from flagscope.records.settings import StatedSettings

SCHEMA = "flagscope.scan/2"


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
    health: Health | None = Field(
        default=None,
        description="What is broken, dead, copied or missing; null where that was not asked for, "
        "and in files of releases that did not look.",
    )
    settings: StatedSettings = Field(title="Settings")
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
    findings: list[Finding] = Field(
        default=[],
        description="What the report says of it, most important first; empty in a result that was "
        "not made a report of.",
    )
    run: RunRecord

    def __repr__(self) -> str:
        counts = f"{len(self.pairs):,} pairs, {len(self.heads):,} head groups, "
        return (
            f"ScanResult({self.source!r}, family={self.family!r}, {counts}{len(self.edges):,} "
            f"links, {len(self.failures):,} failures)"
        )
