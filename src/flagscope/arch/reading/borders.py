"""Orders the children of a module, as far as names determine the order of execution.

A pair crosses the border between two modules only if names say that one feeds the other, and
nothing else in the module could write what is read there, or read what is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from flagscope.arch.reading.line import (
    BORDER,
    RESIDUAL,
    UNNAMED,
    Cut,
    Item,
    Line,
    follows,
    goes_up,
    may_be_transposed,
    reads,
)

# Modules outside the main path of a block, or that scale its channels.
_ASIDE = re.compile(
    r"(?:\w*_)?(?:downsample|shortcut|skip|identity|residual|se|squeeze|nin|res_?conv|aux)\d*"
    r"(?:_\w+)?"
)
_GATES_CHANNELS = re.compile(r"(?:\w*_)?(?:se|squeeze|aux)\d*(?:_\w+)?")
_PLACE = r"(?:_?(?:blocks?|layers?|path|net|network|modules?|stages?|convs?|stack|part|maps?))?\d*"
# Prefixes that such a name may have: "item" in "item_encoder" says which of several it is.
_WHOSE = r"(?:(?P<whose>\w*)_)?"
_RANKS = tuple(
    re.compile(rf"(?:{words}){_PLACE}")
    for words in (
        r"stem|input|in|first|initial|start|patch_embed|conv_in|proj_in|in_proj|pre|from_rgb",
        rf"{_WHOSE}(?:convs?|features?|feature_extractor|backbone|cnn|body|trunk|encoder|enc|"
        r"layers?|blocks?|stages?|downs|down_?(?:blocks?|path|layers?)|hiddens?|res|groups?|net|"
        r"main|model)",
        r"bottleneck|middle|mid|neck|bridge",
        rf"{_WHOSE}(?:decoder|dec|ups?|up_?(?:convs?|blocks?|path|layers?|samples?)|deconvs?)",
        rf"{_WHOSE}(?:fcs?|classifier|head|linears?|lin|dense|mlp)",
        r"output|out|final|last|logits|top|conv_out|proj_out|to_rgb",
    )
)


@dataclass(frozen=True)
class Part:
    """A list or module within a module: the stem of its name, its position, and its line."""

    stem: str
    position: int
    line: Line

    @property
    def aside(self) -> bool:
        """Whether its name says that it is outside the main path."""
        return _ASIDE.fullmatch(self.stem.lower()) is not None


# Networks have a few parallel modules. If there are more, each is compared only with the next.
_MOST_PARTS = 64


@dataclass(frozen=True)
class Joined:
    """Parts as one line, separate lines, and borders where maps fit but no pair is claimed."""

    line: Line
    beside: list[Line]
    borders: list[str]


def rank(stem: str) -> int | None:
    """Position in the order of execution that a module's name implies.

    Examples
    --------
    >>> [rank(name) for name in ("stem", "user_encoder", "decoder", "head", "mix")]
    [0, 1, 3, 4, None]
    """
    named = _named(stem)
    return named[1] if named else None


def _whose(stem: str) -> str:
    named = _named(stem)
    return named[2] if named else ""


def _named(stem: str) -> tuple[int, int, str] | None:
    """The reading of a name that leaves the shortest prefix, as (prefix length, …)."""
    plain = stem.lower().rstrip("_")
    readings = [
        (len(whose), position, whose)
        for position, pattern in enumerate(_RANKS) if (match := pattern.fullmatch(plain))
        for whose in (match.groupdict().get("whose") or "",)
    ]  # fmt: skip
    return min(readings, default=None)


def join(parts: Sequence[Part], *, ordered: bool) -> Joined:
    """The parts of one module as a line, in the order that names imply.

    Parameters
    ----------
    parts
        The lists and modules in it.
    ordered
        Whether the order of tensors can be that of use; this affects only the list of borders.
    """
    main = [part for part in parts if not part.aside]
    aside = [part for part in parts if part.aside]
    ranks = {part.stem: rank(part.stem) for part in main}
    few = len(main) <= _MOST_PARTS
    known = few and all(value is not None for value in ranks.values())
    if known:
        main.sort(key=lambda part: (ranks[part.stem], part.position if ordered else 0))
    crossed = [
        known
        and _crossed(before, after, [part for part in parts if part not in (before, after)], ranks)
        for before, after in pairwise(main)
    ]
    whole: Line = []
    for index, part in enumerate(main):
        if index and not crossed[index - 1]:
            single = not known and len(part.line) == len(main[index - 1].line) == 1
            whole.append(Cut(UNNAMED if single else BORDER))
        whole += part.line
    if whole and not (known and all(crossed)):
        cut = Cut(BORDER if known else UNNAMED)
        whole = [cut, *whole, cut]
    if any(_GATES_CHANNELS.fullmatch(part.stem.lower()) is None for part in aside):
        whole.append(Cut(RESIDUAL))  # a shortcut is added to the output of the block
    claimed = {(before.stem, after.stem) for (before, after), sure in zip(pairwise(main), crossed,
                                                                 strict=True) if sure}  # fmt: skip
    return Joined(whole, [part.line for part in aside], list(_borders(main, claimed)))


def _crossed(
    before: Part, after: Part, others: Sequence[Part], ranks: dict[str, int | None]
) -> bool:
    """Whether one part feeds the next, and no other part of the module can write or read there."""
    alike = Counter(ranks.values())
    if alike[ranks[before.stem]] > 1 or alike[ranks[after.stem]] > 1:
        return False
    if _whose(before.stem) != _whose(after.stem):
        return False
    if any(_alone(part.line) and (goes_up(part.stem) or _transposed(part.line))
           for part in (before, after)):  # fmt: skip
        return False
    if any(reads(before.line, other.line) or reads(other.line, after.line) for other in others):
        return False
    return follows(before.line, after.line)


def _alone(line: Line) -> bool:
    return len(line) == 1


def _transposed(line: Line) -> bool:
    return any(isinstance(item, Item) and may_be_transposed(item) for item in line)


def _borders(main: Sequence[Part], claimed: set[tuple[str, str]]) -> Iterator[str]:
    """Places where the output of one part fits the input of a later one, without a pair."""
    for before, after in combinations(main, 2) if len(main) <= _MOST_PARTS else pairwise(main):
        last, first = _last(before.line), _first(after.line)
        named = rank(before.stem) is not None and rank(after.stem) is not None
        small = _alone(before.line) and _alone(after.line) and not named
        if last is None or first is None or small or (before.stem, after.stem) in claimed:
            continue
        if last.written == first.matrix.shape[1]:
            yield f"{last.matrix.path} to {first.matrix.path} ({BORDER})"


def _first(line: Line) -> Item | None:
    return next((item for item in line if isinstance(item, Item)), None)


def _last(line: Line) -> Item | None:
    return next((item for item in reversed(line) if isinstance(item, Item)), None)
