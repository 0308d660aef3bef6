"""In which order modules run, as far as their names, numbers and shapes show it.

A line holds the matrices of a module in the order of use, with a cut wherever it is not known what
stands between two of them. A cut costs a pair; a wrong pair would be a false statement.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from flagscope.arch.reading.modules import Matrix, Module
from flagscope.arch.reading.norm_names import norm_owners, norms_stand_behind, numbered
from flagscope.arch.reading.words import runs_in_sequence

_EMBEDDING = re.compile(
    r"(?:.*_)?(?:emb|embed|embeds|embedding|embeddings|wte|wpe|lookup|w_e|w_pos)(?:_.*)?|.*embeddings?"
)
# What stands beside the main path of a block, or scales its channels.
_ASIDE = re.compile(
    r"(?:\w*_)?(?:downsample|shortcut|skip|identity|residual|se|squeeze|nin|res_?conv|aux)\d*"
    r"(?:_\w+)?"
)
_PLACE = r"(?:_?(?:blocks?|layers?|path|net|network|modules?|stages?|convs?|stack|part|maps?))?\d*"
_RANKS = tuple(
    re.compile(rf"(?:{words}){_PLACE}")
    for words in (
        r"stem|input|in|first|initial|start|patch_embed|conv_in|proj_in|in_proj|pre|from_rgb",
        r"(?:\w*_)?(?:convs?|features?|feature_extractor|backbone|cnn|body|trunk|encoder|enc|"
        r"layers?|blocks?|stages?|downs|down_?(?:blocks?|path|layers?)|hiddens?|res|groups?|net|"
        r"main|model)",
        r"bottleneck|middle|mid|neck|bridge",
        r"decoder|dec|ups|up_?(?:blocks?|path|layers?)",
        r"(?:\w*_)?(?:fcs?|classifier|head|linears?|lin|dense|mlp)",
        r"output|out|final|last|logits|top|conv_out|proj_out|to_rgb",
    )
)
# A map of such a name is its module's only business; one of any other may stand beside more.
_PLAIN = re.compile(r"(?:conv\w*|linear|lin|fc|dense|layer|map|op|affine|proj|weight|w|kernel)\d*")
_WEIGHTS = re.compile(r"[wW]_?|weights?_?")
# Lists of these are never sequences, whatever their numbers.
_ALWAYS_PARALLEL = re.compile(r".*(?:expert|branch|tower|member|ensemble|critic|codebook)e?s?")

ORDER = "the order in which they are used is not known"
UNNAMED = "what it is connected to is not known"
ASIDE = "beside the main path of a block"
BETWEEN = "something that could not be read stands between them"
PARALLEL = "they may stand side by side"
BORDER = "what stands at the border of two modules is not known"
GATE = "one of three may be the gate of the first"
MISSING = "a module is missing between them"


@dataclass(frozen=True)
class Item:
    """A matrix in a line.

    Attributes
    ----------
    norm, channels
        Path of the BatchNorm directly behind it, and its length.
    normed
        Whether another norm stands behind it, or one whose place is not known.
    """

    matrix: Matrix
    norm: str | None = None
    normed: bool = False
    channels: int | None = None

    @property
    def written(self) -> int:
        """Length of what it writes, by its bias or norm where it has one."""
        if self.matrix.bias is not None:
            return self.matrix.bias[1]
        return self.matrix.shape[0] if self.channels is None else self.channels


@dataclass(frozen=True)
class Cut:
    """A place where it is not known what follows, and why."""

    reason: str


Line = list[Item | Cut]


@dataclass(frozen=True)
class _Entry:
    """Something in a module: a line of its own, or a norm (`channels` those of a BatchNorm)."""

    name: str
    stem: str
    number: int | None
    position: int
    line: Line
    module: Module | None = None

    @property
    def is_norm(self) -> bool:
        return not self.line and self.module is not None

    @property
    def channels(self) -> int | None:
        return self.module.batchnorm if self.module else None


class LineReader:
    """Reads the lines of a model.

    Parameters
    ----------
    used
        Tensors that are read already, as attention or as MLPs of its layers.
    ordered
        Whether the order of tensors can be that of use.
    """

    def __init__(self, root: Module, used: Collection[str], *, ordered: bool) -> None:
        self.root, self.used, self.ordered = root, used, ordered
        self.unplaced_norms: list[str] = []
        self.beside: list[Line] = []
        self._behind = norms_stand_behind(root, ordered=ordered)

    def lines(self) -> list[Line]:
        """The whole model as a line, and those beside it: shortcuts, gates of channels."""
        return [self._of(self.root), *self.beside]

    def _of(self, module: Module) -> Line:
        entries = list(self._entries(module))
        series: dict[tuple[str, bool], list[_Entry]] = defaultdict(list)
        for entry in entries:
            if not entry.is_norm:
                series[entry.stem, entry.number is None].append(entry)
        norms = [entry for entry in entries if entry.is_norm]
        owners = norm_owners(
            [norm.name for norm in norms],
            {entry.name: _is_convolution(entry.line) for entry in entries if not entry.is_norm},
        )
        lines = [
            (
                stem,
                min(e.position for e in found),
                self._series(stem, found, norms, module, owners),
            )
            for (stem, _), found in series.items()
        ]
        if len(lines) == 1:
            stem, _, line = lines[0]
            plain = numbered(stem)[1] is not None or _PLAIN.fullmatch(stem.lower())
            alone = len(entries) - len(norms) == 1 and len(line) == 1
            return [Cut(UNNAMED), *line, Cut(UNNAMED)] if alone and stem and not plain else line
        return self._several(lines)

    def _entries(self, module: Module) -> Iterator[_Entry]:
        for name, child in module.children.items():
            stem, number = numbered(name)
            yield _Entry(name, stem, number, child.position, self._entry_line(child), child)
        for matrix in module.own:
            if matrix.parent == module.path:  # a parameter of the module itself
                stem, number = numbered(matrix.name)
                read = matrix.tensor not in self.used and not _is_embedding(matrix.name)
                line: Line = [Item(matrix)] if read else [Cut(BETWEEN)]
                yield _Entry(matrix.name, stem, number, matrix.position, line)

    def _entry_line(self, child: Module) -> Line:
        if child.vector is not None or child.batchnorm is not None:
            return []
        if not child.children:
            plain = len(child.own) == 1 and set(child.tensors) <= {"weight", "bias"}
            if not plain or child.own[0].joint != ".":
                read = [m for m in child.own if m.joint is None and len(child.own) > 1]
                return self._of(child) if read else [Cut(BETWEEN)]
            if child.own[0].tensor in self.used or _is_embedding(child.name):
                return [Cut(BETWEEN)]
            return [Item(child.own[0])]
        if child.name == "parametrizations" or "parametrizations" in child.children:
            return [Cut(BETWEEN)]
        if "weight" in child.tensors or any(m.tensor in self.used for m in child.own):
            return [Cut(BETWEEN), *self._of(child), Cut(BETWEEN)]
        return self._of(child)

    def _series(
        self,
        stem: str,
        entries: Sequence[_Entry],
        norms: Sequence[_Entry],
        module: Module,
        owners: Mapping[str, str],
    ) -> Line:
        """Entries of one stem by their numbers, with what stands between them."""
        ordered = sorted(entries, key=lambda entry: entry.number or 0)
        parallel = self._parallel(stem, ordered, module)
        line: Line = []
        for at, entry in enumerate(ordered):
            following = ordered[at + 1] if at + 1 < len(ordered) else None
            own = self._with_norm(entry, following, norms, owners)
            if at:
                missing = stem and (entry.number or 0) - (ordered[at - 1].number or 0) > 1
                gated = at == 2 and len(ordered) == 3 and _may_be_gated(stem, ordered)
                if parallel or missing or gated:
                    line.append(Cut(parallel or (MISSING if missing else GATE)))
            line += own
        return line

    def _with_norm(
        self,
        entry: _Entry,
        following: _Entry | None,
        norms: Sequence[_Entry],
        owners: Mapping[str, str],
    ) -> Line:
        """An entry's line, its last matrix with the norm behind it."""
        line = list(entry.line)
        if not line or not isinstance(line[-1], Item):
            return line
        if entry.stem == "" and entry.number is not None:
            between = [norm for norm in norms if norm.stem == "" and norm.number is not None
                       and entry.number < norm.number
                       and (following is None or norm.number < (following.number or 0))
                       ]  # fmt: skip
            direct = len(between) == 1 and between[0].number == entry.number + 1
        else:
            between = [norm for norm in norms if owners.get(norm.name) == entry.name]
            direct = len(between) == 1
        if not between:
            return line
        line[-1] = self._behind_item(line[-1], between[0] if direct else None, entry)
        return line

    def _behind_item(self, item: Item, norm: _Entry | None, entry: _Entry) -> Item:
        out, inp = item.matrix.shape[:2]
        if norm is None or norm.module is None or norm.channels not in (out, inp):
            return replace(item, normed=True)
        by_name = entry.stem != "" or entry.number is None
        if by_name and out == inp and self._behind is None:
            self.unplaced_norms.append(norm.module.path)
            return replace(item, normed=True)
        if by_name and self._behind is False:
            return replace(item, normed=True)
        return replace(item, norm=norm.module.path, channels=norm.channels)

    def _parallel(self, stem: str, entries: Sequence[_Entry], module: Module) -> str | None:
        """Why entries of one list may stand side by side, None where they follow each other."""
        if len(entries) < 2:
            return None
        # Of numbered modules the list's own name; "branch1" is one branch, whatever lies in it.
        name = stem.rstrip("_") or module.name
        if _WEIGHTS.fullmatch(stem):
            return None
        if _ALWAYS_PARALLEL.fullmatch(name.lower()):
            return PARALLEL
        numbers = [entry.number or 0 for entry in entries]
        gaps = stem == "" and any(b - a > 1 for a, b in pairwise(numbers))
        if gaps:
            return None
        said = runs_in_sequence(name)
        if said is False:
            return PARALLEL
        sizes = [_ends(entry.line) for entry in entries]
        if any(None in one for one in sizes):
            return None if said else ORDER
        first, last = ({one[side] for one in sizes} for side in (0, 1))
        alike = len(first) == 1 or len(last) == 1
        # w1, w2 are up and down in every reading; only with three or more do readings differ.
        pair = len(entries) == 2 and sizes[0][1] == sizes[1][0] and len(first | last) > 1
        return PARALLEL if alike and not said and not pair else None

    def _several(self, lines: Sequence[tuple[str, int, Line]]) -> Line:
        """Lines of several lists or modules in one module: in order where names tell it."""
        main = [one for one in lines if not _ASIDE.fullmatch(one[0].lower())]
        aside = [one for one in lines if _ASIDE.fullmatch(one[0].lower())]
        ranks = {stem: _rank(stem) for stem, _, _ in main}
        known = all(rank is not None for rank in ranks.values())
        ordered = main
        if known:
            ordered = sorted(main, key=lambda one: (ranks[one[0]], one[1] if self.ordered else 0))
        whole: Line = []
        for at, (stem, _, line) in enumerate(ordered):
            if at:
                before = ordered[at - 1]
                sure = known and (self.ordered or ranks[before[0]] != ranks[stem])
                if not sure or not _follow(before[2], line):
                    single = not known and len(line) == len(before[2]) == 1
                    whole.append(Cut(UNNAMED if single else BORDER))
            whole += line
        if not known and whole:
            whole = [Cut(UNNAMED), *whole, Cut(UNNAMED)]
        self.beside += [line for _, _, line in aside]
        return whole


def _is_embedding(name: str) -> bool:
    return _EMBEDDING.fullmatch(name.lower()) is not None


def _rank(stem: str) -> int | None:
    """How early modules of this name run."""
    plain = stem.lower().rstrip("_")
    return next((at for at, rank in enumerate(_RANKS) if rank.fullmatch(plain)), None)


def _ends(line: Line) -> tuple[int | None, int | None]:
    """What a line's first matrix reads and its last one writes, None where that is not known."""
    first, last = line[0], line[-1]
    return (
        first.matrix.shape[1] if isinstance(first, Item) else None,
        last.written if isinstance(last, Item) else None,
    )


def _follow(before: Line, after: Line) -> bool:
    """Whether one line can only stand behind the other: it fits there, and not beside it."""
    if not before or not after:
        return False
    (entry, written), (read, _) = _ends(before), _ends(after)
    if written is None or read is None or entry is None:
        return False
    one, two = before[-1], after[0]
    flattened = (
        isinstance(one, Item) and isinstance(two, Item)
        and len(one.matrix.shape) > len(two.matrix.shape) == 2
    )  # fmt: skip
    fits = read % written == 0 if flattened else read == written
    return fits and entry != read


def _may_be_gated(stem: str, entries: Sequence[_Entry]) -> bool:
    """Whether w1, w2, w3 may be gate, down and up, as in Llama, instead of three in sequence."""
    items = [entry.line[0] for entry in entries if len(entry.line) == 1]
    shapes = [item.matrix.shape for item in items if isinstance(item, Item)]
    gated = len(shapes) == 3 and shapes[0] == shapes[2] == shapes[1][::-1]
    return gated and _WEIGHTS.fullmatch(stem) is not None


def _is_convolution(line: Line) -> bool:
    last = line[-1]
    return isinstance(last, Item) and len(last.matrix.shape) > 2
