"""Record of writers and readers in a traced program, from which freedoms follow."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from flagscope.arch.norm import Norm
from flagscope.arch.trace.axes import Axis, channels, rows
from flagscope.arch.trace.values import Degree, Term, Use, Value, Weight, least


@dataclass(frozen=True)
class Read:
    """A map that reads the channels of one or more others, or a product of queries and keys.

    `value` is the tensor read, with its channels in the dimension `axes`; for queries and keys,
    `query` holds the queries and `value` the keys.
    """

    event: int
    value: Value
    axes: tuple[Axis, ...]
    reader: int | None
    query: Value | None = None


@dataclass
class Ledger:
    """Uses of maps, reads of their channels, and everything else that involves either."""

    uses: list[Use] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    read_uses: set[int] = field(default_factory=set)
    streams: set[int] = field(default_factory=set)
    _touched: dict[int, list[tuple[int, int, tuple[Axis, ...]]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _weights: dict[str, list[tuple[int, int, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _events: int = 0

    def event(self) -> int:
        """Number of a new event."""
        self._events += 1
        return self._events

    def use(self, use: Use) -> int:
        """Record the application of a map."""
        event = self.event()
        for weight in (use.weight, use.bias):
            if weight is not None:
                self.weight(weight, event)
        self.uses.append(use)
        return len(self.uses) - 1

    def weight(self, weight: Weight, event: int | None = None) -> None:
        """Record that an event uses a stored tensor, or a range of it."""
        event = self.event() if event is None else event
        stop = weight.start + weight.length
        self._weights[weight.tensor].append((event, weight.start, stop))

    def touch(self, value: Value, event: int) -> None:
        """Record that an event uses these channels."""
        axes = channels(value.dims)
        for term in value.terms:
            self._touched[term.use].append((event, term.offset, axes))

    def escape(self, value: Value) -> None:
        """Record that these channels are no longer followed."""
        self.touch(value, self.event())

    def join(self, value: Value) -> None:
        """Record that these channels are added to others."""
        self.escape(value)
        self.streams |= {term.use for term in value.terms}

    def read(self, read: Read) -> None:
        """Record a read."""
        self.reads.append(read)
        for value in (read.value, read.query):
            if value is not None:
                self.touch(value, read.event)
                self.read_uses |= {term.use for term in value.terms}

    def freedom(self, read: Read, value: Value, term: Term) -> Degree:
        """The freedom between a writer and its reader that does not affect anything else."""
        sides = [side for side in (read.value, read.query) if side is not None]
        if value.stream or not all(
            self._alone(side_term, side, read.event) for side in sides for side_term in side.terms
        ):
            return "none"
        if read.reader is not None and not self._unshared(self.uses[read.reader]):
            return "none"
        if value.product:
            # a norm on one factor would have to change with the other
            norms = any(factor.norm is not None for factor in value.terms)
            return "none" if norms else least(term.degree, "scaling")
        return term.degree

    def _alone(self, term: Term, value: Value, event: int) -> bool:
        """Whether nothing else uses these rows of the writer, or the writer's tensors."""
        axes = channels(value.dims)
        own = None
        for other_event, offset, taken in self._touched[term.use]:
            if other_event == event:
                continue
            if (offset, taken) == (term.offset, axes):
                return False
            own = rows(term.offset, axes) if own is None else own
            if own & rows(offset, taken):
                return False
        norm = term.norm
        names = (norm.gain, norm.bias, norm.mean, norm.variance) if norm else ()
        once = all(len(self._weights[name]) == 1 for name in names if name)
        return once and self._unshared(self.uses[term.use])

    def _unshared(self, use: Use) -> bool:
        return all(
            sum(start < stored.start + stored.length and stored.start < stop
                for _, start, stop in self._weights[stored.tensor]) == 1
            for stored in (use.weight, use.bias) if stored is not None
        )  # fmt: skip


def norm_of(
    kind: str, gain: Weight | None, bias: Weight | None, mean: Weight | None,
    variance: Weight | None, eps: float,
) -> Norm | None:  # fmt: skip
    """A norm with these tensors; None without tensors."""
    names = [None if weight is None else weight.tensor for weight in (gain, bias, mean, variance)]
    present = next((name for name in names if name is not None), None)
    if present is None:
        return None
    return Norm(
        name=present.rpartition(".")[0], kind=kind,  # pyright: ignore[reportArgumentType]
        gain=names[0], bias=names[1], mean=names[2], variance=names[3], eps=eps, offset=0.0,
        placement="map" if kind == "batchnorm" else "pre",
    )  # fmt: skip
