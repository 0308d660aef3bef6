"""What two checkpoints have in common: pairs, their classes, layers, mixtures, the relation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

from flagscope.checkpoint import Checkpoint
from flagscope.comparison.content.differences import EntrySums
from flagscope.comparison.content.layers import layer_maps, moved_pairs
from flagscope.comparison.content.mixture import mixtures
from flagscope.comparison.content.pairing import Pair, Pairing, paired_tensors
from flagscope.comparison.content.parts import model_part
from flagscope.comparison.content.relation import relation_of
from flagscope.comparison.content.tensors import (
    Compared,
    compared_pair,
    entry_count,
    scale_rules,
    with_shown_casts,
)
from flagscope.comparison.in_order import in_order
from flagscope.engine import Progress, return_freed_memory
from flagscope.errors import InputError
from flagscope.records.comparison.content import ContentRecord
from flagscope.records.comparison.content_parts import (
    ClassCount,
    ContentClass,
    ModelPart,
    PartContent,
    Unpaired,
)
from flagscope.records.comparison.content_words import worded

_NAMED = 20
# Bytes that reading an entry of both sides takes.
_BYTES = 8
_MOST_PARENTS = 8


def compared_content(
    a: Checkpoint,
    b: Checkpoint,
    *,
    parents: Sequence[Checkpoint] = (),
    workers: int = 1,
    progress: Progress | None = None,
) -> ContentRecord:
    """What two checkpoints have in common, tensor by tensor.

    Parameters
    ----------
    a, b
        Two open checkpoints. They may be sharded, remote, quantised.
    parents
        Up to 8 checkpoints that one of the two may have been merged of.
    workers
        Threads that compare pairs of tensors; the record does not depend on it.
    progress
        Called with (pairs compared, pairs in all, name of the tensor). Layers that turn out to lie
        elsewhere are compared after that.

    Returns
    -------
    ContentRecord
        `mirrored()` of it is what the two in the other order give, up to the arithmetic of sums.

    Raises
    ------
    InputError
        If an argument is out of its range.
    FlagscopeError
        If a checkpoint cannot be read at all; a tensor that cannot be has a status.

    Notes
    -----
    Reads each tensor that differs twice, and three times if it has scales; a tensor of each side
    is in memory at a time and worker, blocks of 64 MiB of large ones.

    Examples
    --------
    >>> import torch
    >>> from flagscope.checkpoint import from_state_dict
    >>> weights = {"fc.weight": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))}
    >>> short = {name: tensor.bfloat16() for name, tensor in weights.items()}
    >>> compared_content(from_state_dict(weights), from_state_dict(short)).relation
    'reencoded'
    """
    if len(parents) > _MOST_PARENTS or workers < 1:
        raise InputError(
            f"{len(parents)} parents and {workers} workers were given.",
            hint=f"give at most {_MOST_PARENTS} parents, and at least one worker.",
        )
    pairing = paired_tensors(a, b)
    done = _all_compared(pairing.pairs, a, b, workers, progress)
    maps = layer_maps(pairing, a, b, with_shown_casts(done))
    moved, dropped = moved_pairs(pairing, maps, a, b)
    if moved or dropped:
        kept = [entry for entry in done if entry.pair not in dropped]
        done = [*kept, *_all_compared(moved, a, b, workers, None)]
        pairing = _with_pairs(pairing, tuple(entry.pair for entry in done))
    done = with_shown_casts(done)
    of_a, of_b = mixtures(pairing, a, b, parents) if parents else (None, None)
    records = tuple(entry.record for entry in done)
    record = ContentRecord(
        relation="unclear", evidence=(), cannot_tell=(), counts=_counts(done),
        tensors=records, parts=_parts(done), layers=maps, parents=len(parents), notes=pairing.notes,
        unpaired_a=_unpaired(a, pairing.only_a), unpaired_b=_unpaired(b, pairing.only_b),
        mixture_a=of_a, mixture_b=of_b,
    )  # fmt: skip
    return worded(record.model_copy(update={"relation": relation_of(record)}))


def _all_compared(
    pairs: Sequence[Pair], a: Checkpoint, b: Checkpoint, workers: int, progress: Progress | None
) -> list[Compared]:
    scales = scale_rules(tuple(pairs), a, b)

    def compared(pair: Pair) -> Compared:
        entry = compared_pair(pair, a, b, scales.get(pair, {}))
        return_freed_memory(_BYTES * entry_count(pair.a.shape))
        return entry

    work = [(pair.a.name, partial(compared, pair)) for pair in pairs]
    return list(in_order(work, workers=workers, progress=progress))


def _with_pairs(pairing: Pairing, pairs: tuple[Pair, ...]) -> Pairing:
    """The pairing with other pairs, and what is left without a counterpart."""
    used_a, used_b = {pair.a.name for pair in pairs}, {pair.b.name for pair in pairs}
    all_a = [*(pair.a.name for pair in pairing.pairs), *pairing.only_a]
    all_b = [*(pair.b.name for pair in pairing.pairs), *pairing.only_b]
    return replace(
        pairing,
        pairs=pairs,
        only_a=tuple(name for name in dict.fromkeys(all_a) if name not in used_a),
        only_b=tuple(name for name in dict.fromkeys(all_b) if name not in used_b),
    )


def _counts(done: Sequence[Compared]) -> tuple[ClassCount, ...]:
    tensors: dict[str, int] = defaultdict(int)
    parameters: dict[str, int] = defaultdict(int)
    for entry in done:
        content, difference = entry.record.content, entry.record.difference
        tensors[content] += 1
        parameters[content] += (
            difference.entries if difference else entry_count(entry.record.shape_a)
        )
    kinds: tuple[ContentClass, ...] = get_args(ContentClass)
    return tuple(
        ClassCount(content=kind, tensors=tensors[kind], parameters=parameters[kind])
        for kind in kinds
    )


def _unpaired(checkpoint: Checkpoint, names: Sequence[str]) -> Unpaired:
    return Unpaired(
        tensors=len(names),
        parameters=sum(entry_count(checkpoint.tensors[name].shape) for name in names),
        buffers=sum(model_part(checkpoint.tensors[name], None) == "buffer" for name in names),
        names=tuple(names[:_NAMED]),
    )


def _parts(done: Sequence[Compared]) -> tuple[PartContent, ...]:
    """Sums over the tensors of each part of the model; blocks layer by layer."""
    groups: dict[tuple[ModelPart, int | None, int | None], list[Compared]] = defaultdict(list)
    for entry in done:
        part, record = entry.record.part, entry.record
        in_block = part == "block"
        key = (part, record.layer_a, record.layer_b) if in_block else (part, None, None)
        groups[key].append(entry)
    return tuple(_part(*key, groups[key]) for key in groups)


def _part(
    part: ModelPart, layer: int | None, layer_b: int | None, done: Sequence[Compared]
) -> PartContent:
    total = EntrySums()
    differences = [entry.record.difference for entry in done if entry.record.difference]
    equal = sum(difference.equal for difference in differences)
    entries = sum(difference.entries for difference in differences)
    measured = [entry.sums for entry in done if entry.sums is not None]
    for sums in measured:
        total.aa += sums.aa
        total.bb += sums.bb
        total.ab += sums.ab
        total.dd += sums.dd
        total.entries += sums.entries
    difference = total.record(transposed=False) if measured else None
    return PartContent(
        part=part, layer_a=layer, layer_b=layer_b, tensors=len(done), parameters=entries,
        equal=equal / entries if entries else None, measured=len(measured),
        relative_a=difference.relative_a if difference else None,
        relative_b=difference.relative_b if difference else None,
        cosine=difference.cosine if difference else None,
    )  # fmt: skip
