"""Infers the order in which modules run from names, numbers and shapes.

A line holds the matrices of a module in the order of use, with a cut wherever it is not known what
lies between two of them. A cut costs a pair; a wrong pair would be a false statement.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from flagscope.arch.reading.borders import Part, join
from flagscope.arch.reading.line import (
    BETWEEN,
    LISTS,
    RESIDUAL,
    UNNAMED,
    Cut,
    Item,
    Line,
    ends,
)
from flagscope.arch.reading.lists import (
    Entry,
    between_doubt,
    doubt,
    is_sequential,
    step_doubt,
    taking_turns,
)
from flagscope.arch.reading.modules import Module
from flagscope.arch.reading.norm_lists import Vector, listed_norms, unplaced_vectors
from flagscope.arch.reading.norm_names import (
    MapName,
    kind_of,
    norm_owners,
    norm_sides,
    numbered,
)
from flagscope.arch.reading.words import is_embedding

# A map of such a name is the whole content of its module; with other names there may be more.
_PLAIN = re.compile(r"(?:conv\w*|linear|lin|fc|dense|layer|map|op|affine|proj|weight|w|kernel)\d*")


class LineReader:
    """Reads the lines of a model.

    Parameters
    ----------
    used
        Tensors that are already read, as attention or as MLPs of its layers.
    ordered
        Whether the order of tensors can be that of use.
    """

    def __init__(self, root: Module, used: Collection[str], *, ordered: bool) -> None:
        self.root, self.used, self.ordered = root, used, ordered
        self.unplaced_norms: list[str] = []
        self.borders: list[str] = []
        self.beside: list[Line] = []
        self._sides = norm_sides(root, ordered=ordered)
        self._listed = listed_norms(root)
        self._placed = self._listed.paths
        written = {matrix.shape[0] for matrix in root.matrices}
        self._inputs = {matrix.shape[1] for matrix in root.matrices} - written

    def lines(self) -> list[Line]:
        """The main line of the model, and separate ones: shortcuts and channel gates."""
        return [self._of(self.root), *self.beside]

    def unplaced(self) -> list[Vector]:
        """Norms and scales whose position the lines do not show; call after `lines`."""
        return list(unplaced_vectors(self.root, self._placed))

    def _of(self, module: Module, *, turns: bool = False) -> Line:
        """The line of a module; fully cut if its list may alternate with another one."""
        among = taking_turns(module)
        entries = list(self._entries(module, among))
        series: dict[tuple[str, bool], list[Entry]] = defaultdict(list)
        for entry in entries:
            if not entry.is_norm:
                series[entry.stem, entry.number is None].append(entry)
        entries = self._with_norms(entries, module)
        sequential = is_sequential(entries)
        parts: list[Part] = []
        maps: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            if not entry.is_norm:
                maps[entry.name].append(entry)
        for (stem, _), group in series.items():
            own = dict.fromkeys(entry.name for entry in group)
            members = [entry for name in own for entry in maps[name]]
            # If a series has one entry, all that matters is whether there are others.
            names = islice(maps, 2) if len(own) == 1 else maps
            others = [entry for name in names if name not in own for entry in maps[name]]
            line = self._series(
                stem, members, others, module, sequential=sequential and not stem,
                turns=(turns and not stem) or (stem in among and group[0].number is not None),
            )  # fmt: skip
            parts.append(Part(stem, min(member.position for member in members), line))
        if len(parts) == 1:
            stem, line = parts[0].stem, parts[0].line
            plain = numbered(stem)[1] is not None or _PLAIN.fullmatch(stem.lower())
            norms = sum(entry.is_norm for entry in entries)
            alone = len(entries) - norms == 1 and len(line) == 1
            return [Cut(UNNAMED), *line, Cut(UNNAMED)] if alone and stem and not plain else line
        whole = join(parts, ordered=self.ordered)
        self.beside += whole.beside
        self.borders += whole.borders
        return whole.line

    def _entries(self, module: Module, among: Collection[str]) -> Iterator[Entry]:
        for name, child in module.children.items():
            stem, number = numbered(name)
            line = self._entry_line(child, turns=name in among)
            yield Entry(name, stem, number, child.position, line, child)
        for matrix in module.own:
            if matrix.parent == module.path:  # a parameter of the module itself
                stem, number = numbered(matrix.name)
                read = matrix.tensor not in self.used and not is_embedding(matrix.name)
                line: Line = [Item(matrix)] if read else [Cut(BETWEEN)]
                yield Entry(matrix.name, stem, number, matrix.position, line)

    def _entry_line(self, child: Module, *, turns: bool) -> Line:
        if child.norm_length is not None:
            return []
        if not child.children:
            plain = len(child.own) == 1 and set(child.tensors) <= {"weight", "bias"}
            if not plain or child.own[0].joint != ".":
                read = [m for m in child.own if m.joint is None and len(child.own) > 1]
                return self._of(child) if read else [Cut(BETWEEN)]
            if child.own[0].tensor in self.used or is_embedding(child.name):
                return [Cut(BETWEEN)]
            return [Item(child.own[0])]
        if child.name == "parametrizations" or "parametrizations" in child.children:
            return [Cut(BETWEEN)]
        if "weight" in child.tensors or any(m.tensor in self.used for m in child.own):
            return [Cut(BETWEEN), *self._of(child, turns=turns), Cut(BETWEEN)]
        return self._of(child, turns=turns)

    def _series(
        self, stem: str, entries: Sequence[Entry], others: Sequence[Entry], module: Module,
        *, sequential: bool, turns: bool,
    ) -> Line:  # fmt: skip
        """Entries of one stem by number, with what lies between them."""
        ordered = sorted(entries, key=lambda entry: entry.number or 0)
        whole = doubt(stem, ordered, module, sequential=sequential, inputs=self._inputs)
        if turns and not sequential and whole is None:
            whole = LISTS
        line: Line = []
        for index, entry in enumerate(ordered):
            if index:
                cut = whole or step_doubt(stem, ordered, index, sequential=sequential)
                if cut is None and (not sequential or others):
                    cut = between_doubt(ordered[index - 1], entry, others)
                if cut:
                    line.append(Cut(cut))
            seated = sequential and not others and len(entry.line) == 1
            line += [replace(item, seat=module.path) if seated and isinstance(item, Item) else item
                     for item in entry.line]  # fmt: skip
            if whole is None and entry.number is not None and _may_be_residual(entry):
                line.append(Cut(RESIDUAL))
        # Parallel entries have no first or last one that could be paired with others.
        return [Cut(whole), *line, Cut(whole)] if whole and line else line

    def _with_norms(self, entries: Sequence[Entry], module: Module) -> list[Entry]:
        """The entries, with the norms that numbers, names and lists assign to their maps."""
        norms = [entry for entry in entries if entry.is_norm and entry.module is not None
                 and entry.module.norm_length is not None]  # fmt: skip
        lines = {entry.name: self._with_listed(entry.line) for entry in entries}
        self._by_number(
            [entry for entry in entries if not entry.stem and entry.number is not None], lines
        )
        owners = norm_owners(
            {norm.name: norm.module.norm_length for norm in norms if norm.module},
            self._maps(entries),
        )
        for norm in norms:
            if norm.name in owners and norm.module is not None:
                name = owners[norm.name]
                lines[name] = self._by_name(lines[name], norm.module, module)
        return [replace(entry, line=lines[entry.name]) for entry in entries]

    def _maps(self, entries: Sequence[Entry]) -> Mapping[str, MapName]:
        made = sorted(entries, key=lambda entry: entry.position) if self.ordered else []
        names = [entry.name for entry in made]
        places = {name: index for index, name in enumerate(names)}
        by_name = {}
        for entry in entries:
            if entry.is_norm:
                continue
            index = places.get(entry.name, 0)
            near = names[max(index - 1, 0) : index + 2] if names else []
            last = entry.line[-1] if entry.line else None
            convolved = isinstance(last, Item) and len(last.matrix.shape) > 2
            by_name[entry.name] = MapName(
                ends(entry.line)[1], len(entry.line) == 1, convolved, frozenset(near)
            )
        return by_name

    def _with_listed(self, line: Line) -> Line:
        """A line, with the norm of the same number in another list for its last matrix."""
        last = line[-1] if line else None
        norm = self._listed.behind.get(last.matrix.tensor) if isinstance(last, Item) else None
        return _folded(line, norm) if norm is not None else line

    def _by_number(self, numbered: Sequence[Entry], lines: dict[str, Line]) -> None:
        """Assign norms between numbered entries to the previous one, and those before the first."""
        maps = sorted({entry.number or 0 for entry in numbered if not entry.is_norm})
        norms = sorted((entry for entry in numbered if entry.is_norm and entry.module is not None),
                       key=lambda entry: entry.number or 0)  # fmt: skip
        places = [norm.number or 0 for norm in norms]
        for entry in (entry for entry in numbered if not entry.is_norm):
            number = entry.number or 0
            after = bisect_right(maps, number)
            end = len(norms) if after == len(maps) else bisect_left(places, maps[after])
            behind = norms[bisect_right(places, number) : end]
            front = norms[: bisect_left(places, maps[0])] if number == maps[0] else []
            line = lines[entry.name]
            if behind and _ends_in_map(line):
                direct = len(behind) == 1 and behind[0].number == number + 1
                line = _folded(line, behind[0].module if direct else None)
                self._placed |= {norm.module.path for norm in behind if norm.module}
            if front:
                line = _fronted(line)
                self._placed |= {norm.module.path for norm in front if norm.module}
            lines[entry.name] = line

    def _by_name(self, line: Line, norm: Module, module: Module) -> Line:
        """A line with the norm of its name after or before it, as its module shows."""
        if not _ends_in_map(line):
            return line
        self._placed.add(norm.path)
        last = line[-1]
        out, inp = last.matrix.shape[:2] if isinstance(last, Item) else (0, 0)
        side = self._sides.get(kind_of(module.path))
        if norm.norm_length not in (out, inp):
            return _fronted(_folded(line, None))
        if side is None and out != inp:
            side = norm.norm_length == out
        if side is None:
            self.unplaced_norms.append(norm.path)
            return _fronted(_folded(line, None))
        if norm.batchnorm is None:
            return _fronted(_folded(line, None))
        return _folded(line, norm) if side else _fronted(line)


def _ends_in_map(line: Line) -> bool:
    return bool(line) and isinstance(line[-1], Item)


def _folded(line: Line, norm: Module | None) -> Line:
    """A line with a norm after its last matrix, folded into it if it is a BatchNorm that fits."""
    last = line[-1]
    if not isinstance(last, Item):
        return line
    fits = norm is not None and norm.batchnorm in last.matrix.shape[:2]
    if norm is None or not fits:
        return [*line[:-1], replace(last, normed=True)]
    return [*line[:-1], replace(last, norm=norm.path, channels=norm.batchnorm)]


def _fronted(line: Line) -> Line:
    first = line[0] if line else None
    return [replace(first, fronted=True), *line[1:]] if isinstance(first, Item) else line


def _may_be_residual(entry: Entry) -> bool:
    """Whether a block of several maps may add its input to its output: their widths are equal."""
    entry_width, written = ends(entry.line)
    first = next((item for item in entry.line if isinstance(item, Item)), None)
    if entry.maps < 2 or written is None or first is None:
        return False
    depthwise = len(first.matrix.shape) > 2 and first.matrix.shape[1] == 1
    unknown = entry_width is None  # the width of the input
    return unknown or written == entry_width or (depthwise and written in first.matrix.shape[:1])
