"""What two sets of weights are to each other: `flagscope.compare`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flagscope.api.compared_adapters import model_and_adapter, two_adapters
from flagscope.api.compared_models import two_models
from flagscope.api.comparison_report import ComparisonReport
from flagscope.api.progress import shown_progress
from flagscope.api.sharing import named_paths
from flagscope.api.sides import Asked, adapter_path
from flagscope.api.source import check_run, checked_settings
from flagscope.engine import Progress, default_workers, peak_rss
from flagscope.errors import InputError
from flagscope.records.comparison import (
    COMPARISON_PARTS,
    Comparison,
    ComparisonPart,
    ComparisonRun,
)

if TYPE_CHECKING:
    from flagscope.api.source import Config, Source


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
    memory: int = 2_000_000_000,
    progress: Progress | bool | None = None,
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
        As for `flagscope.scan`; the memory is 2 GB by default.

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
    # No list of links: none is compared.
    settings = checked_settings(family=family, heads=heads, edges=0)
    # Counted here: while parts run, each of them has its share of PyTorch's threads alone.
    threads = default_workers() if workers is None else workers
    parts = _parts(only)
    parents = tuple(parents)
    if adapter is not None and not isinstance(adapter, (str, os.PathLike)):
        raise InputError(
            f"adapter is of type {type(adapter).__name__}",
            hint="give the folder or the file that PEFT saved the adapter in",
        )
    path_a, path_b = adapter_path(a), adapter_path(b)
    if path_a is not None or path_b is not None:
        _refuse_further(adapter, parents)
    with ExitStack() as stack:
        step = stack.enter_context(shown_progress(progress))
        asked = Asked(parts, settings, config, workers, threads, memory, step)
        made: dict[str, Any]
        if path_a is not None and path_b is not None:
            made = two_adapters(path_a, path_b, stack)
        elif path_a is not None:
            made = model_and_adapter(b, path_a, stack, asked, revision=revision_b, turned=True)
        elif path_b is not None:
            made = model_and_adapter(a, path_b, stack, asked, revision=revision_a, turned=False)
        else:
            sources = ((a, revision_a), (b, revision_b))
            made = two_models(sources, adapter, parents, stack, asked)
    result = Comparison(
        version=version("flagscope"),
        run=ComparisonRun(seconds=time.perf_counter() - start, peak_rss_bytes=peak_rss()),
        **made,
    )
    given = named_paths(a, b, config, family, *parents, adapter)
    return ComparisonReport(result, given=given)


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
