"""Carrying out one task: read its tensors, diagnose, return records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flagscope.arch import HeadGroup, PairGroup
from flagscope.checkpoint import Checkpoint
from flagscope.diagnose import HeadRecord, Matrices, PairRecord, head_record, pair_records
from flagscope.engine.folding import (
    centred_columns,
    centred_rows,
    scaled_columns,
    scaled_rows,
)
from flagscope.engine.plan import Task
from flagscope.engine.reading import TaskReader
from flagscope.engine.settings import Settings
from flagscope.geometry import RankRule


@dataclass(frozen=True)
class TaskResult:
    """The records of one task."""

    pairs: list[PairRecord]
    heads: list[HeadRecord]


def execute(task: Task, checkpoint: Checkpoint, settings: Settings) -> TaskResult:
    """Read the tensors of a task and diagnose its pairs and heads.

    Raises
    ------
    SourceError
        If a tensor cannot be read.
    """
    reader = TaskReader(
        checkpoint,
        device=resolved_device(settings.device),
        dtype=torch.float64 if settings.precision == "float64" else torch.float32,
    )
    rule = RankRule.parse(settings.rank)
    pairs = [r for group in task.pairs for r in _pairs(group, reader, settings, rule)]
    heads = [_heads(group, reader, settings) for group in task.heads]
    return TaskResult(pairs, heads)


def resolved_device(name: str) -> torch.device:
    """The device that 'auto' or a torch device name stands for."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _pairs(
    group: PairGroup, reader: TaskReader, settings: Settings, rule: RankRule
) -> list[PairRecord]:
    write = reader.side(group.write, "write")
    read = reader.side(group.read, "read")
    folded = []
    if settings.fold_norms != "none":
        norm = group.write_norm
        if norm is not None and norm.kind == "batchnorm":
            write = _scaled(scaled_rows, write, reader.batchnorm_scale(norm))
            folded.append(norm.name)
        norm = group.read_norm
        if norm is not None:
            read = _scaled(scaled_columns, read, reader.gain(norm))
            if norm.kind == "layernorm":
                write, read = centred_rows(write), centred_columns(read)
            folded.append(norm.name)
    return pair_records(
        group,
        write.take([m.write_index for m in group.members]),
        read.take([m.read_index for m in group.members]),
        rule=rule,
        seed=settings.seed,
        folded=folded,
    )


def _scaled(
    scale: Callable[[Matrices, Tensor], Matrices], maps: Matrices, factors: Tensor | None
) -> Matrices:
    return maps if factors is None else scale(maps, factors)


def _heads(group: HeadGroup, reader: TaskReader, settings: Settings) -> HeadRecord:
    maps = reader.maps(group.map)
    if group.space == "o":
        return head_record(group, Matrices(maps.values.mT, maps.delta, maps.mean_square))
    norm = group.norm
    folded = []
    if settings.fold_norms == "all" and norm is not None and norm.placement == "pre":
        maps = _scaled(scaled_columns, maps, reader.gain(norm))
        if norm.kind == "layernorm":
            maps = centred_columns(maps)
        folded.append(norm.name)
    return head_record(group, maps, folded=folded)
