"""Sides of a comparison: a model or an adapter, opened and mapped."""

from __future__ import annotations

import os
from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from flagscope.api.source import mapped, opened, readable
from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint, checkpoint_fingerprint
from flagscope.checkpoint.lora import (
    ADAPTER_FILES,
    AdapterWeights,
    adapter_weights,
    factor_file,
    read_adapter,
)
from flagscope.engine import Progress, Settings, main_dtype, weights_of
from flagscope.errors import FlagscopeError
from flagscope.records.comparison import ComparisonPart, Side

if TYPE_CHECKING:
    from flagscope.api.source import Config, Source


@dataclass(frozen=True)
class OpenSide:
    """One of the two; `side` is what is said of it."""

    side: Side

    @property
    def place(self) -> tuple[Hashable, ...]:
        """Its place in the order in which sides are compared, whatever order they came in."""
        return (self.side.kind, self.side.fingerprint, self.side.source)


@dataclass(frozen=True)
class OpenModel(OpenSide):
    """A model.

    Attributes
    ----------
    stored
        Its tensors.
    checkpoint, graph
        The tensors as its graph takes them, and the graph; None where it could not be mapped.
    notes
        What was assumed, or why it could not be mapped.
    """

    stored: Checkpoint
    checkpoint: Checkpoint
    graph: Graph | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class OpenAdapter(OpenSide):
    """A LoRA adapter by itself."""

    weights: AdapterWeights


@dataclass(frozen=True)
class Asked:
    """What is asked for of a comparison, and what it may take; `threads` are parts at once."""

    parts: tuple[ComparisonPart, ...]
    settings: Settings
    config: Config | None
    workers: int | None
    threads: int
    memory: int
    progress: Progress | None


def adapter_path(source: Source) -> str | os.PathLike[str] | None:
    """The folder, file or URL of an adapter that a source names; None for anything else."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    named = os.fspath(source)
    if "://" in named:
        return source if named.endswith(ADAPTER_FILES) else None
    path = Path(named).expanduser()
    try:
        held = path.exists() and (adapter_weights(path) or factor_file(path))
        return source if held else None
    except (OSError, ValueError):
        return None


def opened_model(
    source: Source,
    stack: ExitStack,
    asked: Asked,
    *,
    revision: str | None = None,
    map_it: bool = True,
) -> OpenModel:
    """A model, closed with the stack; one that cannot be mapped is compared by its tensors alone.

    Raises
    ------
    InputError, SourceError
        As for `flagscope.scan`.
    """
    stored = stack.enter_context(opened(source, config=asked.config, revision=revision, base=None))
    fingerprint = checkpoint_fingerprint(stored)
    graph, checkpoint, notes = None, stored, ()
    if map_it:
        try:
            checkpoint, graph = mapped(stored, asked.settings, source, None)
            notes = graph.notes
        except FlagscopeError as error:
            notes = (f"its maps are not known, and its tensors alone were compared: {error}",)
    side = Side(
        source=readable(stored.source),
        kind="model",
        fingerprint=fingerprint,
        family=None if graph is None else graph.family,
        dtype=main_dtype(stored),
        tensors=len(stored.tensors),
        parameters=weights_of(stored, read=False).parameters,
    )
    return OpenModel(side, stored, checkpoint, graph, (*stored.notes, *notes))


def opened_adapter(source: str | os.PathLike[str], stack: ExitStack) -> OpenAdapter:
    """An adapter, closed with the stack.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    weights = stack.enter_context(read_adapter(source))
    file = weights.file
    side = Side(
        source=readable(weights.source),
        kind="adapter",
        fingerprint=checkpoint_fingerprint(file),
        family=None,
        dtype=main_dtype(file),
        tensors=len(file.tensors),
        parameters=sum(prod(info.shape) for info in file.tensors.values()),
    )
    return OpenAdapter(side, weights)
