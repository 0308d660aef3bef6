"""Runs one task: reads its tensors, diagnoses its pairs and heads, returns records."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flagscope.arch import HeadGroup, Member, PairGroup
from flagscope.diagnose import Folding, SharpMap, head_record, pair_records, sharp_records
from flagscope.engine.cache.norms import fold_before, fold_behind
from flagscope.engine.cache.stored_tensor import StoredTensor
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.device import resolved_device
from flagscope.engine.health.look_at import tensor_health
from flagscope.engine.health.tensor_health import TensorHealth
from flagscope.engine.plan.depth import is_sharp, pair_size
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.foldings import folded_norms, folding, is_layernorm
from flagscope.engine.run.head_scales import HeadScales, folded_norm, head_maps
from flagscope.engine.run.outcome import TaskResult
from flagscope.engine.run.side_by_side import side_by_side
from flagscope.engine.run.stream_links import stream_links
from flagscope.engine.run.stream_pairs import stream_pairs
from flagscope.engine.settings import Settings
from flagscope.errors import FlagscopeError
from flagscope.geometry import RankRule, Remembered
from flagscope.records import HeadRecord, PairRecord
from flagscope.shortening import shortened


def execute(task: Task, tensors: TensorCache, settings: Settings) -> TaskResult:
    """Read the tensors of a task and diagnose its pairs and heads.

    Parameters
    ----------
    task, settings
        The task to run, and the settings of the scan.
    tensors
        Cache through which tensors are read, and kept for later tasks.

    Raises
    ------
    SourceError
        If a tensor cannot be read.
    """
    reader = TaskReader(
        tensors, device=resolved_device(settings.device), precision=settings.precision
    )
    rule = RankRule.parse(settings.rank)
    along = [group for group in task.pairs if group.kind == "residual"]
    inside = [group for group in task.pairs if group.kind != "residual"]
    pairs = _inside(inside, reader, settings, rule)
    pairs += stream_pairs(along, reader, settings, rule)
    scales = HeadScales(task.heads, reader, settings)
    heads = side_by_side([partial(_heads, group, reader, settings, scales) for group in task.heads])
    edges, tested, lost = stream_links(task.links, reader, settings)
    health, unread = _looks(task, tensors)
    return TaskResult(pairs, heads, edges, tested, sorted(reader.not_finite), lost, health, unread)


def _looks(task: Task, tensors: TensorCache) -> tuple[list[TensorHealth], list[tuple[str, str]]]:
    """What the tensors show; one that cannot be read does not keep the others from it."""
    health: list[TensorHealth] = []
    unread: list[tuple[str, str]] = []
    for look in task.looks:
        # Gains of norms are read by other tasks too, which do not plan for anything so small.
        kept = look.shared if look.kind != "vector" else frozenset(look.blocks)

        def read(piece: Piece, kept: frozenset[Piece] = kept) -> StoredTensor:
            return tensors.get(piece) if piece in kept else tensors.once(piece)

        try:
            health.append(tensor_health(look, read))
        except (FlagscopeError, OSError) as error:
            unread.append((look.tensor, shortened(str(error))))
    return health, unread


def _inside(
    groups: list[PairGroup], reader: TaskReader, settings: Settings, rule: RankRule
) -> list[PairRecord]:
    """Records of the pairs inside blocks, in the order of the groups.

    If consecutive groups share their read maps, as the two writers of a gated MLP do, the maps are
    read and decomposed once.
    """
    records: list[PairRecord] = []
    remembered, last, read = Remembered(), None, None
    prepared: dict[int, SharpMap] = {}
    for group in groups:
        sides = group.write, group.read
        suited = reader.for_size(pair_size(group), (side.map for side in sides))
        before, behind = folded_norms(group, settings)
        key = group.read.map.place, group.read.transposed, before, suited.dtype
        if read is None or key != last:
            # Release the previous read maps first.
            remembered, last, read = Remembered(), key, None
            prepared = {}
            read = fold_before(suited.side(group.read, "read"), before, suited)
        centred = is_layernorm(before)
        write = fold_behind(suited.side(group.write, "write"), behind, suited, centred=centred)
        writers, readers = (
            [m.write_index for m in group.members],
            [m.read_index for m in group.members],
        )
        plain = None
        if centred:
            plain = (
                fold_behind(suited.side(group.write, "write"), behind, suited).take(writers),
                fold_before(suited.side(group.read, "read"), before, suited, centred=False).take(
                    readers
                ),
            )
        folded = [norm.name for norm in (behind, before) if norm is not None]
        measure = (
            partial(sharp_records, readers=prepared, foldings=_foldings(group, suited, settings))
            if is_sharp(group, settings.depth)
            else partial(pair_records, remembered=remembered)
        )
        records += measure(
            group,
            write.take(writers),
            read.take(readers),
            rule=rule,
            seed=settings.seed,
            folded=folded,
            plain=plain,
        )
        del write, plain
    return records


def _foldings(
    group: PairGroup, reader: TaskReader, settings: Settings
) -> tuple[Callable[[Member], Folding | None], Callable[[Member], Folding | None]]:
    """Give how a member's write and read map come about from bare ones."""
    return (
        lambda member: folding(group, "write", member.write_index, reader, settings),
        lambda member: folding(group, "read", member.read_index, reader, settings),
    )


def _heads(
    group: HeadGroup, reader: TaskReader, settings: Settings, scales: HeadScales
) -> HeadRecord:
    norm = folded_norm(group, settings)
    return head_record(
        group,
        head_maps(group, reader, settings),
        folded=[] if norm is None else [norm.name],
        divided=partial(scales.divided, group),
        spaces_of=partial(scales.spaces, group),
    )
