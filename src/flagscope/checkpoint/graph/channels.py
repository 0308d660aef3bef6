"""Channels followed through a file's graph: who wrote them, what was done to them, who reads them.

A reader of graphs calls this for every node it understands and `escape` for every other; nothing is
linked across those. The functions between two maps are kept as values at fixed points (see
`activations`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from flagscope.checkpoint.graph.activations import POINTS, Curve, curve_name
from flagscope.wiring import Link, WiredAttention, WiredMap, WiredNorm, Wiring

_LISTED = 3


@dataclass(frozen=True)
class Strand:
    """The channels of one map, and what was done to each of them.

    `curve` is None for a function of single channels that has no name; `pooled` says whether
    positions were mixed behind it, `maxed` whether by their maximum.
    """

    use: int
    curve: Curve | None
    norm: WiredNorm | None = None
    pooled: bool = False
    maxed: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing was done yet."""
        return self.curve is POINTS and self.norm is None and not self.pooled

    @property
    def affine(self) -> bool:
        """Whether no more than an affine function was."""
        if self.curve is None or self.maxed:
            return False
        return self.curve is POINTS or curve_name(self.curve) in ("linear", "affine")

    @property
    def between(self) -> str:
        """Operation behind the writer, in a word."""
        if self.curve is None:
            return "elementwise"
        name = curve_name(self.curve)
        return "max_pool" if self.maxed and name == "linear" else name


@dataclass(frozen=True)
class Value:
    """An array in the graph that holds channels along one axis.

    Attributes
    ----------
    strands
        One, or the two factors of a product.
    size
        Number of channels.
    axis
        Where they lie; counted from the end (negative) where the number of axes is not known.
    rank
        Number of axes, if known.
    unit
        Whether every axis but the first and that of the channels has size 1.
    flat
        How the channels lie in an axis that was flattened: "" where it was not, "i s" for slowest,
        "s i" for fastest.
    """

    strands: tuple[Strand, ...]
    size: int
    axis: int
    rank: int | None
    unit: bool = False
    flat: str = ""

    @property
    def product(self) -> bool:
        """Whether channels of two maps were multiplied."""
        return len(self.strands) > 1

    @property
    def from_start(self) -> int | None:
        """The axis, counted from the start."""
        if self.axis >= 0:
            return self.axis
        return None if self.rank is None else self.rank + self.axis

    @property
    def from_end(self) -> int | None:
        """The axis, counted from the end: -1 for the last."""
        if self.axis < 0:
            return self.axis
        return None if self.rank is None else self.axis - self.rank

    def moved(self, axis: int, rank: int | None) -> Value:
        """The same with its axes elsewhere."""
        return replace(self, axis=axis, rank=rank)


@dataclass
class _Use:
    map: WiredMap
    # Further vectors that are added to the channels, and whether anything else is.
    vectors: list[str] = field(default_factory=list)
    exact: bool = True


@dataclass
class Channels:
    """The ledger of one graph."""

    _uses: list[_Use] = field(default_factory=list)
    _reads: list[tuple[int, Value, int]] = field(default_factory=list)
    _touched: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    _taken: Counter[str] = field(default_factory=Counter)
    _ends: dict[str, list[str]] = field(default_factory=dict)
    _attention: list[WiredAttention] = field(default_factory=list)
    _events: int = 0

    def write(self, one: WiredMap, size: int, axis: int, rank: int | None) -> Value | None:
        """Enter a map that writes `size` channels; None if that is a single one."""
        self._taken[one.tensor] += 1
        if one.bias is not None:
            self._taken[one.bias] += 1
        self._uses.append(_Use(one))
        if size < 2:
            return None
        return Value((Strand(len(self._uses) - 1, POINTS),), size, axis, rank)

    def read(self, value: Value | None) -> None:
        """Enter that the map that is written next reads these channels."""
        if value is not None:
            self._reads.append((self._touch(value), value, len(self._uses)))

    def use_again(self, tensor: str) -> None:
        """Enter that a stored tensor is used elsewhere as well."""
        self._taken[tensor] += 1

    def escape(self, value: Value | None, operation: str | None) -> None:
        """Enter that channels go where they are not followed; None for the network's output."""
        if value is None:
            return
        self._touch(value)
        if operation is not None:
            places = self._ends.setdefault(operation, [])
            label = self._uses[value.strands[0].use].map.label
            if label not in places:
                places.append(label)

    def attend(self, attention: WiredAttention) -> None:
        """Enter an attention layer; its output is written separately."""
        for one in (attention.query, attention.key, attention.value, attention.output):
            self._taken[one.tensor] += 1
        self._attention.append(attention)

    def shifted(self, value: Value, vector: str | None, *, added: bool = True) -> Value | None:
        """A vector added to the channels or taken from them: the bias, where nothing lies between.

        None stands for something that is not one stored number for each channel: no freedom could
        be acted out on that.
        """
        if vector is not None:
            self._taken[vector] += 1
        if value.product or not all(one.affine for one in value.strands):
            return None  # a shift of single channels behind an activation
        [strand] = value.strands
        use = self._uses[strand.use]
        if vector is None:
            use.exact = False
        elif added and strand.plain and use.map.bias is None:
            use.map = replace(use.map, bias=vector)
        else:
            use.vectors.append(vector)
        return value

    def scaled(self, value: Value, norm: WiredNorm) -> Value | None:
        """A norm or gain of single channels, directly behind the map or not at all."""
        for name in (norm.gain, norm.bias, norm.mean, norm.variance):
            if name is not None:
                self._taken[name] += 1
        if value.product or value.flat or not all(one.plain for one in value.strands):
            return None
        [strand] = value.strands
        return replace(value, strands=(replace(strand, norm=norm),))

    def applied(self, value: Value, function: Callable[[Curve], Curve]) -> Value | None:
        """A function of single numbers; None where it would act on a product."""
        if value.product:
            return None
        [strand] = value.strands
        if strand.pooled and not (strand.affine and not strand.maxed):
            return replace(value, strands=(replace(strand, curve=None),))
        curve = None if strand.curve is None else function(strand.curve)
        return replace(value, strands=(replace(strand, curve=curve),))

    def together(
        self, one: Value, other: Value, function: Callable[[Curve, Curve], Curve]
    ) -> Value | None:
        """A function of two arrays of the same channels of one map; None if they are not that."""
        if one.product or other.product or not _alike(one, other):
            return None
        [a], [b] = one.strands, other.strands
        if a.use != b.use or a.norm != b.norm or a.pooled != b.pooled or a.maxed != b.maxed:
            return None
        if a.curve is None or b.curve is None or a.pooled:
            return replace(one, strands=(replace(a, curve=None),))
        return replace(one, strands=(replace(a, curve=function(a.curve, b.curve)),))

    def multiplied(self, one: Value, other: Value) -> Value | None:
        """The product of the channels of two maps, as in a gated block."""
        if one.product or other.product or not _alike(one, other):
            return None
        if one.strands[0].use == other.strands[0].use:
            return None
        return replace(one, strands=(*one.strands, *other.strands))

    def pooled(self, value: Value, *, largest: bool) -> Value:
        """Positions mixed, alike for all channels."""
        strands = tuple(
            replace(one, pooled=True, maxed=one.maxed or largest) for one in value.strands
        )
        return replace(value, strands=strands)

    def wiring(self) -> Wiring:
        """Records of all entries so far."""
        links = [link for entry in self._reads for link in self._links(*entry)]
        maps = {use.map.tensor: use.map for use in self._uses}
        shifts = tuple(name for use in self._uses for name in use.vectors)
        return Wiring(
            tuple(maps.values()), tuple(links), tuple(self._attention), shifts, self._notes()
        )

    def _links(self, event: int, value: Value, reader: int) -> list[Link]:
        if reader >= len(self._uses):
            return []
        read = self._uses[reader].map
        if value.flat:
            read = replace(read, layout=read.layout.replace("i", f"({value.flat})"),
                           sizes=(("i", value.size),))  # fmt: skip
        free = self._once(self._uses[reader]) and all(
            self._touched[one.use] == {event} and self._once(self._uses[one.use])
            and self._once_norm(one.norm) for one in value.strands
        )  # fmt: skip
        found = []
        for strand in value.strands:
            between = strand.between
            if value.product and between == "linear":
                between = "gated"
            found.append(Link(self._uses[strand.use].map, read, between, free, value.product,
                              strand.norm))  # fmt: skip
        return found

    def _once(self, use: _Use) -> bool:
        names = (use.map.tensor, use.map.bias, *use.vectors)
        return use.exact and all(self._taken[name] == 1 for name in names if name is not None)

    def _once_norm(self, norm: WiredNorm | None) -> bool:
        if norm is None:
            return True
        names = (norm.gain, norm.bias, norm.mean, norm.variance)
        return all(self._taken[name] == 1 for name in names if name is not None)

    def _touch(self, value: Value) -> int:
        self._events += 1
        for strand in value.strands:
            self._touched[strand.use].add(self._events)
        return self._events

    def _notes(self) -> tuple[str, ...]:
        if not self._ends:
            return ()
        parts = [f"{operation} (behind {_listed(places)})" for operation, places in
                 self._ends.items()]  # fmt: skip
        return (f"the file's graph was followed from map to map, but not across: "
                f"{'; '.join(parts)}",)  # fmt: skip


def _alike(one: Value, other: Value) -> bool:
    if (one.size, one.flat) != (other.size, other.flat):
        return False
    starts, ends = (one.from_start, other.from_start), (one.from_end, other.from_end)
    if None not in ends:
        return ends[0] == ends[1]
    return None not in starts and starts[0] == starts[1]


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return ", ".join(places[:_LISTED]) + more
