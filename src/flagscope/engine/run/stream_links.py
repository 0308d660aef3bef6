"""The links between heads of different layers that a task measures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from flagscope.arch import LinearMap, LinkGroup, Norm, StreamMap
from flagscope.diagnose import HeadEnds, LinkName, Links, head_ends, head_links
from flagscope.engine.cache.counted_cache import CountedCache
from flagscope.engine.cache.norms import fold_before, fold_behind
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.run.link_scales import LinkScales
from flagscope.engine.settings import Settings
from flagscope.geometry import Matrices, power_of_two
from flagscope.records import EdgeRecord


def stream_links(
    groups: Sequence[LinkGroup], reader: TaskReader, settings: Settings
) -> tuple[list[EdgeRecord], int, int]:
    """The links that stand out, at most `settings.edges`; how many were tested; and how many could
    not be tested because a head is not finite."""
    if groups:
        faces = [face for group in groups for face in (group.write, group.read)]
        maps = [map_ for face in faces for map_ in (face.heads, face.partner) if map_ is not None]
        reader = reader.for_size(min(_width(face) for face in faces), maps)
    fold = settings.fold_norms != "none"
    ends = [end for group in groups for end in _ends(group, settings)]
    shared = CountedCache([key for key, _ in ends])
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
        candidates += [(*link, links, group) for link in links.furthest(settings.edges)]
        tested += links.tested
        lost += links.not_finite
    candidates.sort(key=lambda link: -link[0])
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
    """How far a link is beyond chance: the larger z of its overlap and its composition."""
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
    """Dimension of the stream that a face writes to or reads."""
    if face.heads is None:
        raise ValueError(f"{face.label} has no heads to link")
    return face.heads.outputs if face.role == "o" else face.heads.inputs


def _end(
    face: StreamMap, reader: TaskReader, fold: bool, centred: bool, *, bare: bool = False
) -> HeadEnds:
    """The heads of a face; `bare` leaves in the mean that a LayerNorm removes."""
    heads, partner = face.heads, face.partner
    if heads is None:
        raise ValueError(f"{face.label} has no heads to link")
    outer, inner = (face.norm, face.partner_norm) if fold else (None, None)
    maps = _stream_side(heads, face.role == "o", outer, reader, centred, bare)
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
    """Maps of heads with the stream along the columns, (H, r, d), with the norm folded in."""
    if not writes:
        return fold_before(reader.maps(heads, "read"), norm, reader, centred=not bare)
    return fold_behind(reader.maps(heads), norm, reader, centred=centred and not bare).transposed()


def _matched(partner: Matrices, count: int) -> Tensor:
    """Partners of `count` heads in a common unit; a shared partner is repeated.

    Units may differ from head to head, as the size of a partner does not matter.
    """
    have, rank, width = partner.values.shape
    if have <= count:
        return partner.values.repeat_interleave(count // have, dim=0)
    units = partner.exponents.reshape(count, have // count)
    below = (units - units.amax(1, keepdim=True)).to(partner.values.device)
    grouped = partner.values.reshape(count, have // count, rank, width)
    if bool(below.any()):
        grouped = power_of_two(grouped, below[:, :, None, None])
    return torch.cat([*grouped.unbind(1)], dim=-1)
