"""Patterns for many tensor names: the parts in which the names differ are written as a set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import prod

# A number as in a module list; longer digit strings, or ones with a leading zero, are words.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
# Merging goes through every part of every name: a name of dots alone would take quadratic time.
_MOST_PARTS = 30
_RUNS = 8
_WORDS = 6
_CHARACTERS = 160

_Sets = tuple[frozenset[str], ...]


def name_patterns(names: Iterable[str], *, limit: int) -> tuple[list[str], int]:
    """At most `limit` patterns for the names, and how many names they leave out.

    A pattern stands for exactly the names in the product of its sets, all of which are there. Names
    are split at dots; numbers are merged before words.

    Parameters
    ----------
    names
        Names of tensors, without duplicates.
    limit
        Length of the list, so that no file determines it.

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
    left_out = sum(prod(map(len, sets)) for _, sets in merged[limit:])
    return [_written(sets) for _, sets in merged[:limit]], left_out


def index_text(indices: Iterable[int]) -> str:
    """Sorted indices as runs, or as their first and last where they are evenly spaced.

    Examples
    --------
    >>> index_text([0, 1, 2, 5, 7, 8]), index_text(range(0, 256, 2)), index_text([4])
    ('0-2,5,7-8', '0,2,…,254', '4')
    """
    numbers = sorted(indices)
    step = numbers[1] - numbers[0] if len(numbers) > 3 else 1
    if step > 1 and numbers == [*range(numbers[0], numbers[-1] + 1, step)]:
        return f"{numbers[0]},{numbers[1]},…,{numbers[-1]}"
    return _runs(numbers)


def _merged(
    entries: Sequence[tuple[int, _Sets]], position: int, *, numeric: bool
) -> list[tuple[int, _Sets]]:
    """Merge entries that differ at one position, if that holds numbers alone or words alone."""
    joined: dict[tuple[_Sets, bool], tuple[int, list[frozenset[str]], _Sets]] = {}
    merged: list[tuple[int, _Sets]] = []
    for order, sets in entries:
        numbers = all(_NUMBER.fullmatch(part) for part in sets[position])
        if numbers != numeric:
            merged.append((order, sets))
            continue
        other_sets = (*sets[:position], *sets[position + 1 :])
        before, values, example = joined.setdefault((other_sets, numbers), (order, [], sets))
        values.append(sets[position])
        joined[other_sets, numbers] = (min(before, order), values, example)
    for order, values, example in joined.values():
        union = frozenset().union(*values)
        merged.append((order, (*example[:position], union, *example[position + 1 :])))
    return sorted(merged, key=lambda entry: entry[0])


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
