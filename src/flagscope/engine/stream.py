"""Carrying out what lies along a residual stream: residual pairs, and links between heads.

A map of the stream meets many others; its eigenproblem is solved on its first use and let go after
its last. That may be in another task: what the attention of a block writes meets the MLP of that
block in one and the next block in another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from flagscope.arch import LinearMap, LinkGroup, Norm, PairGroup, Side, StreamMap
from flagscope.diagnose import (
    HeadEnds,
    LinkName,
    Links,
    Matrices,
    PreparedMap,
    head_ends,
    head_links,
    prepared_map,
    residual_record,
)
from flagscope.diagnose.matrices import power_of_two
from flagscope.engine.link_scales import LinkScales
from flagscope.engine.norms import fold_before, fold_behind
from flagscope.engine.reading import TaskReader
from flagscope.engine.settings import Settings
from flagscope.geometry import RankRule
from flagscope.records import EdgeRecord, PairRecord

T = TypeVar("T")


class _Shared:
    """Values made on their first use and dropped after their last."""

    def __init__(self, keys: Sequence[Hashable]) -> None:
        self._uses = Counter(keys)
        self._made: dict[Hashable, object] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        value = self._made[key] if key in self._made else self._made.setdefault(key, make())
        self._uses[key] -= 1
        if self._uses[key] <= 0:
            del self._made[key]
        return value  # pyright: ignore[reportReturnType] (one key, one type)


def stream_pairs(
    groups: Sequence[PairGroup], reader: TaskReader, settings: Settings, rule: RankRule
) -> list[PairRecord]:
    """The records of residual pairs, in the order of the groups."""
    sides = [side for group in groups for side in _sides(group, settings)]
    shared = _Shared([key for key, *_ in sides])
    if groups:
        maps = (side.map for group in groups for side in (group.write, group.read))
        reader = reader.for_size(min(group.d for group in groups), maps)
    records = []
    for group in groups:
        write, read = (
            shared.get(key, partial(_prepared, key, makes, reader, which, rule))
            for (key, *makes), which in zip(_sides(group, settings), (False, True), strict=True)
        )
        folded = _folded(group, settings)
        records.append(
            residual_record(group, write, read, rule=rule, seed=settings.seed, folded=folded)
        )
    return records


def _prepared(
    key: Hashable, makes: Sequence[_Make], reader: TaskReader, read: bool, rule: RankRule
) -> PreparedMap:
    again, plain = (partial(make, reader) for make in makes)
    if makes[0] is makes[1]:
        plain = None
    return reader.made(key, lambda: prepared_map(again, read=read, rule=rule, plain=plain), _bytes)


def _bytes(one: PreparedMap) -> int:
    if one.system is None:
        return 0
    # The second eigensystem, without the scale profile, comes where a test asks for it.
    return 2 * (one.system.values.nbytes + one.system.vectors.nbytes)


def in_common(groups: Sequence[PairGroup], settings: Settings) -> set[Hashable]:
    """What a task with these pairs may have in common with others: prepared maps, by name."""
    return {
        key for group in groups if group.kind == "residual" for key, *_ in _sides(group, settings)
    }


_Make = Callable[[TaskReader], Matrices]


def _sides(group: PairGroup, settings: Settings) -> list[tuple[Hashable, _Make, _Make]]:
    """A key and two ways to read each side of a pair, its norms folded in: with the mean removed
    where a LayerNorm does that, and without."""
    before, behind = _norms(group, settings)
    centred = before is not None and before.kind == "layernorm"
    member = group.members[0]

    def write(reader: TaskReader, *, mean: bool = False) -> Matrices:
        maps = reader.side(group.write, "write").take([member.write_index])
        return fold_behind(maps, behind, reader, centred=centred and not mean)

    def read(reader: TaskReader, *, mean: bool = False) -> Matrices:
        maps = reader.side(group.read, "read").take([member.read_index])
        return fold_before(maps, before, reader, centred=centred and not mean)

    return [
        (
            ("write", _key(group.write, member.write_index), _name(behind), centred),
            write, partial(write, mean=True) if centred else write,
        ),
        (
            ("read", _key(group.read, member.read_index), _name(before)),
            read, partial(read, mean=True) if centred else read,
        ),
    ]  # fmt: skip


def _norms(group: PairGroup, settings: Settings) -> tuple[Norm | None, Norm | None]:
    if settings.fold_norms == "none":
        return None, None
    return group.read_norm, group.write_norm


def _folded(group: PairGroup, settings: Settings) -> list[str]:
    before, behind = _norms(group, settings)
    return [norm.name for norm in (behind, before) if norm is not None]


def _key(side: Side, index: int) -> Hashable:
    return side.map.place, side.transposed, index


def _name(norm: Norm | None) -> str | None:
    return None if norm is None else norm.name


def stream_links(
    groups: Sequence[LinkGroup], reader: TaskReader, settings: Settings
) -> tuple[list[EdgeRecord], int, int]:
    """The links that stand out, at most `settings.edges`, how many were tested, and how many could
    not be as a head is not finite."""
    if groups:
        faces = [face for group in groups for face in (group.write, group.read)]
        maps = [one for face in faces for one in (face.heads, face.partner) if one is not None]
        reader = reader.for_size(min(_width(face) for face in faces), maps)
    fold = settings.fold_norms != "none"
    ends = [end for group in groups for end in _ends(group, settings)]
    shared = _Shared([key for key, _ in ends])
    candidates: list[tuple[float, int, int, Links, LinkGroup]] = []
    tested = lost = 0
    for group in groups:
        name = LinkName(
            stack=group.stack, layer_from=group.layer_from, layer_to=group.layer_to,
            space=group.read.role,  # pyright: ignore[reportArgumentType] (links read q, k or v)
            across=(".cross." in group.write.label, group.attention == "cross"),
        )  # fmt: skip
        write, read = (
            shared.get(key, partial(make, reader)) for key, make in _ends(group, settings)
        )
        links = head_links(name, write, read)
        candidates += [(*one, links, group) for one in links.furthest(settings.edges)]
        tested += links.tested
        lost += links.not_finite
    candidates.sort(key=lambda one: -one[0])
    scales = LinkScales(groups, lambda face: _end(face, reader, fold, False, bare=True))
    return (
        [
            links.record(
                i,
                j,
                divided=partial(scales.divided, links, group, i, j),
                flat=partial(scales.flat, group, i, j),
            )
            for _, i, j, links, group in candidates[: settings.edges]
        ],
        tested,
        lost,
    )


def strength(edge: EdgeRecord) -> float:
    """By how far a link is beyond chance: the larger z of its overlap and its composition."""
    known = [z for z in (edge.overlap_z, edge.composition_z) if z is not None]
    return max(known, default=float("-inf"))


_MakeEnds = Callable[[TaskReader], HeadEnds]


def _ends(group: LinkGroup, settings: Settings) -> list[tuple[Hashable, _MakeEnds]]:
    fold = settings.fold_norms != "none"
    norm = group.read.norm if fold else None
    centred = norm is not None and norm.kind == "layernorm"
    return [
        (("write", group.write.label, centred), lambda r: _end(group.write, r, fold, centred)),
        (("read", group.read.label), lambda r: _end(group.read, r, fold, centred)),
    ]


def _width(face: StreamMap) -> int:
    """Dimensions of the stream that a face writes to or reads."""
    if face.heads is None:
        raise ValueError(f"{face.label} has no heads to link")
    return face.heads.outputs if face.role == "o" else face.heads.inputs


def _end(
    face: StreamMap, reader: TaskReader, fold: bool, centred: bool, *, bare: bool = False
) -> HeadEnds:
    """The heads of a face; `bare` leaves in the mean that a LayerNorm takes out."""
    heads, partner = face.heads, face.partner
    if heads is None:
        raise ValueError(f"{face.label} has no heads to link")
    beside, inner = (face.norm, face.partner_norm) if fold else (None, None)
    maps = _stream_side(heads, face.role == "o", beside, reader, centred, bare)
    other = None
    if partner is not None:
        inside = _stream_side(partner, partner.role == "o", inner, reader, centred, bare)
        other = _matched(inside, heads.count)
    return head_ends(maps, other)


def _stream_side(
    heads: LinearMap,
    writes: bool,
    norm: Norm | None,
    reader: TaskReader,
    centred: bool,
    bare: bool,
) -> Matrices:
    """Maps of heads with the stream along the columns, (H, r, d), a norm folded in."""
    if not writes:
        return fold_before(reader.maps(heads, "read"), norm, reader, centred=not bare)
    return fold_behind(reader.maps(heads), norm, reader, centred=centred and not bare).transposed()


def _matched(partner: Matrices, count: int) -> Tensor:
    """A partner for each of `count` heads: a shared one repeated, several side by side in one unit.

    That unit may differ from head to head, as the size of a partner does not matter.
    """
    have, rank, width = partner.values.shape
    if have <= count:
        return partner.values.repeat_interleave(count // have, dim=0)
    units = partner.exponents.reshape(count, have // count)
    beside = (units - units.amax(1, keepdim=True)).to(partner.values.device)
    grouped = partner.values.reshape(count, have // count, rank, width)
    if bool(beside.any()):
        grouped = power_of_two(grouped, beside[:, :, None, None])
    return torch.cat([*grouped.unbind(1)], dim=-1)
