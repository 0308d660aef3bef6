"""Two models compared: what is the same, what moved, and whether one holds an adapter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flagscope.api.sides import Asked, OpenModel, opened_adapter, opened_model
from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.comparison.adapters.replay import replayed_merge
from flagscope.comparison.change.changed_maps import changed_maps
from flagscope.comparison.content.compared import compared_content
from flagscope.engine import run_scan, torch_threads
from flagscope.observables import AT_A_GLANCE
from flagscope.records import PARTS, ArraySummary, PairRecord, ScanResult
from flagscope.records.comparison import (
    KEPT_SINGULAR_VALUES,
    SIDE_A,
    SIDE_B,
    ChangeRecord,
    ContentRecord,
    HeadSides,
    lettered,
    lettered_text,
)
from flagscope.records.comparison.content_words import worded
from flagscope.report.comparison import (
    comparison_findings,
    fault_findings,
    verdict_of_models,
    verdict_of_replay,
)

if TYPE_CHECKING:
    from flagscope.api.source import Source

# With these nothing moved, or there is nothing that it moved from.
_SETTLED = {
    "identical": "the weights are identical",
    "reencoded": "nothing moved further than rounding",
    "unrelated": "the two are unrelated by the tests above",
    "different_architectures": "the two are of different architectures",
    "layers_changed": "the layers of the two do not correspond one to one",
}


@dataclass(frozen=True)
class _Found:
    """What two models have in common and what moved; fields as of `Comparison`."""

    content: ContentRecord
    change: ChangeRecord | None
    change_status: str
    heads: list[HeadSides] = field(default_factory=list)

    def mirrored(self) -> _Found:
        """The same with the sides exchanged."""
        return _Found(
            self.content.mirrored(),
            self.change and self.change.mirrored(),
            self.change_status,
            [head.mirrored() for head in self.heads],
        )


def two_models(
    sources: tuple[tuple[Source, str | None], tuple[Source, str | None]],
    adapter: str | os.PathLike[str] | None,
    parents: Sequence[Source],
    stack: ExitStack,
    asked: Asked,
) -> dict[str, Any]:
    """Fields of the comparison of two models, of hub revisions where they are given."""
    map_it = "change" in asked.parts
    a, b = (
        opened_model(source, stack, asked, revision=revision, map_it=map_it)
        for source, revision in sources
    )
    others = [opened_model(source, stack, asked, map_it=False) for source in parents]
    # One order for both ways round, so that both give the same numbers.
    turned = b.place < a.place
    first, second = (b, a) if turned else (a, b)
    found = _found(first, second, others, asked)
    verdict = lettered(verdict_of_models(found.content, found.change), turned=turned)
    findings = [
        lettered(finding, turned=turned)
        for finding in comparison_findings(found.content, found.change)
    ]
    words = _lettered_lines(found.content, turned=turned)
    found = found.mirrored() if turned else found
    side, replay = None, None
    if adapter is not None:
        opened = opened_adapter(adapter, stack)
        side = opened.side
        with torch_threads(asked.threads):
            replay = replayed_merge(
                a.stored, b.stored, opened.weights,
                workers=asked.threads, progress=asked.progress,
            )  # fmt: skip
        verdict = verdict_of_replay(replay)
        findings = [*fault_findings(replay.faults), *findings]
    return {
        "a": a.side,
        "b": b.side,
        "adapter": side,
        "parents": [other.side for other in others],
        "verdict": verdict,
        "findings": findings,
        "content": found.content.model_copy(update=words),
        "replay": replay,
        "change": found.change,
        "change_status": found.change_status,
        "heads": found.heads,
        "notes": [lettered_text(note, turned=turned) for note in _notes(first, second)],
    }


def _lettered_lines(content: ContentRecord, *, turned: bool) -> dict[str, tuple[str, ...]]:
    """The lines of a content, in their order, which is that of neither side."""
    return {
        "evidence": tuple(lettered_text(line, turned=turned) for line in content.evidence),
        "cannot_tell": tuple(lettered_text(line, turned=turned) for line in content.cannot_tell),
    }


def _notes(first: OpenModel, second: OpenModel) -> list[str]:
    """Notes on either side; one that holds for both is said once."""
    both = [note for note in first.notes if note in second.notes]
    return [
        *both,
        *(f"{SIDE_A}: {note}" for note in first.notes if note not in both),
        *(f"{SIDE_B}: {note}" for note in second.notes if note not in both),
    ]


def _found(
    first: OpenModel, second: OpenModel, parents: Sequence[OpenModel], asked: Asked
) -> _Found:
    with torch_threads(asked.threads):
        content = compared_content(
            first.stored, second.stored, parents=[parent.stored for parent in parents],
            workers=asked.threads, progress=asked.progress,
        )  # fmt: skip
    content = worded(content, letters=(SIDE_A, SIDE_B))
    if "change" not in asked.parts:
        return _Found(content, None, "it was not asked for")
    if content.relation in _SETTLED:
        return _Found(content, None, _SETTLED[content.relation])
    if first.graph is None or second.graph is None:
        return _Found(content, None, "the maps of a side are not known")
    scans = None
    if "diagnostics" in asked.parts:
        scans = (
            _scan(first.checkpoint, first.graph, asked),
            _scan(second.checkpoint, second.graph, asked),
        )
    with torch_threads(asked.threads):
        change = changed_maps(
            first.checkpoint, second.checkpoint, first.graph, second.graph, scans=scans,
            workers=asked.threads, memory=asked.memory, progress=asked.progress,
        )  # fmt: skip
    return _Found(content, change, "ok", [] if scans is None else _head_sides(*scans))


def _scan(checkpoint: Checkpoint, graph: Graph, asked: Asked) -> ScanResult:
    # What is broken on a side, the comparison of contents says.
    parts = tuple(part for part in PARTS if part != "health")
    return run_scan(
        checkpoint, graph, asked.settings.model_copy(update={"only": parts}),
        workers=asked.workers, progress=asked.progress, memory=asked.memory,
    )  # fmt: skip


def _head_sides(a: ScanResult, b: ScanResult) -> list[HeadSides]:
    """Circuits of heads that both scans have."""
    there = {pair.name: pair for pair in b.pairs}
    return [
        HeadSides(
            name=pair.name, kind=pair.kind, layer=pair.layer, head=pair.head,
            values_a=_values(pair), values_b=_values(there[pair.name]),
            product_spectrum_a=_spectrum(pair), product_spectrum_b=_spectrum(there[pair.name]),
        )
        for pair in a.pairs
        if pair.head is not None and pair.name in there
    ]  # fmt: skip


def _values(pair: PairRecord) -> dict[str, float | None]:
    return {name: getattr(pair, name) for name in AT_A_GLANCE}


def _spectrum(pair: PairRecord) -> list[float]:
    """The leading singular values of a pair's product."""
    values = None if pair.functional is None else pair.functional.product_spectrum
    if values is None:
        return []
    return (values.top if isinstance(values, ArraySummary) else values)[:KEPT_SINGULAR_VALUES]
