"""The record of a whole comparison, which is also its published JSON schema."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.comparison.adapter_pairs import AdapterPairRecord
from flagscope.records.comparison.adapters import CoverageRecord, ReplayRecord
from flagscope.records.comparison.change import ChangeRecord
from flagscope.records.comparison.content import ContentRecord
from flagscope.records.comparison.sided import SidedRecord
from flagscope.records.finding import Severity
from flagscope.records.literals import PairKind
from flagscope.records.record import Record

COMPARE_SCHEMA = "flagscope.compare/1"

ComparisonPart = Literal["content", "change", "diagnostics"]
COMPARISON_PARTS: tuple[ComparisonPart, ...] = get_args(ComparisonPart)

VerdictCode = Literal[
    "identical",
    "re-encoded",
    "few-entries",
    "rearranged",
    "fine-tuned",
    "zeroed",
    "shares-parts",
    "layers-changed",
    "merge",
    "unrelated",
    "different-architectures",
    "unclear",
    "adapter-applied",
    "adapter-not-applied",
    "adapter-applied-at-strength",
    "adapter-applied-twice",
    "adapter-partly",
    "adapter-other-scaling",
    "adapter-transposed",
    "adapter-subtracted",
    "adapter-exchanged",
    "adapter-not-unloaded",
    "adapter-applied-and-more",
    "adapter-other-adapter",
    "adapter-other-base",
    "adapter-other-change",
    "adapter-requantised",
    "adapter-dora",
    "adapter-dora-without-magnitudes",
    "adapter-nothing-matches",
    "adapter-zero-effect",
    "adapter-unclear",
    "adapter-fits",
    "adapter-fits-partly",
    "adapters-same",
    "adapters-shared-beyond-start",
    "adapters-shared-by-start",
    "adapters-chance",
    "adapters-nothing-in-common",
    "adapters-unclear",
]
VERDICT_CODES: tuple[VerdictCode, ...] = get_args(VerdictCode)


class Side(Record):
    """One of the things compared."""

    source: str
    kind: Literal["model", "adapter"]
    fingerprint: str = Field(description="Of names, shapes, types and samples of the data.")
    family: str | None = Field(description="Of a model, as a scan names it; null if not mapped.")
    dtype: str = Field(description="The type that most bytes of its weights are stored in.")
    tensors: int
    parameters: int


class Verdict(Record):
    """What two sets of weights are to each other, in one line."""

    code: VerdictCode = Field(description="Stable; --fail-on takes it.")
    text: str = Field(description="The line.")
    evidence: tuple[str, ...] = Field(description="What it rests on, with numbers.")
    cannot_tell: tuple[str, ...] = Field(
        description="What these tests do not say, and what was not looked at."
    )


class ComparisonFinding(Record):
    """One thing that a comparison shows besides its verdict."""

    code: str = Field(description="Stable; --fail-on takes it.")
    severity: Severity
    plain: str = Field(
        default="",
        description="The same in a plain sentence, for a reader who does not know the terms.",
    )
    text: str = Field(description="One sentence, with counts.")
    evidence: tuple[str, ...] = Field(
        default=(), description="The numbers behind it, and what it is about."
    )

    def __repr__(self) -> str:
        return f"ComparisonFinding({self.code}, {self.severity}: {self.text})"


KEPT_SINGULAR_VALUES = 16
"""Singular values of a head's product that a comparison keeps of each side."""


class HeadSides(SidedRecord):
    """One circuit of one head in both scans."""

    name: str
    kind: PairKind
    layer: int | None
    head: int | None
    values_a: dict[str, float | None] = Field(description="Diagnostics of its pair in a.")
    values_b: dict[str, float | None]
    product_spectrum_a: list[float] = Field(
        description="The largest singular values, at most 16, of its product W2 W1 in a; empty "
        "where a scan lacks them."
    )
    product_spectrum_b: list[float]


class ComparisonRun(Record):
    """What this run cost; the one part of a result that differs between equal runs."""

    seconds: float
    peak_rss_bytes: int | None


class Comparison(Record):
    """Everything that one comparison found (schema `flagscope.compare/1`)."""

    schema_: Literal["flagscope.compare/1"] = Field(default=COMPARE_SCHEMA, alias="schema")
    version: str
    a: Side
    b: Side
    adapter: Side | None = Field(default=None, description="The adapter that B may hold.")
    parents: list[Side] = Field(default=[], description="Models that a side may be a merge of.")
    verdict: Verdict
    findings: list[ComparisonFinding]
    content: ContentRecord | None = Field(
        default=None,
        description="What is the same, tensor by tensor; null where a side is an adapter.",
    )
    replay: ReplayRecord | None = Field(
        default=None, description="Whether B is A with the adapter merged; null without one."
    )
    coverage: CoverageRecord | None = Field(
        default=None, description="Of a model and an adapter: which tensors it changes."
    )
    adapters: AdapterPairRecord | None = Field(
        default=None, description="Of two adapters: how much of them is common."
    )
    change: ChangeRecord | None = Field(
        default=None, description="What moved, map by map and head by head."
    )
    change_status: str = Field(default="ok", description="ok, or why `change` is null.")
    heads: list[HeadSides] = Field(
        default=[], description="Circuits of heads before and after; empty without scans of both."
    )
    notes: list[str] = Field(description="What was assumed, and what was not looked at.")
    run: ComparisonRun
