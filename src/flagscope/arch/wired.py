"""Finds pairs and heads in a file's own graph (see `flagscope.wiring`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagscope.arch.activations import elementwise_freedom
from flagscope.arch.config_values import Known
from flagscope.arch.graph import HeadGroup, Member, PairGroup
from flagscope.arch.inferred import Inferred, inferred_maps
from flagscope.arch.limits import check_count
from flagscope.arch.maps import LinearMap, solved_map
from flagscope.arch.norm import Norm, NormKind
from flagscope.arch.notes import Notes
from flagscope.arch.pair_side import Side
from flagscope.arch.rule_context import Shapes
from flagscope.errors import ArchitectureError
from flagscope.records import Attention, Freedom, HeadSpace, PairKind
from flagscope.wiring import Link, WiredAttention, WiredMap, WiredNorm, Wiring

FAMILY = "graph"
"""Family name of a graph that was read from the file."""


def wired_graph(
    wiring: Wiring,
    shapes: Shapes,
    notes: Notes,
    *,
    known: Mapping[str, Known],
    config: Mapping[str, Any] | None,
) -> Inferred:
    """Pairs and heads of a file's graph; attention by names if the graph does not show it.

    Parameters
    ----------
    wiring
        The graph, as the reader understood it.
    shapes, notes, known, config
        As for `inferred_maps`.

    Examples
    --------
    >>> one, two = WiredMap("a", "i o", "a"), WiredMap("b", "i o", "b")
    >>> wiring = Wiring((one, two), (Link(one, two, "relu", free=True),))
    >>> found = wired_graph(wiring, {"a": (4, 8), "b": (8, 3)}, Notes(), known={}, config=None)
    >>> found.pairs[0].name, found.pairs[0].d, found.pairs[0].freedom
    ('a-b', 8, 'scaling')
    """
    for text in wiring.notes:
        notes.add(text)
    recorder = _Recorder(shapes, notes)
    for attention in wiring.attention:
        recorder.attend(attention)
    for link in wiring.links:
        recorder.link(link)
    named = _by_name(wiring, recorder, shapes, notes, known, config)
    return Inferred((*named.pairs, *recorder.pairs), (*named.heads, *recorder.heads))


def _by_name(
    wiring: Wiring,
    recorder: _Recorder,
    shapes: Shapes,
    notes: Notes,
    known: Mapping[str, Known],
    config: Mapping[str, Any] | None,
) -> Inferred:
    """Pairs and heads by names, for tensors whose order the graph leaves open."""
    understood = {map_.tensor for map_ in wiring.maps}
    linked = {side.map.tensor for pair in recorder.pairs for side in (pair.write, pair.read)}
    left = {name: shape for name, shape in shapes.items() if name not in linked}
    own = Notes()
    by_name = inferred_maps(left, own, known=known, config=config)
    pairs = tuple(
        pair for pair in by_name.pairs
        if pair.kind in ("qk", "ov")
        or not {pair.write.map.tensor, pair.read.map.tensor} <= understood
    )  # fmt: skip
    if pairs or by_name.heads:
        for text in own.texts():
            notes.add(text)
    return Inferred(pairs, by_name.heads)


@dataclass
class _Recorder:
    shapes: Shapes
    notes: Notes

    def __post_init__(self) -> None:
        self.pairs: list[PairGroup] = []
        self.heads: list[HeadGroup] = []
        self._names: Counter[str] = Counter()

    def link(self, link: Link) -> None:
        try:
            write, read = (self._map(side, None) for side in (link.write, link.read))
            name = self._name(f"{link.write.label}-{link.read.label}")
            group = PairGroup(
                name=name, kind=_kind(link, write, read), between=link.between, stack="main",
                attention=None, layer=len(self.pairs), freedom=_freedom(link), d=write.outputs,
                write=Side(write), read=Side(read), members=(Member(name),),
                write_norm=self._norm(link.norm),
            )  # fmt: skip
        except ArchitectureError as error:
            self._left_out(f"{link.write.label}-{link.read.label}", error)
            return
        self.pairs.append(group)

    def attend(self, wired: WiredAttention) -> None:
        try:
            query, key, value = (self._map(m, "h") for m in (wired.query, wired.key, wired.value))
            output = self._map(wired.output, "h")
            check_count(max(query, key, value, output, key=lambda map_: map_.count), "heads")
            ratios = [divmod(query.count, key.count), divmod(output.count, value.count)]
            if any(remainder for _, remainder in ratios):
                raise ArchitectureError("the query heads are no multiple of the key heads")
            label = self._name(wired.label)
            attention: Attention = "cross" if wired.cross else "self"
            layer = len(self.heads) // 4
            between = "linear" if wired.free else "unknown"
            freedom: Freedom = "gl" if wired.free else "none"
            sides: tuple[tuple[PairKind, Side, Side, int], ...] = (
                ("qk", Side(query), Side(key, transposed=True), ratios[0][0]),
                ("ov", Side(value), Side(output), ratios[1][0]),
            )
            groups = [
                PairGroup(
                    name=f"{label}.{kind}", kind=kind, between=between, stack="main",
                    attention=attention, layer=layer, freedom=freedom,
                    d=write.map.outputs, write=write, read=read, members=tuple(
                        Member(f"{label}.head.{h}.{kind}", *_ends(kind, h, ratio), head=h,
                               kv_head=h // ratio)
                        for h in range(query.count)
                    ),
                )
                for kind, write, read, ratio in sides
            ]  # fmt: skip
        except ArchitectureError as error:
            self._left_out(wired.label, error)
            return
        self.pairs += groups
        spaces: dict[HeadSpace, LinearMap] = {"q": query, "k": key, "v": value, "o": output}
        for space, map_ in spaces.items():
            self.heads.append(
                HeadGroup(
                    stack="main", attention=attention, layer=layer, space=space, map=map_,
                    count=map_.count, rank=min(map_.outputs, map_.inputs),
                    d=map_.outputs if space == "o" else map_.inputs,
                )
            )  # fmt: skip

    def _map(self, wired: WiredMap, batch: str | None) -> LinearMap:
        return solved_map(
            role=wired.role, tensor=wired.tensor, shape=self.shapes[wired.tensor],
            layout=wired.layout, out="o", inp="i", known=dict(wired.sizes), batch=batch,
            bias=wired.bias,
        )  # fmt: skip

    def _norm(self, norm: WiredNorm | None) -> Norm | None:
        if norm is None:
            return None
        kind: NormKind = "batchnorm" if norm.kind == "batchnorm" else "scale"
        return Norm(
            name=norm.name, kind=kind, gain=norm.gain, bias=norm.bias, mean=norm.mean,
            variance=norm.variance, eps=norm.eps, offset=0.0, placement="map",
            shape=self.shapes.get(norm.gain) if norm.gain else None,
        )  # fmt: skip

    def _name(self, name: str) -> str:
        self._names[name] += 1
        number = self._names[name]
        return name if number == 1 else f"{name}#{number}"

    def _left_out(self, place: str, error: ArchitectureError) -> None:
        self.notes.add("left out, since shapes contradict the file's graph", place,
                       example=str(error))  # fmt: skip


def _ends(kind: str, head: int, ratio: int) -> tuple[int, int]:
    """Index of the writer and the reader of a head; groups of heads share keys and values."""
    return (head, head // ratio) if kind == "qk" else (head // ratio, head)


def _kind(link: Link, write: LinearMap, read: LinearMap) -> PairKind:
    if len(write.shape) > 2 and len(read.shape) > 2:
        return "conv"
    return "mlp" if link.product else "sequential"


def _freedom(link: Link) -> Freedom:
    if not link.free:
        return "none"
    if link.product:
        # A norm on one factor would have to change with the other.
        if link.norm is not None:
            return "none"
        plain = elementwise_freedom("linear" if link.between == "gated" else link.between)
        return "scaling" if plain == "gl" else plain
    freedom = elementwise_freedom(link.between)
    # A norm of single channels commutes only with scalings of these.
    return "scaling" if freedom == "gl" and link.norm is not None else freedom
