"""Finds the layouts of the matrices of a line: plain, transposed, grouped, or after flattening.

Each matrix is read in the way that its neighbours, its bias and the norm after it allow. If they
allow several ways, the matrix is cut out of the line and listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from flagscope.arch.reading.line import (
    BETWEEN,
    GATE,
    LISTS,
    MISSING,
    ORDER,
    PARALLEL,
    RESIDUAL,
    Cut,
    Item,
    Line,
    goes_up,
    may_be_transposed,
)
from flagscope.arch.reading.modules import Shape

# Layouts by number of dimensions: Linear, Conv1d, Conv2d, Conv3d.
PLAIN = {2: "o i", 3: "o i x", 4: "o i y x", 5: "o i z y x"}
_TRANSPOSED = {2: "i o", 3: "i o x", 4: "i o y x", 5: "i o z y x"}

GROUPED = "a grouped or depthwise convolution, whose channels meet only within their group"
MAY_GROUP = "a convolution that may be a plain or a grouped one"
MAY_TRANSPOSE = "a convolution that may be a transposed one"
AXES = "a parameter of more than two axes that need not be a convolution's"
LONE = "no map is known to come directly before it or behind it"
BUFFER = "by its name a mask or table, not a weight"
ORIENTATION = "a convolution that may be a plain, a transposed or a grouped one"
ONE_CHANNEL = "a convolution that may be a plain one of one channel or a depthwise one of many"
DIMENSIONS = "its dimensions fit neither neighbour"
BARE = "parameters that may lie as (in, out) or as (out, in)"


_LISTED = (PARALLEL, ORDER, MISSING, GATE, LISTS, RESIDUAL)
_BUFFER = re.compile(r"(?:\w*_)?(?:mask|tril|triu|buffer|pe|positional_encoding)")


@dataclass(frozen=True)
class Placed:
    """A matrix of a segment: its layout, and its output and input lengths."""

    item: Item
    layout: str
    out: int
    inp: int


@dataclass
class Segments:
    """Sequences of matrices without a cut, and matrices in none, by reason.

    `borders` are the places where two matrices fit each other but no pair is claimed.
    """

    found: list[list[Placed]] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    cuts: set[str] = field(default_factory=set)
    borders: list[str] = field(default_factory=list)


def segments(lines: list[Line]) -> Segments:
    """Cut lines into sequences whose pairs are known."""
    result = Segments()
    for line in lines:
        result.borders += _borders(line)
        for segment in _Reader(result).read(line):
            if len(segment) > 1:
                result.found.append(segment)
            else:
                for placed in segment:
                    result.left.setdefault(placed.item.matrix.tensor, LONE)
    return result


def _borders(line: Line) -> Iterator[str]:
    """Places within a list where two matrices fit each other but may not be adjacent."""
    before: Item | None = None
    cuts: list[str] = []
    for entry in line:
        if isinstance(entry, Cut):
            cuts.append(entry.reason)
            continue
        why = next((reason for reason in cuts if reason in _LISTED), None)
        if before is not None and why is not None:
            writer, reader = before.matrix, entry.matrix
            if writer.shape[0] == reader.shape[1]:
                yield f"{writer.path} to {reader.path} ({why})"
        before, cuts = entry, []


class _Reader:
    """Reads one line."""

    def __init__(self, into: Segments) -> None:
        self.into = into
        self._flattening: Item | None = None

    def read(self, line: Line) -> Iterator[list[Placed]]:
        self._flattening = _flattening(line)
        run: list[Item] = []
        hint: tuple[int, ...] = ()
        for entry in [*line, Cut("")]:
            if isinstance(entry, Item):
                run.append(entry)
                continue
            if entry.reason:
                self.into.cuts.add(entry.reason)
            placed = list(self._run(run, hint))
            if len(run) == 1 and entry.reason:
                self.into.left.setdefault(run[0].matrix.tensor, entry.reason)
            yield from placed
            if run:
                hint = (placed[-1][-1].out,) if placed else hint
            run = []

    def _run(self, run: list[Item], hint: tuple[int, ...]) -> Iterator[list[Placed]]:
        """Segments of a run of matrices between two cuts."""
        if any(item.matrix.joint is None for item in run):
            yield from self._bare(run)
            return
        placed = self._attempt(run, hint, frozenset())
        transposed = frozenset(
            entry.item.matrix.shape[2:]
            for segment in placed
            for entry in segment
            if "i o" in entry.layout
        )
        yield from self._attempt(run, hint, transposed) if transposed else placed

    def _bare(self, run: list[Item]) -> Iterator[list[Placed]]:
        """Parameters without modules: the one storage order in which all of them chain."""
        shapes = [item.matrix.shape for item in run]
        flat = all(len(shape) == 2 for shape in shapes)
        bare = all(item.matrix.joint is None for item in run)
        ways = [
            (out, inp) for out, inp in ((0, 1), (1, 0))
            if flat and bare and all(a[out] == b[inp] for a, b in pairwise(shapes))
            and all(i.matrix.bias is None or i.matrix.bias[1] == i.matrix.shape[out] for i in run)
        ]  # fmt: skip
        if len(run) > 1 and len(ways) == 1:
            out, inp = ways[0]
            layout = "o i" if out == 0 else "i o"
            yield [Placed(item, layout, item.matrix.shape[out], item.matrix.shape[inp])
                   for item in run]  # fmt: skip
        else:
            if len(run) > 1:
                self.into.cuts.add(BARE)
            for item in run:
                buffer = _BUFFER.fullmatch(item.matrix.name.lower())
                self.into.left[item.matrix.tensor] = BUFFER if buffer else BARE

    def _attempt(
        self, run: list[Item], hint: tuple[int, ...], transposed_kernels: frozenset[Shape]
    ) -> list[list[Placed]]:
        parts: list[list[Placed]] = [[]]
        for index, item in enumerate(run):
            before = parts[-1][-1] if parts[-1] else None
            following = run[index + 1].matrix.shape if index + 1 < len(run) else None
            outcome = self._place(item, before, hint, following, transposed_kernels)
            if isinstance(outcome, str) and outcome == DIMENSIONS and before is not None:
                # A new segment may start here, after something unseen.
                self.into.cuts.add(DIMENSIONS)
                parts.append([])
                outcome = self._place(item, None, (before.out,), following, transposed_kernels)
            if isinstance(outcome, str):
                self.into.left[item.matrix.tensor] = outcome
                self.into.cuts.add(outcome)
                # Its output has one of the two lengths, whatever it is.
                hint = item.matrix.shape[: 1 if outcome in (GROUPED, MAY_GROUP, ONE_CHANNEL) else 2]
                parts.append([])
            else:
                if item.fronted and parts[-1]:
                    behind = parts[-1][-1]
                    parts[-1][-1] = replace(behind, item=replace(behind.item, normed=True))
                parts[-1].append(outcome)
        return [part for part in parts if part]

    def _place(
        self, item: Item, before: Placed | None, hint: tuple[int, ...], following: Shape | None,
        transposed_kernels: frozenset[Shape],
    ) -> Placed | str:  # fmt: skip
        """The matrix after `before`, or why it cannot be placed."""
        shape = item.matrix.shape
        if len(shape) not in PLAIN:
            return BETWEEN
        if len(shape) == 2:
            return self._linear(item, before)
        if item.matrix.joint != ".":
            return AXES
        if before is not None and len(before.item.matrix.shape) != len(shape):
            return DIMENSIONS
        written = before.out if before else None
        first, second = shape[:2]
        outs = self._written(item)
        # For each way: does it read its input, and write as many channels as bias and norm have?
        plain = written in (None, second) and outs <= {first}
        spread = any(n > 1 for n in shape[2:])
        even = spread and may_be_transposed(item)
        # A reader of a concatenation has the shape of a transposed map: evidence must exclude it.
        shown = even or (outs == {second} and first != second)
        transposed = written in (None, first) and outs <= {second} and spread and shown
        grouped = outs <= {first} and _may_group(written, first, second)
        if written is None:
            return self._first(item, hint, following, plain=plain, transposed=transposed, even=even)
        if plain and transposed and (even or shape[2:] in transposed_kernels):
            return ORIENTATION
        if plain:
            return Placed(item, PLAIN[len(shape)], first, second)
        if transposed and grouped:
            fits = [n for n in (first, second) if following and _may_read(following, n)]
            if len(fits) != 1 or first == second:
                return ORIENTATION
            transposed = fits == [second]
        if transposed:
            return Placed(item, _TRANSPOSED[len(shape)], second, first)
        if not grouped:
            return DIMENSIONS
        if may_be_transposed(item):
            return MAY_TRANSPOSE
        return GROUPED if second == 1 else MAY_GROUP

    def _first(
        self, item: Item, hint: tuple[int, ...], following: Shape | None,
        *, plain: bool, transposed: bool, even: bool,
    ) -> Placed | str:  # fmt: skip
        """A convolution whose input is not known."""
        shape = item.matrix.shape
        first, second = shape[:2]
        reads = following[1] if following is not None else None
        if second not in hint and any(_may_group(written, first, second) for written in hint):
            return MAY_TRANSPOSE if even else ONE_CHANNEL if second == 1 else MAY_GROUP
        if second == 1 and first > 1:
            return ONE_CHANNEL
        if plain and transposed and first == second and even:
            return ORIENTATION
        if even and goes_up(item.matrix.path) and not item.matrix.bias and item.channels is None:
            return MAY_TRANSPOSE
        if plain and transposed and reads == second != first:
            # Transposed, or plain before a grouped one.
            if following is not None and _may_group(first, following[0], second):
                return ORIENTATION
            plain = False
        if plain:
            return Placed(item, PLAIN[len(shape)], first, second)
        if transposed:
            return Placed(item, _TRANSPOSED[len(shape)], second, first)
        return ORIENTATION

    def _linear(self, item: Item, before: Placed | None) -> Placed | str:
        out, inp = item.matrix.shape
        if self._written(item) - {out}:
            return BETWEEN
        if before is None or before.out == inp:
            return Placed(item, "o i", out, inp)
        convolved = len(before.item.matrix.shape) > 2
        if convolved and inp % before.out == 0 and item is self._flattening:
            return Placed(item, "o (i s)", out, before.out)
        return DIMENSIONS

    def _written(self, item: Item) -> set[int]:
        """Lengths of the output, from the bias and the subsequent BatchNorm."""
        lengths = {item.matrix.bias[1]} if item.matrix.bias else set()
        return lengths | ({item.channels} if item.channels is not None else set())


def _flattening(line: Line) -> Item | None:
    """The linear map that may read a flattened image: the first after all convolutions."""
    items = [item for item in line if isinstance(item, Item)]
    flat = [index for index, item in enumerate(items) if len(item.matrix.shape) == 2]
    spread = [index for index, item in enumerate(items) if len(item.matrix.shape) > 2]
    return items[flat[0]] if flat and spread and flat[0] > spread[-1] else None


def _may_read(shape: Shape, written: int) -> bool:
    """Whether a matrix can read so many channels, in groups or after flattening."""
    out, inp = shape[:2]
    if len(shape) == 2:
        return inp % written == 0
    return written == inp or _may_group(written, out, inp)


def _may_group(written: int | None, out: int, per_group: int) -> bool:
    """Whether a grouped convolution can read so many channels."""
    if written is None or written <= per_group or written % per_group:
        return False
    return out % (written // per_group) == 0
