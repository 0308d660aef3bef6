"""Maps of heads: how close each one is to another of its layer, and what links meet it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from flagscope.records import EdgeRecord, HeadRecord, HeadSpace, ScanResult
from flagscope.report.links import beyond_chance, complete
from flagscope.report.maps import MapCell, MapScale, PageMap, scale_limit
from flagscope.report.shared_head_maps import closest_head
from flagscope.report.spec import rounded
from flagscope.report.targets import group_target, heads_target, layer_key
from flagscope.report.wording import READ_WORDS, SPACE_WORDS, counted, joined, number

_SPACES: tuple[HeadSpace, ...] = ("q", "k", "v", "o")


class _Layers(NamedTuple):
    """The heads of one stack and attention: groups by layer and space."""

    title: str
    stack: str
    cross: bool
    heads: int
    groups: dict[int, dict[HeadSpace, HeadRecord]]

    @property
    def layers(self) -> list[int]:
        return sorted(self.groups)


class _Closest(NamedTuple):
    """The head of a layer that shares most with a given one in one space."""

    ratio: float
    head: int
    other: int
    group: HeadRecord


def head_maps(result: ScanResult) -> list[PageMap]:
    """Maps of every stack's heads: closest other head, in all spaces and in each, and links."""
    return [one for part in _parts(result) for one in _maps(result, part)]


def _parts(result: ScanResult) -> list[_Layers]:
    groups: dict[tuple[str, bool], list[HeadRecord]] = {}
    for group in result.heads:
        groups.setdefault((group.stack, group.attention == "cross"), []).append(group)
    parts = []
    for (stack, cross), some in groups.items():
        at: dict[int, dict[HeadSpace, HeadRecord]] = {}
        for group in some:
            at.setdefault(group.layer, {}).setdefault(group.space, group)
        words = [stack] if len({stack for stack, _ in groups}) > 1 else []
        words += ["cross-attention"] if cross else []
        title = " · ".join([*words, "Heads"])
        parts.append(_Layers(title, stack, cross, max(group.count for group in some), at))
    return parts


def _maps(result: ScanResult, part: _Layers) -> list[PageMap]:
    known = {space for here in part.groups.values() for space in here}
    spaces: list[HeadSpace] = [space for space in _SPACES if space in known]
    maps = [
        _closest_map(part, spaces, key="closest", title="Closest other head, in any space"),
        *(
            _closest_map(
                part, (space,), key=f"closest-{space}",
                title=f"Closest other head, {SPACE_WORDS[space]} space",
            )
            for space in spaces
        ),
    ]  # fmt: skip
    if far := _far(result, part):
        maps += [
            one for one in (_links_from(result, part, far), _links_to(result, part, far)) if one
        ]
    return maps


def _closest_map(part: _Layers, spaces: Sequence[HeadSpace], *, key: str, title: str) -> PageMap:
    where = f"in {SPACE_WORDS[spaces[0]]} space" if len(spaces) == 1 else "in any of its spaces"
    return _page_map(
        part,
        [[_closest_cell(part, layer, head, spaces) for head in range(part.heads)]
         for layer in part.layers],
        key=key,
        title=title,
        scale="ratio",
        words=f"Overlap of each head with the closest other head of its layer {where}, in units "
        "of chance: two random heads have 1 on average, the closest of several somewhat more.",
    )  # fmt: skip


def _page_map(
    part: _Layers,
    cells: Sequence[Sequence[MapCell]],
    *,
    key: str,
    title: str,
    scale: MapScale,
    words: str,
) -> PageMap:
    return PageMap(
        key=f"{part.stack}{'.cross' * part.cross}/{key}",
        title=title,
        group=part.title,
        label="functional",
        words=words,
        scale=scale,
        limit=scale_limit(scale, cells),
        row_title="layer",
        column_title="head",
        rows=[str(layer) for layer in part.layers],
        row_labels=[],
        columns=[str(head) for head in range(part.heads)],
        cells=cells,
    )


def _closest_cell(part: _Layers, layer: int, head: int, spaces: Sequence[HeadSpace]) -> MapCell:
    groups = part.groups[layer]
    found = [
        closest
        for space in spaces
        if space in groups and (closest := _closest(groups[space], part.heads, head)) is not None
    ]
    if not found:
        return None
    best = max(found, key=lambda closest: closest.ratio)
    noun = "key-value head" if best.group.count < part.heads else "head"
    through = f" (through {noun} {best.head})" if noun != "head" else ""
    text = (
        f"closest to {noun} {best.other} in {SPACE_WORDS[best.group.space]} space{through}, "
        f"{number(best.ratio)} times chance"
    )
    return [rounded(best.ratio, 3), text, group_target(best.group, (best.head, best.other))]


def _closest(group: HeadRecord, heads: int, head: int) -> _Closest | None:
    """The closest head to that which serves a query head; None where there is no number."""
    if heads % group.count:
        return None
    own = head * group.count // heads
    found = closest_head(group, own)
    return None if found is None else _Closest(found[0], own, found[1], group)


def _links_from(result: ScanResult, part: _Layers, far: Sequence[EdgeRecord]) -> PageMap | None:
    counts = Counter((edge.layer_from, edge.head_from) for edge in far if _is(edge.source, part))
    if not counts:
        return None
    least = "" if complete(result) else "at least "
    cells: list[list[MapCell]] = []
    for layer in part.layers:
        cells.append([])
        for head in range(part.heads):
            count = counts[layer, head]
            text = f"{least}{counted(count, 'link')} from it" if count else "no link from it"
            cells[-1].append(_count_cell(part, layer, head, count, text, "o"))
    words = "Links beyond chance that start from each head, by overlap or by composition."
    return _page_map(
        part, cells, key="links-from", title="Links from it", scale="count",
        words=words + _kept(result),
    )  # fmt: skip


def _links_to(result: ScanResult, part: _Layers, far: Sequence[EdgeRecord]) -> PageMap | None:
    counts = Counter(
        (edge.layer_to, edge.space, edge.head_to) for edge in far if _is(edge.target, part)
    )
    if not counts:
        return None
    few = {
        (layer, space): group.count for layer, here in part.groups.items()
        for space, group in here.items()
    }  # fmt: skip
    least = "" if complete(result) else "at least "
    cells: list[list[MapCell]] = []
    for layer in part.layers:
        cells.append([])
        for head in range(part.heads):
            by_space = {}
            for space in READ_WORDS:
                own = head * few.get((layer, space), part.heads) // part.heads
                by_space[space] = counts[layer, space, own]
            some = [f"{n} to its {READ_WORDS[space]}" for space, n in by_space.items() if n]
            text = f"links: {least}{joined(some)}" if some else "no link to it"
            total = sum(by_space.values())
            cells[-1].append(_count_cell(part, layer, head, total, text, "q"))
    words = "Links beyond chance that reach each head, by overlap or by composition."
    return _page_map(
        part, cells, key="links-to", title="Links to it", scale="count", words=words + _kept(result)
    )


def _far(result: ScanResult, part: _Layers) -> list[EdgeRecord]:
    flags = zip(beyond_chance(result, "overlap"), beyond_chance(result, "composition"), strict=True)
    return [
        edge
        for edge, far in zip(result.edges, flags, strict=True)
        if any(far) and edge.stack == part.stack
    ]


def _is(name: str, part: _Layers) -> bool:
    return (".cross." in name) == part.cross


def _kept(result: ScanResult) -> str:
    return "" if complete(result) else " Only the links furthest from chance are kept."


def _count_cell(part: _Layers, layer: int, head: int, count: int, text: str, space: str) -> MapCell:
    target = heads_target(f"{layer_key(part.stack, layer, cross=part.cross)}.{space}", (head,))
    return [count, text, target]
