"""Plans a health check: the tensors of a layer in one task, in the pieces that other tasks read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.base import TensorInfo
from flagscope.engine.plan.every_map import every_map
from flagscope.engine.plan.look import Look, LookKind
from flagscope.engine.plan.looked_at import looked_at, module_prefix
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.tasks import Task
from flagscope.engine.plan.unplaced import is_bias
from flagscope.engine.plan.weights import Weights
from flagscope.engine.plan.work import passes
from flagscope.engine.settings import Settings

# Bytes of a block that no other task reads, and of the tensors of one task.
_BLOCK, _TASK = 32_000_000, 128_000_000
# Checkpoints up to this size are looked at in one task.
_SMALL = 16_000_000
# Passes over float64 numbers that take the time of looking at as many entries (measured), and
# entries of the small blocks that a look works in (`engine.health.block_scan`).
_PASSES, _WORKING = 7.0, 2**18


def health_tasks(
    checkpoint: Checkpoint,
    graph: Graph,
    settings: Settings,
    tasks: Sequence[Task],
    weights: Weights,
) -> list[Task]:
    """The tasks of a health check; none where it is not asked for.

    Parameters
    ----------
    checkpoint, graph, settings, weights
        Of the scan.
    tasks
        Its other tasks, whose pieces are shared.
    """
    if "health" not in settings.only:
        return []
    names = looked_at(checkpoint, graph, settings, weights).names
    infos = [checkpoint.tensors[name] for name in names]
    pieces: dict[str, set[Piece]] = {}
    for task in tasks:
        for piece in task.pieces:
            pieces.setdefault(piece.tensor, set()).add(piece)
    stacks = _stacks(graph)
    looks = [
        _look(info, pieces.get(info.name, set()), stacked=info.name in stacks) for info in infos
    ]
    sizes = {info.name: info.nbytes for info in infos}
    small = sum(sizes.values()) <= _SMALL
    return [
        _task(name, some, sizes)
        for name, some in _groups(looks, sizes, key=_one if small else module_prefix)
    ]


def _one(_: str) -> str:
    return ""


def _groups(
    looks: Sequence[Look], sizes: Mapping[str, int], *, key: Callable[[str], str]
) -> Iterator[tuple[str, list[Look]]]:
    """Yield (name of a task, its looks): one module after the other, large ones in parts."""
    by_module: dict[str, list[Look]] = {}
    for look in looks:
        by_module.setdefault(key(look.tensor), []).append(look)
    for prefix, inside in by_module.items():
        taken = 0
        numbers = []
        for look in inside:
            taken += sizes[look.tensor]
            numbers.append((taken - 1) // _TASK)
        parts = groupby(zip(numbers, inside, strict=True), key=lambda entry: entry[0])
        for number, (_, part) in enumerate(parts):
            name = f"{prefix}health" + (f".{number}" if number else "")
            yield name, [look for _, look in part]


def _look(info: TensorInfo, shared: set[Piece], *, stacked: bool) -> Look:
    kind: LookKind = "matrix"
    if sum(n > 1 for n in info.shape) < 2 or is_bias(info.name):
        kind = "vector"
    elif stacked:
        kind = "stack"
    rows = info.shape[0] if info.shape else 1
    if kind == "vector":
        whole = Piece(info.name, 0, rows)
        return Look(info.name, info.shape, kind, (whole,), frozenset(shared & {whole}))
    step = max(1, _BLOCK * rows // max(1, info.nbytes))
    blocks: list[Piece] = []
    start = 0
    for piece in [*sorted(shared, key=lambda piece: (piece.start, -piece.stop)), None]:
        first = rows if piece is None else piece.start
        if first < start:
            continue  # overlaps an earlier one
        blocks += [Piece(info.name, a, min(first, a + step)) for a in range(start, first, step)]
        if piece is not None:
            blocks.append(piece)
            start = piece.stop
    return Look(info.name, info.shape, kind, tuple(blocks), frozenset(shared & {*blocks}))


def _task(name: str, looks: Sequence[Look], sizes: Mapping[str, int]) -> Task:
    pieces: dict[Piece, int] = {}
    streamed = 0
    for look in looks:
        rows = max(1, look.shape[0] if look.shape else 1)
        for block in look.blocks:
            size = sizes[look.tensor] * (block.stop - block.start) // rows
            if block in look.shared:
                pieces[block] = size
            else:
                streamed += size
    return Task(
        name=name,
        pairs=(),
        heads=(),
        looks=tuple(looks),
        work=passes(_PASSES * sum(look.entries for look in looks)),
        pieces=pieces,
        bytes_working=max(map(_working, looks), default=0) + min(streamed, _BLOCK),
        bytes_streamed=streamed,
    )


def _working(look: Look) -> int:
    """Bytes of a small block with what is computed of it, and of flags and hashes."""
    matrices, rows, columns, spatial = look.sizes
    return 24 * max(_WORKING, columns * spatial) + 24 * matrices * (rows + columns)


def _stacks(graph: Graph) -> set[str]:
    """Tensors whose first axis counts matrices, such as those of experts."""
    return {
        map_.tensor
        for map_ in every_map(graph)
        if len(map_.shape) > 2
        and set(map_.groups[0]) <= {*map_.batch_axes, *map_.select}
        and all(set(map_.groups[0]).isdisjoint(group) for group in map_.groups[1:])
        and not {*map_.out_axes, *map_.inp_axes} & set(map_.groups[0])
    }
