"""Overlaps of all pairs of heads in one space of the stream, in bounded memory.

Orthonormal bases of all heads are held in float32 if they fit. If they do not, two blocks of their
coordinates are held at a time, and the checkpoint is read again for each block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Graph, HeadGroup, Norm
from flagscope.checkpoint import Checkpoint
from flagscope.diagnose import HeadEntry, SpaceOverlaps, adjusted_pairs, space_overlaps
from flagscope.engine.cache.norms import fold_before
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.unplaced import reason_of
from flagscope.engine.scan import Progress
from flagscope.errors import InputError
from flagscope.geometry import (
    SLAB_BYTES,
    Form,
    Matrices,
    Whitening,
    cheaper_form,
    orthonormal_rows,
    overlaps_by_projectors,
    squared_overlaps,
    whitening,
)
from flagscope.records import HeadSpace, Precision, StreamBasis

# Bytes of the float64 copy of the heads that are orthonormalised together.
_CHUNK = 1 << 24
# float64 tables held at once, the statistics included, with one cell for each pair of heads.
_TABLES = 8
# Fewest coordinates of a block: with fewer, the checkpoint would be read hundreds of times.
_NARROWEST = 64
# Gains are folded into values of so few digits in float32, whose error is far below their noise.
_NARROW = ("bfloat16", "float16", "float8")


@dataclass(frozen=True)
class _Space:
    """The heads of all layers that are compared with each other."""

    stack: str
    attention: str | None
    space: HeadSpace
    d: int
    groups: tuple[HeadGroup, ...]
    basis: StreamBasis

    @property
    def count(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def rank(self) -> int:
        return max(group.map.outputs if group.space != "o" else group.map.inputs
                   for group in self.groups)  # fmt: skip

    @property
    def bytes_of_bases(self) -> int:
        return 4 * self.count * self.rank * self.d


class _Layers:
    """Reads heads a layer at a time: in float64, or in float32 where they are stored narrower."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, fold: bool) -> None:
        self._checkpoint, self.device, self.fold = checkpoint, device, fold
        self._progress: Progress | None = None
        self._done = self._in_all = 0

    def report_to(self, progress: Progress | None, in_all: int) -> None:
        """Say from now on how many groups of heads are read, of how many."""
        self._progress, self._in_all = progress, in_all

    def read(self, group: HeadGroup) -> None:
        """A group of heads is read for the first time."""
        self._done += 1
        if self._progress is not None:
            name = f"layer {group.layer}, {group.space} of the {group.stack}"
            self._progress(self._done, self._in_all, name)

    def precision(self, group: HeadGroup) -> Precision:
        stored = self._checkpoint.tensors[group.map.tensor].dtype
        return "float32" if stored.startswith(_NARROW) else "float64"

    def reader(self, group: HeadGroup) -> TaskReader:
        return TaskReader(
            TensorCache(self._checkpoint, []), device=self.device, precision=self.precision(group)
        )

    def chunks(self, group: HeadGroup, reader: TaskReader) -> Iterator[tuple[int, Matrices]]:
        """Yield (first head, maps of shape (h, r, d)) for some heads of a layer at a time."""
        maps = reader.maps(group.map)
        if group.space == "o":
            maps = maps.transposed()
        else:
            maps = fold_before(maps, _folded(group, self.fold), reader)
        heads = max(1, _CHUNK // (8 * maps.values[0].numel()))
        for start in range(0, group.count, heads):
            some = slice(start, start + heads)
            yield start, Matrices(maps.values[some], maps.delta[some], maps.mean_square[some])

    def bytes_at_once(self, groups: Sequence[HeadGroup]) -> int:
        """Memory of the largest layer: stored, widened and copied tensors, and work on a chunk."""
        stored: defaultdict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        for group in groups:
            name = group.map.tensor
            size = self._checkpoint.tensors[name].nbytes
            stored[group.stack, group.layer][name] = size
        wide = max(2 * 8 * group.count * group.map.outputs * group.map.inputs for group in groups)
        return max(sum(sizes.values()) for sizes in stored.values()) + wide + 4 * _CHUNK


def all_head_overlaps(
    checkpoint: Checkpoint,
    graph: Graph,
    *,
    spaces: Sequence[HeadSpace],
    fold: bool,
    memory: float,
    device: torch.device,
    top: int,
    progress: Progress | None = None,
) -> tuple[SpaceOverlaps, ...]:
    """Overlaps of all heads of a model, for each stack, kind of attention and space.

    Parameters
    ----------
    checkpoint, graph
        The weights, and the graph of their maps.
    spaces
        Which of q, k, v and o to compare.
    fold
        Fold the gain of a pre-norm into the maps that read through it.
    memory
        Bytes to hold at once, on the device if it has its own memory.
    device
        Where to compute.
    top
        Number of head pairs to list in each space.
    progress
        Called with (layers done, layers in all, name of the layer), each space counted.

    Raises
    ------
    InputError
        If the memory is too small for one layer and the tables; the message says how much it takes.
    """
    layers = _Layers(checkpoint, device, fold)
    wanted = [space for space in _spaces(graph, fold) if space.space in spaces]
    layers.report_to(progress, sum(len(space.groups) for space in wanted))
    fixed = max((_fixed(space, layers) for space in wanted), default=0)
    if sum(space.bytes_of_bases for space in wanted) + fixed <= memory:
        return adjusted_pairs([*_held(wanted, layers, top)])
    # One space at a time: a tensor that holds several spaces is read again for each.
    overlaps = []
    for space in wanted:
        if space.bytes_of_bases + _fixed(space, layers) <= memory:
            overlaps += _held([space], layers, top)
        else:
            overlaps.append(_streamed(space, layers, memory, top))
    return adjusted_pairs(overlaps)


def unplaced_matrices(checkpoint: Checkpoint, graph: Graph) -> int:
    """Number of matrices that could not be placed, though not every model has such."""
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    return sum(not reason_of(name, shapes[name]).expected for name in graph.unmapped)


def _spaces(graph: Graph, fold: bool) -> list[_Space]:
    groups: defaultdict[tuple[str, str | None, HeadSpace, int], list[HeadGroup]] = defaultdict(list)
    for group in graph.heads:
        norm = _folded(group, fold)
        # After a LayerNorm, heads read one dimension fewer.
        d = group.d - (norm is not None and norm.kind == "layernorm")
        groups[group.stack, group.attention, group.space, d].append(group)
    return [
        _Space(*key, tuple(sorted(some, key=lambda group: group.layer)), _basis(graph, *key[:3]))
        for key, some in groups.items()
    ]


def _basis(graph: Graph, stack: str, attention: str | None, space: HeadSpace) -> StreamBasis:
    """Whether heads of different layers meet in one basis, by the norms of the stream."""
    if attention == "cross" and space in ("k", "v"):
        return "shared"  # all layers read the same output of another stack
    placements = {g.norm.placement for g in graph.heads if g.stack == stack and g.norm is not None}
    if "post" in placements:
        return "post-norm"
    if any(stream.stack == stack for stream in graph.streams) or placements == {"pre"}:
        return "shared"
    return "unknown"


def _folded(group: HeadGroup, fold: bool) -> Norm | None:
    """The norm to fold into the maps of a group, if any."""
    norm = group.norm
    return norm if fold and norm is not None and norm.placement == "pre" else None


def _fixed(space: _Space, layers: _Layers) -> int:
    """Bytes held in addition to the bases."""
    return layers.bytes_at_once(space.groups) + 8 * _TABLES * space.count**2 + 3 * SLAB_BYTES


def _held(batch: Sequence[_Space], layers: _Layers, top: int) -> Iterator[SpaceOverlaps]:
    """Overlaps from bases that are all in memory; each tensor is read once."""
    bases = [torch.zeros(s.count, s.rank, s.d, device=layers.device) for s in batch]
    entries: list[list[HeadEntry]] = [[] for _ in batch]
    for i, group, reader in _by_layer(batch, layers):
        entries[i] += _filled(bases[i][len(entries[i]) :], group, layers, reader)
    for i, space in enumerate(batch):
        basis, bases[i] = bases[i], torch.empty(0)
        form = cheaper_form(*basis.shape)
        yield _result(space, entries[i], squared_overlaps(basis, form=form), form, top)


def _filled(
    bases: Tensor, group: HeadGroup, layers: _Layers, reader: TaskReader
) -> list[HeadEntry]:
    """Write the bases of one layer's heads to the first rows, and return their entries."""
    entries = []
    for start, maps in layers.chunks(group, reader):
        white = whitening(maps)
        count, rank = maps.values.shape[:2]
        bases[start : start + count, :rank] = orthonormal_rows(maps, white)
        entries += _entries(group, start, white)
    layers.read(group)
    return entries


def _by_layer(
    batch: Sequence[_Space], layers: _Layers
) -> Iterator[tuple[int, HeadGroup, TaskReader]]:
    """Yield (index of the space, group, reader) by layer, with one reader for each layer."""
    order = [
        (group.stack, group.layer, i, group) for i, s in enumerate(batch) for group in s.groups
    ]
    reader, where = None, None
    for stack, layer, i, group in sorted(order, key=lambda entry: entry[:3]):
        here = stack, layer, layers.precision(group)
        if reader is None or where != here:
            reader, where = None, here  # release the tensors of the previous layer first
            reader = layers.reader(group)
        yield i, group, reader


def _streamed(space: _Space, layers: _Layers, memory: float, top: int) -> SpaceOverlaps:
    """Overlaps from two blocks of coordinates at a time: one pass over the checkpoint per block."""
    factors = 8 * space.count * space.rank**2
    fixed = _fixed(space, layers) + factors
    cell = 2 * 4 * space.count * space.rank
    width = min(space.d, int((memory - fixed) // cell))
    narrowest = min(space.d, _NARROWEST)
    if width < narrowest:
        raise InputError(
            f"memory is {memory / 1e6:,.0f} MB; {space.count} heads of {space.rank} in "
            f"{space.d} dimensions need {(fixed + narrowest * cell) / 1e6:,.0f} MB at least",
            hint="give more, or leave spaces out",
        )
    # Blocks of equal size: no last block holds only a few coordinates.
    width = -(-space.d // -(-space.d // width))
    whites: list[dict[int, Whitening]] = []
    entries: list[HeadEntry] = []
    for group in space.groups:
        chunks = layers.chunks(group, layers.reader(group))
        known = {start: whitening(maps) for start, maps in chunks}
        whites.append(known)
        layers.read(group)
        entries += [e for start, white in known.items() for e in _entries(group, start, white)]

    def rows(start: int, stop: int) -> Float[Tensor, "H r s"]:
        block = torch.zeros(space.count, space.rank, stop - start, device=layers.device)
        before = 0
        for group, known in zip(space.groups, whites, strict=True):
            for first, maps in layers.chunks(group, layers.reader(group)):
                values = known[first].rows(maps.values, start, stop)
                into = block[before + first : before + first + len(values)]
                into[:, : values.shape[1]] = values
            before += group.count
        return block

    total = overlaps_by_projectors(
        rows, count=space.count, d=space.d, width=width, device=layers.device
    )
    return _result(space, entries, total, "projectors", top)


def _entries(group: HeadGroup, first: int, white: Whitening) -> list[HeadEntry]:
    across = "cross." if group.attention == "cross" else ""
    return [
        HeadEntry(f"L{group.layer}H{h}.{across}{group.space}", group.layer, h, rank, status)
        for h, (rank, status) in enumerate(
            zip(white.ranks.tolist(), white.statuses, strict=True), start=first
        )
    ]


def _result(
    space: _Space, entries: Sequence[HeadEntry], total: Tensor, form: Form, top: int
) -> SpaceOverlaps:
    return space_overlaps(
        entries, total.cpu().numpy(), stack=space.stack, attention=space.attention,
        space=space.space, d=space.d, form=form, top=top, basis=space.basis,
    )  # fmt: skip
