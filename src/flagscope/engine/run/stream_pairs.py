"""The residual pairs that a task measures: writers and readers of one residual stream.

A map of the stream is in many pairs. It is decomposed on first use and dropped after the last,
which may be in another task: the output of an attention block is paired with the MLP of the same
block in one task and with the next block in another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

from flagscope.arch import Norm, PairGroup, Side
from flagscope.diagnose import SharpMap, residual_record, sharp_map, sharp_residual_record
from flagscope.engine.cache.counted_cache import CountedCache
from flagscope.engine.cache.norms import fold_before, fold_behind
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.plan.depth import is_sharp
from flagscope.engine.run.foldings import bare_keys, folded_norms, folding, is_layernorm
from flagscope.engine.settings import Settings
from flagscope.geometry import Matrices, PreparedMap, RankRule, prepared_map
from flagscope.records import PairRecord

T = TypeVar("T")


def stream_pairs(
    groups: Sequence[PairGroup], reader: TaskReader, settings: Settings, rule: RankRule
) -> list[PairRecord]:
    """Records of residual pairs, in the order of the groups."""
    sides = [side for group in groups for side in _sides(group, settings)]
    shared = CountedCache([key for key, *_ in sides])
    if groups:
        maps = (side.map for group in groups for side in (group.write, group.read))
        reader = reader.for_size(min(group.d for group in groups), maps)
    records = []
    for group in groups:
        folded = _folded(group, settings)
        if is_sharp(group, settings.depth):
            maps = _both(group, settings, shared, partial(_sharp, group, reader, rule, settings))
            records.append(sharp_residual_record(group, *maps, seed=settings.seed, folded=folded))
            continue
        write, read = _both(group, settings, shared, partial(_prepared, reader, rule))
        records.append(
            residual_record(group, write, read, rule=rule, seed=settings.seed, folded=folded)
        )
    return records


def _both(
    group: PairGroup,
    settings: Settings,
    shared: CountedCache,
    prepare: Callable[[Hashable, Sequence[_Make], bool], T],
) -> tuple[T, T]:
    """What is known of the writer and of the reader of a pair, made on the first use."""
    write, read = (
        shared.get(key, partial(prepare, key, makes, which))
        for (key, *makes), which in zip(_sides(group, settings), (False, True), strict=True)
    )
    return write, read


def _sharp(
    group: PairGroup,
    reader: TaskReader,
    rule: RankRule,
    settings: Settings,
    key: Hashable,
    makes: Sequence[_Make],
    read: bool,
) -> SharpMap:
    again, plain = (partial(make, reader) for make in makes)
    if makes[0] is makes[1]:
        plain = None
    (member,), view = group.members, "read" if read else "write"
    index = member.read_index if read else member.write_index
    return reader.shared_value(
        key,
        lambda: sharp_map(
            again, read=read, rule=rule, seed=settings.seed, plain=plain,
            folding=lambda: folding(group, view, index, reader, settings),
        ),
        lambda made: made.nbytes,
    )  # fmt: skip


def _prepared(
    reader: TaskReader, rule: RankRule, key: Hashable, makes: Sequence[_Make], read: bool
) -> PreparedMap:
    again, plain = (partial(make, reader) for make in makes)
    if makes[0] is makes[1]:
        plain = None
    return reader.shared_value(
        key, lambda: prepared_map(again, read=read, rule=rule, plain=plain), _bytes
    )


def _bytes(map_: PreparedMap) -> int:
    if map_.system is None:
        return 0
    # The second eigensystem, without the scale profile, is computed if a test needs it.
    return 2 * (map_.system.values.nbytes + map_.system.vectors.nbytes)


def shared_keys(groups: Sequence[PairGroup], settings: Settings) -> set[Hashable]:
    """Keys of the values that a task with these pairs may share with others."""
    prepared = (
        key for group in groups if group.kind == "residual" for key, *_ in _sides(group, settings)
    )
    return {*prepared, *bare_keys(groups, settings)}


_Make = Callable[[TaskReader], Matrices]


def _sides(group: PairGroup, settings: Settings) -> list[tuple[Hashable, _Make, _Make]]:
    """A key and two ways to read each side of a pair, with its norms folded in: with the mean
    removed where a LayerNorm does that, and with the mean left in."""
    before, behind = folded_norms(group, settings)
    centred = is_layernorm(before)
    member = group.members[0]

    def write(reader: TaskReader, *, mean: bool = False) -> Matrices:
        maps = reader.side(group.write, "write").take([member.write_index])
        return fold_behind(maps, behind, reader, centred=centred and not mean)

    def read(reader: TaskReader, *, mean: bool = False) -> Matrices:
        maps = reader.side(group.read, "read").take([member.read_index])
        return fold_before(maps, before, reader, centred=centred and not mean)

    sharp = is_sharp(group, settings.depth)
    return [
        (
            ("write", sharp, _key(group.write, member.write_index), _name(behind), centred),
            write, partial(write, mean=True) if centred else write,
        ),
        (
            ("read", sharp, _key(group.read, member.read_index), _name(before)),
            read, partial(read, mean=True) if centred else read,
        ),
    ]  # fmt: skip


def _folded(group: PairGroup, settings: Settings) -> list[str]:
    before, behind = folded_norms(group, settings)
    return [norm.name for norm in (behind, before) if norm is not None]


def _key(side: Side, index: int) -> Hashable:
    return side.map.place, side.transposed, index


def _name(norm: Norm | None) -> str | None:
    return None if norm is None else norm.name
