"""Comparisons in which a side is an adapter: against a model, or against another adapter."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from flagscope.api.sides import Asked, OpenAdapter, OpenModel, opened_adapter, opened_model
from flagscope.api.source import opened
from flagscope.checkpoint.adapter import AdapterCheckpoint
from flagscope.comparison.adapters.coverage import adapter_coverage
from flagscope.comparison.adapters.pair import compared_adapters
from flagscope.comparison.change.changed_maps import changed_maps
from flagscope.engine import torch_threads
from flagscope.errors import FlagscopeError
from flagscope.records.comparison import SIDE_A, SIDE_B, ChangeRecord, lettered
from flagscope.report.comparison import (
    comparison_findings,
    fault_findings,
    verdict_of_adapters,
    verdict_of_coverage,
)

if TYPE_CHECKING:
    from flagscope.api.source import Source


def two_adapters(
    a: str | os.PathLike[str], b: str | os.PathLike[str], stack: ExitStack
) -> dict[str, Any]:
    """Fields of the comparison of two adapters."""
    first, second = opened_adapter(a, stack), opened_adapter(b, stack)
    # One order for both ways round, so that both give the same numbers.
    turned = second.place < first.place
    pair = (second, first) if turned else (first, second)
    found = compared_adapters(pair[0].weights, pair[1].weights)
    verdict = lettered(verdict_of_adapters(found), turned=turned)
    faults = [
        *fault_findings(found.faults_a, SIDE_A),
        *fault_findings(found.faults_b, SIDE_B),
    ]
    found = found.mirrored() if turned else found
    return {
        "a": first.side,
        "b": second.side,
        "verdict": verdict,
        "findings": [lettered(finding, turned=turned) for finding in faults],
        "adapters": found,
        "change_status": "an adapter has no maps of its own",
        "notes": [],
    }


def model_and_adapter(
    source: Source,
    path: str | os.PathLike[str],
    stack: ExitStack,
    asked: Asked,
    *,
    revision: str | None,
    turned: bool,
) -> dict[str, Any]:
    """Fields of the comparison of a model with an adapter for it, the adapter first if `turned`.

    What moved is the model against itself with the adapter merged into it.
    """
    model = opened_model(source, stack, asked, revision=revision)
    adapter = opened_adapter(path, stack)
    coverage = adapter_coverage(adapter.weights, model.stored)
    change, status = None, "it was not asked for"
    if "change" in asked.parts:
        change, status = _with_adapter(model, source, adapter, stack, asked, revision)
    a, b = (adapter.side, model.side) if turned else (model.side, adapter.side)
    said = [lettered(finding, turned=turned) for finding in comparison_findings(None, change)]
    change = change.mirrored() if change is not None and turned else change
    return {
        "a": a,
        "b": b,
        "verdict": verdict_of_coverage(coverage),
        "findings": [*fault_findings(coverage.faults), *said],
        "coverage": coverage,
        "change": change,
        "change_status": status,
        "notes": [*model.notes, *adapter.weights.variants],
    }


def _with_adapter(
    model: OpenModel,
    source: Source,
    adapter: OpenAdapter,
    stack: ExitStack,
    asked: Asked,
    revision: str | None,
) -> tuple[ChangeRecord | None, str]:
    """What an adapter would move; None and why where it cannot be merged."""
    if model.graph is None:
        return None, "the maps of the model are not known"
    try:
        # Opened again, since the merged model closes its base.
        again = stack.enter_context(
            opened(source, config=asked.config, revision=revision, base=None)
        )
        merged = stack.enter_context(AdapterCheckpoint(adapter.weights.path, again))
    except FlagscopeError as error:
        return None, f"the adapter cannot be merged into the model: {error}"
    with torch_threads(asked.threads):
        change = changed_maps(
            model.checkpoint, merged, model.graph, model.graph,
            workers=asked.threads, memory=asked.memory, progress=asked.progress,
        )  # fmt: skip
    return change, "ok"
