"""Turns the ledger of a traced program into the records of a graph."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count

from flagscope.arch.graph import HeadGroup, Member, PairGroup
from flagscope.arch.maps import LinearMap, solved_map
from flagscope.arch.notes import Notes
from flagscope.arch.pair_side import Side
from flagscope.arch.trace.axes import channels, merged, size_of
from flagscope.arch.trace.ledger import Ledger, Read
from flagscope.arch.trace.values import Term, Use, Value, Weight
from flagscope.records import Attention, HeadSpace, PairKind

Parts = list[tuple[str, int, int]]
"""Name, size and stride of the factors of the selected rows."""


@dataclass
class Recorder:
    """Records pairs and head groups, in the order in which the program runs."""

    ledger: Ledger
    notes: Notes
    pairs: list[PairGroup] = field(default_factory=list)
    heads: list[HeadGroup] = field(default_factory=list)
    _layers: dict[str, int] = field(default_factory=dict)
    _in_stream: set[int | None] = field(default_factory=set)
    _attentions: dict[int | None, tuple[Attention, int]] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)

    def record(self) -> None:
        """Record all reads of the ledger."""
        streams = self.ledger.streams
        self._in_stream = {
            read.reader for read in self.ledger.reads
            if read.value.stream or any(term.use in streams for term in read.value.terms)
        }  # fmt: skip
        for read in self.ledger.reads:
            if read.query is not None:
                self._query_key(read, read.query)
                continue
            for term in read.value.terms:
                if term.heads is None:
                    self._pair(read, term)
                else:
                    self._value_output(read, term)

    def _pair(self, read: Read, term: Term) -> None:
        if read.reader is None:
            return
        write, reader = self.ledger.uses[term.use], self.ledger.uses[read.reader]
        axes = merged(axis for axis in read.axes if axis.size > 1)
        written = [axis for axis in axes if axis.channel]
        if len(written) != 1:
            self._left_out(write, reader)
            return
        size, stride = written[0].size, written[0].stride or 1
        write_map = _writer(write, term.offset, [("o", size, stride)], "o", None)
        columns = [("i" if axis.channel else f"x{n}", axis.size) for n, axis in enumerate(axes)]
        read_map = _reader(reader, columns, "i", None)
        if write_map is None or read_map is None:
            self._left_out(write, reader)
            return
        value = read.value
        freedom = self.ledger.freedom(read, value, term)
        if write.bias is not None and write_map.bias is None:
            freedom = "none"
        streams = value.stream or term.use in self.ledger.streams
        kind = self._kind(
            value, write_map, read_map, streams=streams, block=term.use in self._in_stream
        )
        names = _module(write_map.tensor), _module(read_map.tensor)
        short = kind == "conv" and names[0].rpartition(".")[0] == names[1].rpartition(".")[0]
        name = self._name(f"{names[0]}-{names[1].rpartition('.')[2] if short else names[1]}")
        between = "gated" if value.product and term.between == "linear" else term.between
        folded = value.norm if streams and term.passed.count("norm") == 1 else None
        self.pairs.append(
            PairGroup(
                name=name, kind=kind, between=between, stack="main", attention=None,
                layer=self._layer(reader if kind == "residual" else write), freedom=freedom,
                d=write_map.outputs, write=Side(write_map), read=Side(read_map),
                members=(Member(name),), write_norm=term.norm, read_norm=folded,
            )
        )  # fmt: skip

    def _kind(
        self, value: Value, write: LinearMap, read: LinearMap, *, streams: bool, block: bool
    ) -> PairKind:
        if streams:
            return "residual"
        if len(write.shape) > 2 and len(read.shape) > 2:
            return "conv"
        return "mlp" if value.product or block else "sequential"

    def _query_key(self, read: Read, query: Value) -> None:
        key = read.value
        q, k = query.terms[0], key.terms[0]
        writer, key_writer = self.ledger.uses[q.use], self.ledger.uses[k.use]
        size, last = merged(read.axes)[0].size, len(query.dims) - 1
        counts = [size_of(channels(v.dims)) // size for v in (query, key)]
        dimension = next(i for i, dim in enumerate(key.dims) if dim == read.axes and i >= last - 1)
        query_map = _headed(writer, q, query, last, counts[0])
        key_map = _headed(key_writer, k, key, dimension, counts[1], role="k")
        if query_map is None or key_map is None or counts[0] % counts[1]:
            self._left_out(writer, key_writer)
            return
        free = self.ledger.freedom(read, query, q) == self.ledger.freedom(read, key, k) == "gl"
        # A bias whose layout differs from that of the weight could not be changed with it.
        free = free and all(
            use.bias is None or side.bias is not None
            for use, side in ((writer, query_map), (key_writer, key_map))
        )
        linear = q.between == k.between == "linear" and free
        passed = next((t.between for t in (q, k) if t.between != "linear"), "linear")
        attention: Attention = "self" if writer.reads == key_writer.reads else "cross"
        layer = self._layer(writer)
        self._attentions[read.event] = attention, layer
        label = self._name(f"{_parent(query_map.tensor)}.qk").removesuffix(".qk")
        ratio = counts[0] // counts[1]
        self.pairs.append(
            PairGroup(
                name=f"{label}.qk", kind="qk", between=passed, stack="main", attention=attention,
                layer=layer, freedom="gl" if linear else "none", d=size,
                write=Side(query_map), read=Side(key_map, transposed=True), members=tuple(
                    Member(f"{label}.head.{h}.qk", h, h // ratio, h, h // ratio)
                    for h in range(counts[0])
                ),
            )
        )  # fmt: skip
        self._space(query_map, writer, "q", attention, layer)
        self._space(key_map, key_writer, "k", attention, layer)

    def _value_output(self, read: Read, term: Term) -> None:
        if read.reader is None or term.heads is None:
            return
        write, reader = self.ledger.uses[term.use], self.ledger.uses[read.reader]
        groups, axes = term.heads, [axis for axis in merged(read.axes) if axis.size > 1]
        size = read.value.size // groups
        kinds = [axis.channel for axis in axes]
        repeat = next((axis.size for axis in axes if not axis.channel), 1)
        repeated = repeat > 1
        # all heads contiguous; in contiguous blocks; each repeated for several query heads
        fits = kinds == [True] or (kinds == [False, True] and groups == 1)
        fits = fits or (kinds in ([True, True], [True, False, True]) and axes[0].size == groups)
        value = read.value
        if not fits or value.stream or value.product or value.norm is not None:
            self._left_out(write, reader)
            return
        heads = _writer(write, term.offset, _head_parts(value, groups, size), "k", "h", role="v")
        if repeated:
            parts = [("g", groups), ("r", repeat), ("k", size)]
            out = _reader(reader, parts, "k", "g r", role="o")
        else:
            out = _reader(reader, [("h", groups), ("k", size)], "k", "h", role="o")
        if heads is None or out is None:
            self._left_out(write, reader)
            return
        free = self.ledger.freedom(read, value, term) == "gl" and not term.passed
        free = free and (write.bias is None or heads.bias is not None)
        unknown = (None, self._layer(reader))
        attention, layer = self._attentions.get(term.attended, unknown)
        label = self._name(f"{_parent(out.tensor)}.ov").removesuffix(".ov")
        self.pairs.append(
            PairGroup(
                name=f"{label}.ov", kind="ov", between=term.between, stack="main",
                attention=attention, layer=layer, freedom="gl" if free else "none",
                d=size, write=Side(heads), read=Side(out), members=tuple(
                    Member(f"{label}.head.{h}.ov", h // repeat, h, h, h // repeat)
                    for h in range(groups * repeat)
                ),
            )
        )  # fmt: skip
        self._space(heads, write, "v", attention, layer)
        self._space(out, reader, "o", attention, layer)

    def _space(
        self, map_: LinearMap, use: Use, space: HeadSpace, attention: Attention | None, layer: int
    ) -> None:
        stream = map_.outputs if space == "o" else map_.inputs
        self.heads.append(
            HeadGroup(
                stack="main", attention=attention, layer=layer, space=space, map=map_,
                count=map_.count, rank=min(map_.outputs, map_.inputs), d=stream,
                norm=use.norm if space != "o" else None,
            )
        )  # fmt: skip

    def _left_out(self, write: Use, read: Use) -> None:
        self.notes.add(
            "left out, since the channels are read in another order or grouping than written",
            f"{_module(write.weight.tensor)}-{_module(read.weight.tensor)}",
        )

    def _layer(self, use: Use) -> int:
        """Number of a block in order of execution, by its name up to the first number or part."""
        module = _module(use.weight.tensor)
        match = re.match(r"(?:[^.]*\.)*?\d+(?=\.|$)", module)
        block = match.group() if match else module.partition(".")[0]
        return self._layers.setdefault(block, len(self._layers))

    def _name(self, name: str) -> str:
        number = next(count(self._names.get(name, 0) + 1))
        self._names[name] = number
        return name if number == 1 else f"{name}#{number}"


def _headed(
    use: Use, term: Term, value: Value, dimension: int, heads: int, role: str = "q"
) -> LinearMap | None:
    size = value.size // heads
    inner = merged(value.dims[dimension])[0].stride or 1
    outer = channels(tuple(d for i, d in enumerate(value.dims) if i != dimension))
    if len(outer) > 1:
        return None
    stride = (outer[0].stride or 1) if outer else size * inner
    return _writer(use, term.offset, [("h", heads, stride), ("k", size, inner)], "k", "h", role)


def _head_parts(value: Value, groups: int, size: int) -> Parts:
    """Factors of the rows of value heads; the outer factors are heads."""
    axes = list(channels(value.dims))
    if len(axes) == 1:
        stride = axes[0].stride or 1
        return [("h", groups, stride * size), ("k", size, stride)]
    return [("h", axes[0].size, axes[0].stride or 1), ("k", axes[1].size, axes[1].stride or 1)]


def _rows(
    weight: Weight, offset: int, parts: Parts
) -> tuple[str, dict[str, int], dict[str, int]] | None:
    """The layout of the stored rows that contain these factors, and the indices held fixed."""
    names: list[str] = []
    sizes: dict[str, int] = {}
    select: dict[str, int] = {}
    here, reached = offset + weight.start, 1
    total = weight.shape[0]
    for name, size, stride in [*sorted(parts, key=lambda p: (p[2], p[1])), ("", 1, total)]:
        gap, remainder = divmod(stride, reached)
        if remainder:
            return None
        if gap > 1:
            fixed = f"n{len(select)}"
            names.insert(0, fixed)
            sizes[fixed], select[fixed] = gap, here // reached % gap
            here -= select[fixed] * reached
        if name:
            names.insert(0, name)
            sizes[name] = size
        reached = stride * size
    if here:
        return None
    return (f"({' '.join(names)})" if len(names) > 1 else names[0]), sizes, select


def _writer(
    use: Use, offset: int, parts: Parts, out: str, batch: str | None, role: str | None = None
) -> LinearMap | None:
    weight = use.weight
    if use.kind in ("right", "transposed", "embedding"):
        turned = Weight(weight.tensor, (use.outputs,), 0, use.outputs)
        row_axes = _rows(turned, offset, parts)
        layout = row_axes and f"in0 {row_axes[0]}"
    else:
        row_axes = _rows(weight, offset, parts)
        layout = row_axes and f"{row_axes[0]} in0"
    if row_axes is None or layout is None:
        return None
    return solved_map(
        role=role or _role(use), tensor=weight.tensor, shape=weight.shape,
        layout=layout + _kernel(weight), out=out, inp="in0", known=row_axes[1], select=row_axes[2],
        batch=batch, bias=_bias(use),
    )  # fmt: skip


def _reader(
    use: Use, columns: list[tuple[str, int]], inp: str, batch: str | None, role: str | None = None
) -> LinearMap | None:
    weight = use.weight
    names = [name for name, _ in columns]
    group = f"({' '.join(names)})" if len(names) > 1 else names[0]
    if use.kind in ("right", "transposed"):
        row_axes = _rows(Weight("", (use.outputs,), 0, use.outputs), 0, [("out0", use.outputs, 1)])
        layout = row_axes and f"{group} {row_axes[0]}"
    else:
        row_axes = _rows(weight, 0, [("out0", weight.length, 1)])
        layout = row_axes and f"{row_axes[0]} {group}"
    if row_axes is None or layout is None:
        return None
    return solved_map(
        role=role or _role(use), tensor=weight.tensor, shape=weight.shape,
        layout=layout + _kernel(weight), out="out0", inp=inp,
        known={**row_axes[1], **dict(columns)}, select=row_axes[2], batch=batch, bias=_bias(use),
    )  # fmt: skip


def _kernel(weight: Weight) -> str:
    return {2: "", 3: " x", 4: " y x", 5: " z y x"}[len(weight.shape)]


def _bias(use: Use) -> str | None:
    """The bias, if its layout is that of the rows of the weight."""
    bias, weight = use.bias, use.weight
    if bias is None:
        return None
    turned = use.kind in ("right", "transposed")
    stored, start = (weight.shape[1], 0) if turned else (weight.shape[0], weight.start)
    alike = bias.shape == (stored,) and bias.start == start and bias.length == use.outputs
    return bias.tensor if alike else None


def _role(use: Use) -> str:
    return (
        "embedding"
        if use.kind == "embedding"
        else "conv"
        if len(use.weight.shape) > 2
        else "linear"
    )


def _module(tensor: str) -> str:
    return tensor.removesuffix(".weight").removesuffix("_weight")


def _parent(tensor: str) -> str:
    return tensor.removesuffix(".weight").rpartition(".")[0] or "main"
