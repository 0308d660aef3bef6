"""What two sets of weights are to each other: `flagscope.compare`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flagscope.api.comparison_report import ComparisonReport
from flagscope.api.sharing import named_paths
from flagscope.api.sides import OpenAdapter, OpenModel, is_adapter, opened_adapter, opened_model
from flagscope.api.source import check_run, checked_settings
from flagscope.checkpoint.adapter import AdapterCheckpoint
from flagscope.comparison.adapters.coverage import adapter_coverage
from flagscope.comparison.adapters.pair import compared_adapters
from flagscope.comparison.adapters.replay import replayed_merge
from flagscope.comparison.change.changed_maps import changed_maps
from flagscope.comparison.content.compared import compared_content
from flagscope.engine import (
    TASK_MEMORY,
    Progress,
    Settings,
    peak_rss,
    run_scan,
)
from flagscope.errors import FlagscopeError, InputError
from flagscope.observables import AT_A_GLANCE
from flagscope.records import PairRecord, ScanResult
from flagscope.records.comparison import (
    COMPARISON_PARTS,
    ChangeRecord,
    Comparison,
    ComparisonPart,
    ComparisonRun,
    ContentRecord,
    HeadSides,
)
from flagscope.report.comparison import (
    comparison_findings,
    verdict_of_adapters,
    verdict_of_coverage,
    verdict_of_models,
    verdict_of_replay,
)

if TYPE_CHECKING:
    from flagscope.api.source import Config, Source

# With these nothing moved, or there is nothing that it moved from.
_SETTLED = {
    "identical": "the weights are identical",
    "reencoded": "nothing moved further than rounding",
    "unrelated": "the two are unrelated by the tests above",
    "different_architectures": "the two are of different architectures",
    "layers_changed": "the layers of the two do not correspond one to one",
}
_SPECTRUM = 16  # singular values of a head's product that are kept


@dataclass
class _Asked:
    """What is asked for of a comparison."""

    parts: tuple[ComparisonPart, ...]
    settings: Settings
    workers: int | None
    memory: int
    progress: Progress | None


@dataclass
class _Outcome:
    """What was found; fields as of `Comparison`."""

    content: ContentRecord | None = None
    change: ChangeRecord | None = None
    change_status: str = "ok"
    heads: list[HeadSides] = field(default_factory=list)

    def mirrored(self) -> _Outcome:
        """The same with the sides exchanged."""
        return _Outcome(
            self.content and self.content.mirrored(),
            self.change and self.change.mirrored(),
            self.change_status,
            [head.mirrored() for head in self.heads],
        )


def compare(
    a: Source,
    b: Source,
    *,
    adapter: str | os.PathLike[str] | None = None,
    parents: Iterable[Source] = (),
    only: ComparisonPart | Iterable[ComparisonPart] = COMPARISON_PARTS,
    config: Config | None = None,
    family: str | None = None,
    heads: int | None = None,
    revision_a: str | None = None,
    revision_b: str | None = None,
    workers: int | None = None,
    memory: int = TASK_MEMORY,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Compare two models, a model and an adapter, or two adapters, by their weights alone.

    `compare(b, a)` gives the same with the sides exchanged.

    Parameters
    ----------
    a, b
        As for `flagscope.scan`; or the folder of a LoRA adapter, which stands for itself and not
        for the model under it.
    adapter
        A LoRA adapter: is B the model A with this adapter merged, and at which strength?
    parents
        Models that a side may be a merge of.
    only
        Parts to compute: "content" (which tensors are the same), "change" (what moved, map by map
        and head by head), "diagnostics" (both are scanned, and the changes of each diagnostic
        listed). The verdict needs the content, which is always computed.
    config, family, heads
        As for `flagscope.scan`, of both sides.
    revision_a, revision_b
        Branch, tag or commit of hub repositories.
    workers, memory, progress
        As for `flagscope.scan`.

    Returns
    -------
    ComparisonReport

    Raises
    ------
    InputError, SourceError, ArchitectureError
        As for `flagscope.scan`.

    Examples
    --------
    >>> import torch
    >>> weights = {"0.weight": torch.randn(64, 32), "2.weight": torch.randn(8, 64)}
    >>> rounded = {name: tensor.bfloat16() for name, tensor in weights.items()}
    >>> compare(weights, rounded).verdict.code
    're-encoded'
    """
    check_run(workers, memory)
    start = time.perf_counter()
    asked = _Asked(
        _parts(only), checked_settings(family=family, heads=heads), workers, memory, progress
    )
    parents = tuple(parents)
    with ExitStack() as stack:
        kinds = [is_adapter(a), is_adapter(b)]
        if any(kinds):
            _refuse_further(adapter, parents)
        made: dict[str, Any]
        if all(kinds):
            made = _two_adapters(a, b, stack)
        elif any(kinds):
            made = _model_and_adapter(a, b, kinds, stack, asked, config)
        else:
            sources = ((a, revision_a), (b, revision_b))
            made = _two_models(sources, adapter, parents, stack, asked, config)
    result = Comparison(
        version=version("flagscope"),
        run=ComparisonRun(seconds=time.perf_counter() - start, peak_rss_bytes=peak_rss()),
        **made,
    )
    return ComparisonReport(
        result, given=named_paths(a, b, config, family, *parents, *([adapter] if adapter else []))
    )


def _parts(only: ComparisonPart | Iterable[ComparisonPart]) -> tuple[ComparisonPart, ...]:
    parts: tuple[Any, ...] = (only,) if isinstance(only, str) else tuple(only)
    wrong = [part for part in parts if part not in COMPARISON_PARTS]
    if wrong or not parts:
        raise InputError(
            f"only is {', '.join(map(repr, wrong)) or 'empty'}",
            hint=f"give some of {', '.join(COMPARISON_PARTS)}",
        )
    return parts


def _refuse_further(adapter: object, parents: tuple[object, ...]) -> None:
    if adapter is not None:
        raise InputError(
            "adapter is given, and a side is an adapter itself",
            hint="give the base, the merged model and the adapter, or the base and the adapter",
        )
    if parents:
        raise InputError(
            "parents are given, and a side is an adapter", hint="give the merged model in its place"
        )


def _two_models(
    sources: tuple[tuple[Source, str | None], tuple[Source, str | None]],
    adapter: str | os.PathLike[str] | None,
    parents: tuple[Source, ...],
    stack: ExitStack,
    asked: _Asked,
    config: Config | None,
) -> dict[str, Any]:
    a, b = (
        opened_model(
            source, stack, settings=asked.settings, config=config, revision=revision,
            map_it="change" in asked.parts,
        )
        for source, revision in sources
    )  # fmt: skip
    others = [
        opened_model(source, stack, settings=asked.settings, config=config, map_it=False)
        for source in parents
    ]
    # One order for both ways round, so that both give the same numbers.
    turned = b.place < a.place
    first, second = (b, a) if turned else (a, b)
    found = _of_models(first, second, others, asked)
    found = found.mirrored() if turned else found
    replay = None
    if adapter is not None:
        opened = opened_adapter(adapter, stack)
        replay = replayed_merge(
            a.stored, b.stored, opened.weights, workers=asked.workers or 1
        )
    content = found.content
    if content is None:
        raise AssertionError("two models always have a content")
    said = verdict_of_models(content, found.change)
    return {
        "a": a.side,
        "b": b.side,
        "adapter": None if adapter is None else opened.side,
        "parents": [other.side for other in others],
        "verdict": said if replay is None else verdict_of_replay(replay),
        "findings": comparison_findings(content, found.change, replay, None),
        "content": content,
        "replay": replay,
        "change": found.change,
        "change_status": found.change_status,
        "heads": found.heads,
        "notes": _notes(a, b),
    }


def _notes(a: OpenModel, b: OpenModel) -> list[str]:
    """Notes on either side; one that holds for both is said once."""
    both = [note for note in a.notes if note in b.notes]
    return [
        *both,
        *(f"A: {note}" for note in a.notes if note not in both),
        *(f"B: {note}" for note in b.notes if note not in both),
    ]


def _of_models(
    first: OpenModel, second: OpenModel, parents: list[OpenModel], asked: _Asked
) -> _Outcome:
    content = compared_content(
        first.stored, second.stored, parents=[parent.stored for parent in parents],
        workers=asked.workers or 1,
    )  # fmt: skip
    status = _SETTLED.get(content.relation, "ok")
    if "change" not in asked.parts:
        status = "it was not asked for"
    elif status == "ok" and (first.graph is None or second.graph is None):
        status = "the maps of a side are not known"
    if status != "ok":
        return _Outcome(content, None, status)
    change, heads = _changed(first, second, asked)
    return _Outcome(content, change, "ok", heads)


def _changed(
    first: OpenModel, second: OpenModel, asked: _Asked
) -> tuple[ChangeRecord, list[HeadSides]]:
    """What moved, and the circuits of heads on both sides."""
    if first.graph is None or second.graph is None:
        raise AssertionError("models with graphs alone come here")
    scans: tuple[ScanResult, ScanResult] | None = None
    if "diagnostics" in asked.parts:
        scans = tuple(
            run_scan(
                side.checkpoint, side.graph, asked.settings,
                workers=asked.workers, executor=None, progress=asked.progress, store=None,
                memory=asked.memory,
            )
            for side in (first, second)
        )  # fmt: skip
    change = changed_maps(
        first.checkpoint, second.checkpoint, first.graph, second.graph, scans=scans,
        workers=asked.workers or 1, memory=asked.memory, progress=asked.progress,
    )  # fmt: skip
    return change, [] if scans is None else _head_sides(*scans)


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
    product = pair.functional.product_spectrum if pair.functional else None
    if product is None:
        return []
    values = product.values if hasattr(product, "values") else product
    return [float(value) for value in list(values)[:_SPECTRUM]]


def _model_and_adapter(
    a: Source,
    b: Source,
    kinds: list[bool],
    stack: ExitStack,
    asked: _Asked,
    config: Config | None,
) -> dict[str, Any]:
    """A model against itself with an adapter merged into it."""
    source, path = (b, a) if kinds[0] else (a, b)
    if not isinstance(path, (str, os.PathLike)):
        raise AssertionError("an adapter lies on disk")
    model = opened_model(source, stack, settings=asked.settings, config=config)
    adapter = opened_adapter(path, stack)
    coverage = adapter_coverage(adapter.weights, model.stored)
    change, status = None, "it was not asked for"
    if "change" in asked.parts:
        change, status = _with_adapter(model, source, adapter, stack, asked, config)
    if change is not None and kinds[0]:
        change = change.mirrored()
    sides = (adapter.side, model.side) if kinds[0] else (model.side, adapter.side)
    return {
        "a": sides[0],
        "b": sides[1],
        "verdict": verdict_of_coverage(coverage),
        "findings": comparison_findings(None, change, None, coverage),
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
    asked: _Asked,
    config: Config | None,
) -> tuple[ChangeRecord | None, str]:
    """What an adapter would move; None and why where it cannot be merged."""
    if model.graph is None:
        return None, "the maps of the model are not known"
    try:
        again = opened_model(source, stack, settings=asked.settings, config=config, map_it=False)
        merged = stack.enter_context(AdapterCheckpoint(adapter.weights.path, again.stored))
    except FlagscopeError as error:
        return None, f"the adapter cannot be merged into the model: {error}"
    change = changed_maps(
        model.checkpoint, merged, model.graph, model.graph,
        workers=asked.workers or 1, memory=asked.memory, progress=asked.progress,
    )  # fmt: skip
    return change, "ok"


def _two_adapters(a: Source, b: Source, stack: ExitStack) -> dict[str, Any]:
    if not isinstance(a, (str, os.PathLike)) or not isinstance(b, (str, os.PathLike)):
        raise AssertionError("adapters lie on disk")
    first, second = opened_adapter(a, stack), opened_adapter(b, stack)
    turned = second.place < first.place
    pair = (second, first) if turned else (first, second)
    found = compared_adapters(pair[0].weights, pair[1].weights)
    found = found.mirrored() if turned else found
    return {
        "a": first.side,
        "b": second.side,
        "verdict": verdict_of_adapters(found),
        "findings": [],
        "adapters": found,
        "change_status": "an adapter has no maps of its own",
        "notes": [],
    }
