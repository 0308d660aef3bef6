"""Decides whether the modules of a numbered list run in sequence or may be parallel."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flagscope.arch.reading.borders import rank
from flagscope.arch.reading.line import (
    BETWEEN,
    GATE,
    MISSING,
    ORDER,
    PARALLEL,
    Item,
    Line,
    ends,
)
from flagscope.arch.reading.modules import Module
from flagscope.arch.reading.norm_names import numbered
from flagscope.arch.reading.words import is_embedding, runs_in_sequence

_WEIGHTS = re.compile(r"[wW]_?|weights?_?")
# Lists with these names are never sequences, whatever their numbers.
_ALWAYS_PARALLEL = re.compile(r".*(?:expert|branch|tower|member|ensemble|critic|codebook)e?s?")
# "net1" and "net2" may be parallel; "layer1" and "layer2" are not.
_TWINS = re.compile(
    r"(?:\w*_)?(?:nets?|networks?|mlps?|models?|modules?|encoders?|decoders?|backbones?|actors?|"
    r"critics?|generators?|discriminators?|classifiers?|trunks?|policy|policies|cnns?|ffns?|ff|"
    r"students?|teachers?|agents?|views?|sides?|siamese|features?|feed_?forwards?|seq|sequential|"
    r"value_net|q_net|experts?|players?|streams?|main|body)_?"
)
_ADDITIVE = re.compile(
    r".*(?:att|attn|attention|align|score|scorer|additive|bahdanau|pointer|glu|gate|gated|gating|"
    r"highway|bilinear|film|fusion|maxout|compare|similarity)\d*"
)
_PLURAL = re.compile(r".*[^s]s\d*")
_TRUNK = re.compile(r"(?:\w*_)?linears")
_LONGEST_GAP = 6


@dataclass(frozen=True)
class Entry:
    """An entry of a module: a line, or a norm (`channels` are those of a BatchNorm)."""

    name: str
    stem: str
    number: int | None
    position: int
    line: Line
    module: Module | None = None

    @property
    def is_norm(self) -> bool:
        """Whether it holds neither a matrix nor anything that could not be read."""
        return not self.line and self.module is not None

    @property
    def channels(self) -> int | None:
        """Channels of a BatchNorm."""
        return self.module.batchnorm if self.module else None

    @property
    def maps(self) -> int:
        """Number of its matrices."""
        return sum(isinstance(item, Item) for item in self.line)


def is_sequential(entries: Sequence[Entry]) -> bool:
    """Whether the numbers in a module are those of an nn.Sequential: with gaps, or with norms.

    Activations have numbers but no tensors. Keys that are sizes (2, 4, 8) leave gaps as well, but
    start late, or double.
    """
    entries = [entry for entry in entries if not entry.stem]
    numbers = sorted(entry.number for entry in entries if entry.number is not None)
    if not numbers or len(numbers) != len(entries):
        return False
    steps = [b - a for a, b in pairwise(numbers)]
    norms = any(entry.is_norm for entry in entries)
    doubling = len(numbers) > 2 and all(b == 2 * a for a, b in pairwise(numbers))
    kernels = [
        set(item.matrix.shape[2:]) == {entry.number}
        for entry in entries for item in entry.line[:1] if isinstance(item, Item)
    ]  # fmt: skip
    if numbers[0] > 1 or doubling or (len(kernels) > 1 and all(kernels)):
        return False
    return (norms or max(steps, default=0) > 1) and max(steps, default=0) <= _LONGEST_GAP


def doubt(
    stem: str,
    entries: Sequence[Entry],
    module: Module,
    *,
    sequential: bool,
    inputs: Collection[int],
) -> str | None:
    """Why the entries of a list may not follow each other; None if they do.

    Parameters
    ----------
    stem
        Stem of their names, "" for numbers alone.
    entries
        The entries by number.
    module
        The module that holds them.
    sequential
        Whether the module is an nn.Sequential.
    inputs
        Lengths that matrices of the model read but none writes.
    """
    if len(entries) < 2:
        return None
    # For numbered modules, the name of the list; "branch1" is one branch, whatever it contains.
    name = (stem.rstrip("_") or module.name).lower()
    if _ALWAYS_PARALLEL.fullmatch(name):
        return PARALLEL
    said = runs_in_sequence(name)
    if sequential:
        return PARALLEL if said is False and _PLURAL.fullmatch(name) else None
    sizes = [ends(entry.line) for entry in entries]
    square = len({size for pair in sizes for size in pair}) == 1
    if square and len(entries) == 2 and _may_be_summed(stem, module):
        return PARALLEL
    if _WEIGHTS.fullmatch(stem):
        return None
    if _is_trunk(name, sizes):
        return None
    # w1, w2 are up and down in every reading; readings differ only from three on.
    leaves = all(len(entry.line) == 1 for entry in entries)
    pair = len(entries) == 2 and leaves and sizes[0][1] == sizes[1][0] and not square
    if said is False or (stem and _TWINS.fullmatch(name) and not pair):
        return PARALLEL
    if any(None in size for size in sizes) or not (said or leaves):
        return None if said else ORDER
    alike = any(len({size[side] for size in sizes}) == 1 for side in (0, 1))
    if alike and not said and not pair:
        return PARALLEL
    return PARALLEL if _joined(stem, entries, sizes, inputs) else None


def _may_be_summed(stem: str, module: Module) -> bool:
    """Whether two square maps may act on two inputs, or gate each other, by the names around them.

    For example W1 h + W2 s before V, or linear1 * sigmoid(linear2).
    """
    path = f"{module.path}.{stem}".lower().split(".")
    near = {child.lower() for child in [*module.children, *module.tensors]} & {"v", "u", "va", "ua"}
    return bool(near) or any(_ADDITIVE.fullmatch(part) for part in path)


def _is_trunk(name: str, sizes: Sequence[tuple[int | None, int | None]]) -> bool:
    """Whether linears can only run in sequence, such as NeRF's, which read the input twice."""
    (start, width), *rest = sizes
    if _TRUNK.fullmatch(name) is None or start is None or width is None or start == width:
        return False
    again = [read == width + start for read, _ in rest]
    return any(again) and all(
        written == width and (read == width or twice)
        for (read, written), twice in zip(rest, again, strict=True)
    )


def _joined(
    stem: str, entries: Sequence[Entry], sizes: Sequence[tuple[int | None, int | None]],
    inputs: Collection[int],
) -> bool:  # fmt: skip
    """Whether the outputs of maps of one input may be concatenated: kernels of growing size, or a
    reader of all outputs together."""
    reads, writes = ({size[side] for size in sizes} for side in (0, 1))
    if len(reads) > 1:
        return False
    kernels = [entry.line[0].matrix.shape[2:] for entry in entries
               if len(entry.line) == 1 and isinstance(entry.line[0], Item)]  # fmt: skip
    growing = len(kernels) == len(entries) and all(a < b for a, b in pairwise(kernels))
    if growing and kernels[0] and len(writes) == 1 and (not stem or len(entries) > 2):
        return True
    whole = sum(written or 0 for _, written in sizes)
    extra = writes.pop() if len(writes) == 1 else 0
    return whole in inputs or (len(entries) > 2 and whole + (extra or 0) in inputs)


def step_doubt(stem: str, entries: Sequence[Entry], index: int, *, sequential: bool) -> str | None:
    """Why an entry may not follow the previous one, in a list whose entries do so."""
    before, after = entries[index - 1].number or 0, entries[index].number or 0
    if sequential:
        return None
    if after - before > 1:
        return MISSING
    numbers = {entry.number or 0 for entry in entries}
    # fc21 and fc22 are two modules in place of fc2; ten and more follow nine.
    branching = {n // 10 for n in numbers if n > 9} if not {8, 9} & numbers else set[int]()
    if branching and (after > 9 or {before, after} & branching):
        return PARALLEL
    return GATE if index == 2 and len(entries) == 3 and _may_be_gated(stem, entries) else None


def _may_be_gated(stem: str, entries: Sequence[Entry]) -> bool:
    """Whether w1, w2, w3 may be gate, down and up, as in Llama, and not three in sequence."""
    items = [entry.line[0] for entry in entries if len(entry.line) == 1]
    shapes = [item.matrix.shape for item in items if isinstance(item, Item)]
    gated = len(shapes) == 3 and shapes[0] == shapes[2] == shapes[1][::-1]
    return gated and _WEIGHTS.fullmatch(stem) is not None


def between_doubt(before: Entry, after: Entry, others: Sequence[Entry]) -> str | None:
    """Why something else in the module may come between two entries of a list."""
    written, read = ends(before.line)[1], ends(after.line)[0]
    for other in others:
        known = rank(other.stem)
        if known is not None and known != rank(before.stem):
            continue
        if not other.line or written is None or is_embedding(other.name):
            continue
        entry, out = ends(other.line)
        if (entry is None and out is None) or (entry == written and out == read):
            return ORDER if other.maps else BETWEEN
    return None


@dataclass(frozen=True)
class _Row:
    """A list in a module: its name, and the input and output lengths of its members."""

    name: str
    members: Sequence[tuple[int, int]]
    convolved: bool


def taking_turns(module: Module) -> set[str]:
    """Names of the lists in a module that may alternate with another list, by number.

    If names say that one list runs before the other, that holds only if shapes allow it.
    """
    rows = list(_rows(module))
    names: set[str] = set()
    for index, row in enumerate(rows):
        for other in rows[index + 1 :]:
            n, m = sorted((len(row.members), len(other.members)))
            if n < 2 or not (m - n < 2 or m % n == 0):
                continue
            ranks = rank(row.name), rank(other.name)
            ordered = None not in ranks and ranks[0] != ranks[1]
            if (ordered or _same_base(row.name, other.name)) and not _may_alternate(row, other):
                continue
            names |= {row.name, other.name}
    return names


def _rows(module: Module) -> Iterator[_Row]:
    suffixed: dict[str, list[Module]] = {}
    for name, child in module.children.items():
        stem, number = numbered(name)
        if stem and number is not None and child.matrices:
            suffixed.setdefault(stem, []).append(child)
        members = [m for m in child.children.values() if m.matrices]
        plain = all(re.fullmatch(r"[0-9]+", key) for key in child.children)
        whole = {int(key) for key in child.children} == set(range(len(members))) if plain else False
        if whole and len(members) > 1:
            yield _row(name, members)
    for stem, members in suffixed.items():
        yield _row(stem, members)


def _row(name: str, members: Sequence[Module]) -> _Row:
    sizes = [(m.matrices[0].shape[1], m.matrices[-1].shape[0]) for m in members]
    return _Row(name, sizes, all(len(m.matrices[0].shape) > 2 for m in members))


def _same_base(name: str, other: str) -> bool:
    return name.rstrip("0123456789_") == other.rstrip("0123456789_")


def _may_alternate(row: _Row, other: _Row) -> bool:
    """Whether shapes allow members of two lists to alternate, or to be parallel."""
    if len(row.members) != len(other.members) or row.convolved != other.convolved:
        return False
    side = all(a[0] == b[0] for a, b in zip(row.members, other.members, strict=True))
    turns = [m for pair in zip(row.members, other.members, strict=True) for m in pair]
    return side or all(a[1] == b[0] for a, b in pairwise(turns))
