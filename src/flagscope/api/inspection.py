"""What a scan would measure, from the header alone: `flagscope.inspect`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flagscope.api.sharing import named_paths, shareable, shared_name
from flagscope.api.source import (
    all_of,
    check_run,
    checked_settings,
    mapped,
    opened,
    parts_of,
    readable,
)
from flagscope.arch import Graph
from flagscope.engine import (
    TASK_MEMORY,
    Estimate,
    Settings,
    Task,
    coverage_of,
    estimated,
    health_tasks,
    is_sharp,
    plan,
    weights_of,
)
from flagscope.records import PARTS, Coverage, Depth, PairKind, Part, Precision

if TYPE_CHECKING:
    from flagscope.api.source import Config, Source


@dataclass(frozen=True, repr=False)
class Inspection:
    """What is known of a checkpoint from its header alone.

    Attributes
    ----------
    source
        What was opened.
    parameters
        Number of parameters: tied weights once, buffers not at all.
    coverage
        How much of them a scan would measure, and what it would leave out, by reason.
    graph
        Maps, pairs and head groups.
    tasks
        What a scan would do, with the cost of each part.
    notes
        What could not be mapped, and what was assumed.
    estimate
        What a scan would take on this machine, if that was asked for.
    estimate_full
        The same of a scan with `depth="full"`, where this one would be sharp in part.
    """

    source: str
    parameters: int
    coverage: Coverage
    graph: Graph
    tasks: tuple[Task, ...]
    notes: tuple[str, ...]
    estimate: Estimate | None = None
    estimate_full: Estimate | None = None
    _given: tuple[str, ...] = ()

    @property
    def bytes_read(self) -> int:
        """Bytes that a scan reads of the checkpoint if it has room to read each tensor once."""
        pieces = {piece: size for task in self.tasks for piece, size in task.pieces.items()}
        return sum(pieces.values()) + sum(task.bytes_streamed for task in self.tasks)

    def to_json(self, *, paths: bool = False) -> str:
        """Counts, tasks and estimate as JSON text, absolute paths shortened unless `paths`."""
        short = str if paths else shareable((*named_paths(self.source), *self._given))
        tasks = [
            {"name": task.name, "pairs": sum(len(group.members) for group in task.pairs),
             "head_groups": len(task.heads), "flops": task.flops, "bytes_read": task.bytes_read,
             "bytes_working": task.bytes_working,
             "work": [[*key, amount] for key, amount in task.work.amounts.items()]}
            for task in self.tasks
        ]  # fmt: skip
        document = {
            "source": readable(short(self.source)),
            "family": short(self.graph.family),
            "parameters": self.parameters,
            "coverage": self.coverage.model_dump(mode="json"),
            "flops": sum(task.flops for task in self.tasks),
            "bytes_read": self.bytes_read,
            "estimate": None if self.estimate is None else asdict(self.estimate),
            "estimate_full": None if self.estimate_full is None else asdict(self.estimate_full),
            "tasks": tasks,
            "notes": [short(note) for note in self.notes],
            "unmapped": list(self.graph.unmapped),
        }
        return json.dumps(document, indent=1)

    def __repr__(self) -> str:
        from flagscope.report.wording import counted, size

        c = self.coverage
        pairs = sum(len(group.members) for group in self.graph.pairs)
        return (
            f"Inspection({shared_name(self.source, self._given)!r}, family={self.graph.family!r}, "
            f"{size(self.parameters)} parameters, {counted(pairs, 'pair')}, "
            f"{counted(len(self.graph.heads), 'head group')}; a scan would measure "
            f"{c.measured:,} of {counted(c.matrices, 'matrix', 'matrices')} in "
            f"{counted(len(self.tasks), 'task')})"
        )

    def _repr_html_(self) -> str:
        from flagscope.report import render_inspection

        kinds: dict[str, int] = {}
        for group in self.graph.pairs:
            kinds[group.kind] = kinds.get(group.kind, 0) + len(group.members)
        short = shareable((*named_paths(self.source), *self._given))
        return render_inspection(
            self.coverage, source=readable(short(self.source)), family=short(self.graph.family),
            pairs=kinds, head_groups=len(self.graph.heads),
            flops=sum(task.flops for task in self.tasks), bytes_read=self.bytes_read,
            seconds=None if self.estimate is None else self.estimate.seconds,
            notes=[short(note) for note in self.notes],
        )  # fmt: skip


def inspect(
    source: Source,
    *,
    config: Config | None = None,
    revision: str | None = None,
    base: str | os.PathLike[str] | None = None,
    tensors: str | None = None,
    family: str | None = None,
    heads: int | None = None,
    example_inputs: Any = None,
    only: Part | Iterable[Part] = PARTS,
    layers: int | Iterable[int] | None = None,
    kinds: PairKind | Iterable[PairKind] | None = None,
    window: int = 1,
    edges: int = 200,
    depth: Depth = "auto",
    precision: Precision = "mixed",
    workers: int | None = None,
    memory: int = TASK_MEMORY,
    estimate: bool = False,
) -> Inspection:
    """What a scan would find to measure, from the header alone; reads no tensor.

    Parameters, errors and references as for `scan`, and `estimate`: whether to estimate time and
    memory of the scan in threads of this process. Products and eigenproblems are timed for that,
    for some two seconds and once in a process, and the disk by at most 64 MiB of the largest file.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> [task.name for task in inspect(net).tasks]
    ['0-2', 'health']
    """
    check_run(workers, memory)
    settings = checked_settings(
        only=parts_of(only), layers=all_of(layers), kinds=all_of(kinds), family=family,
        heads=heads, window=window, edges=edges,
        depth=depth, precision=precision,
    )  # fmt: skip
    with opened(
        source, config=config, revision=revision, base=base, tensors=tensors, fetch=False
    ) as checkpoint:
        checkpoint, graph = mapped(checkpoint, settings, source, example_inputs)
        sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
        weights = weights_of(checkpoint, read=False)

        def planned(settings: Settings) -> list[Task]:
            tasks = plan(graph, settings, sizes)
            return [*tasks, *health_tasks(checkpoint, graph, settings, tasks, weights)]

        tasks = tuple(planned(settings))
        makes = partial(estimated, tensors=checkpoint.tensors, workers=workers, memory=memory)
        sharp = any(is_sharp(pair, depth) for task in tasks for pair in task.pairs)
        full = planned(settings.model_copy(update={"depth": "full"})) if sharp else None
        return Inspection(
            source=checkpoint.source,
            parameters=weights.parameters,
            coverage=coverage_of(checkpoint, graph, tasks, weights),
            graph=graph,
            tasks=tasks,
            notes=(*checkpoint.notes, *graph.notes),
            estimate=makes(tasks) if estimate else None,
            estimate_full=makes(full) if estimate and full is not None else None,
            _given=named_paths(source, base, config, family),
        )
