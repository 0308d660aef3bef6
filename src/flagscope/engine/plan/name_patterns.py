"""Patterns that stand for many tensor names: parts in which they differ are written as a set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import prod

# A number as a module list writes it; what is longer, or begins with a zero, is a word.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
# Each part is gone through for all names; a name of dots alone would take the square of its length.
_MOST_PARTS = 30
_RUNS = 8
_WORDS = 6
_CHARACTERS = 160

_Sets = tuple[frozenset[str], ...]


def name_patterns(names: Iterable[str], *, limit: int) -> tuple[list[str], int]:
    """At most `limit` patterns that stand for names, and how many names they leave out.

    A pattern stands for exactly the names that its sets give together; none that is not there is
    said. Dots part a name; numbers are joined before words.

    Parameters
    ----------
    names
        Of tensors, each once.
    limit
        Of the list, whose length no file sets.

    Returns
    -------
    tuple of (list of str, int)
        Patterns in the order of their first names.

    Examples
    --------
    >>> name_patterns([f"layers.{i}.{w}.weight" for i in range(3) for w in "qk"], limit=4)
    (['layers.{0-2}.{k,q}.weight'], 0)
    >>> name_patterns(["a.0.w", "a.1.w", "a.3.w", "head", "tail"], limit=2)
    (['a.{0-1,3}.w', '{head,tail}'], 0)
    """
    by_length: dict[int, list[_Sets]] = {}
    first: dict[_Sets, int] = {}
    for number, name in enumerate(names):
        parts = tuple(frozenset((part,)) for part in name.split(".", _MOST_PARTS))
        by_length.setdefault(len(parts), []).append(parts)
        first[parts] = number
    merged: list[tuple[int, _Sets]] = []
    for length, alike in by_length.items():
        here = [(first[parts], parts) for parts in alike]
        for numeric in (True, False):
            for position in range(length):
                here = _merged(here, position, numeric=numeric)
        merged += here
    merged.sort(key=lambda entry: entry[0])
    rest = sum(prod(map(len, sets)) for _, sets in merged[limit:])
    return [_written(sets) for _, sets in merged[:limit]], rest


def _merged(
    entries: Sequence[tuple[int, _Sets]], position: int, *, numeric: bool
) -> list[tuple[int, _Sets]]:
    """Entries that differ at one position alone, joined there if all of it are numbers, or none."""
    joined: dict[tuple[_Sets, bool], tuple[int, list[frozenset[str]], _Sets]] = {}
    kept: list[tuple[int, _Sets]] = []
    for order, sets in entries:
        numbers = all(_NUMBER.fullmatch(part) for part in sets[position])
        if numbers != numeric:
            kept.append((order, sets))
            continue
        rest = (*sets[:position], *sets[position + 1 :])
        before, values, example = joined.setdefault((rest, numbers), (order, [], sets))
        values.append(sets[position])
        joined[rest, numbers] = (min(before, order), values, example)
    for order, values, example in joined.values():
        union = frozenset().union(*values)
        kept.append((order, (*example[:position], union, *example[position + 1 :])))
    return sorted(kept, key=lambda entry: entry[0])


def _written(sets: _Sets) -> str:
    text = ".".join(_part(values) for values in sets)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _part(values: frozenset[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    if all(_NUMBER.fullmatch(value) for value in values):
        return f"{{{_runs(sorted(map(int, values)))}}}"
    words = sorted(values)
    more = [f"… {len(words) - _WORDS} more"] if len(words) > _WORDS else []
    return f"{{{','.join([*words[:_WORDS], *more])}}}"


def _runs(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:_RUNS]]
    return ",".join([*shown, "…"] if len(runs) > _RUNS else shown)
