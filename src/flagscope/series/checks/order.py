"""Does the way through the steps, in the order of their numbers, lead from each to the nearest?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from flagscope.records.series import SeriesFault
from flagscope.series.checks.untrained import Untrained, untrained
from flagscope.series.checks.words import named
from flagscope.series.compared import Compared
from flagscope.series.distances import Matrix

SHORTER = 0.8
"""Length of the way through exchanged steps, in units of that of the given order, at most."""
AGREE = 0.7
"""Share of tensors, at least, by which the way is shorter too."""
_LEAST = 4
# Up to so many steps every order is weighed. A way longer by at most this share may be right too.
_FEW, _NEARLY = 7, 0.05


def right_order(series: Compared) -> list[int]:
    """Places in the order that the samples suggest: the given one if no other is plainly shorter.

    Of at most seven steps the shortest of all ways is taken, if it is a fifth shorter or more where
    it differs, in most tensors. Of more, steps are exchanged by two, and moved one at a time, as
    long as that makes the way through the steps concerned as much shorter. A step that looks as
    before a first update comes first, whatever the distances.
    """
    order = list(range(len(series.steps)))
    if len(order) < _LEAST or not series.far.size:
        return order
    start = untrained(series)
    if start is not None and start.place > 0:
        order = _begun_with(start.place, series.far)
    if len(order) <= _FEW:
        ways = _ways(len(order), start)
        shortest = _oriented(min(ways, key=lambda one: _length(series.far, one)), start)
        plain = _ratio(series.far, order, shortest) <= SHORTER
        return shortest if plain and _agreed(series, order, shortest) else order
    for _ in range(len(order)):
        change = next(
            (one for one in _changes(series.far, order) if _agreed(series, order, one)), None
        )
        if change is None:
            break
        order = change
    return _oriented(order, start)


def _begun_with(place: int, far: Matrix) -> list[int]:
    """The given order with one step in front: moved there, or exchanged with the first."""
    given = list(range(len(far)))
    moved = [place, *given[:place], *given[place + 1 :]]
    exchanged = list(given)
    exchanged[0], exchanged[place] = place, 0
    return min((exchanged, moved), key=lambda one: _length(far, one))


def _oriented(order: list[int], start: Untrained | None) -> list[int]:
    """A way and its reverse are equally long: the one that is nearer to the given order.

    Unless one of the two begins with the step that looks as before a first update.
    """
    if start is not None and start.place in (order[0], order[-1]):
        return order if order[0] == start.place else order[::-1]
    return min((order, order[::-1]), key=lambda one: len(_moved(one)))


def _ways(count: int, start: Untrained | None) -> Iterator[list[int]]:
    """All orders, each way in one direction; those that begin with the start, if one is known."""
    every = (list(one) for one in itertools.permutations(range(count)))
    if start is not None:
        return (one for one in every if one[0] == start.place)
    return (one for one in every if one[0] < one[-1])


def _length(far: Matrix, order: Sequence[int]) -> float:
    return float(sum(far[a, b] for a, b in itertools.pairwise(order)))


def wrong_order(series: Compared, order: Sequence[int]) -> list[SeriesFault]:
    """A fault that names the steps which are not where their content belongs."""
    given = list(range(len(series.steps)))
    if list(order) == given:
        return []
    ratio = _ratio(series.far, given, order)
    moved = _moved(order)
    right = ", ".join(series.steps[place].place.name for place in _stretch(order))
    start = untrained(series)
    return [
        SeriesFault(
            code="wrong-order",
            steps=[series.steps[place].place.name for place in moved],
            plain=f"{named([series.steps[place] for place in moved])} are not in the order of "
            "their content.",
            evidence=f"In the order {right} the way through them is {ratio:.2f} of that in the "
            f"order of the names.{_first(series, start)}{_others(series, order, start)}",
        )
    ]


def _first(series: Compared, start: Untrained | None) -> str:
    if start is None or start.place == 0:
        return ""
    name = series.steps[start.place].place.name
    return (
        f" In {name} {start.constants:,} tensors hold 1 throughout, or 0, as before a first "
        "update; in the steps before it they do not."
    )


def _others(series: Compared, order: Sequence[int], start: Untrained | None) -> str:
    """What distances leave open: the direction of the way, and ways that are nearly as short."""
    said = ""
    back = _moved(order[::-1])
    if start is None and len(back) == len(_moved(order)):
        names = named([series.steps[place] for place in back])
        said = f" The other way round it is as long, and {names} are those out of place."
    if len(order) > _FEW:
        return said
    most = (1 + _NEARLY) * _length(series.far, order)
    short = (way for way in _ways(len(order), start) if _length(series.far, way) <= most)
    near = [way for way in (_oriented(one, start) for one in short) if way != list(order)]
    found = [", ".join(series.steps[one].place.name for one in _stretch(way)) for way in near[:2]]
    return f"{said} Nearly as short is the way {', or '.join(found)}." if found else said


def _moved(order: Sequence[int]) -> list[int]:
    """The fewest steps that are out of place: those outside the longest rising run.

    Of two runs of one length, that with more steps which lie where the names say.
    """

    runs: list[tuple[int, int]] = []  # of the best run that ends here: length, steps in place
    before: list[int | None] = []
    for position, place in enumerate(order):
        lower = (i for i in range(position) if order[i] < place)
        last = max(lower, key=runs.__getitem__, default=None)
        length, fixed = (0, 0) if last is None else runs[last]
        runs.append((length + 1, fixed + (order[place] == place)))
        before.append(last)
    rising, end = set[int](), max(range(len(order)), key=runs.__getitem__, default=None)
    while end is not None:
        rising.add(order[end])
        end = before[end]
    moved = sorted(place for place in order if place not in rising)
    # Of two that are exchanged, either may be called the moved one: both are named.
    partners = {order[place] for place in moved if order[order[place]] == place}
    return sorted({*moved, *partners})


def _stretch(order: Sequence[int]) -> Sequence[int]:
    differ = [position for position, place in enumerate(order) if position != place]
    return order[max(0, differ[0] - 1) : differ[-1] + 2]


def _changes(far: Matrix, order: Sequence[int]) -> Iterator[list[int]]:
    """Orders in which two steps are exchanged or one is moved, the greatest gain first.

    Only those that make the way through the steps concerned short enough: T² of them are weighed,
    by at most four edges each.
    """
    size = len(order)
    # A step before the first and one after the last, at distance 0 from all.
    padded = np.pad(far[np.ix_(order, order)], 1)
    before, after = padded[:-2, 1:-1], padded[2:, 1:-1]
    near = np.diag(padded, 1)  # from each place to the next, the padding's included
    # Step i between j and j + 1, where j = -1 is in front of all.
    i, j = np.indices((size, size + 1))
    j -= 1
    old = near[i] + near[i + 1] + near[j + 1]
    new = padded[i, i + 2] + padded[j + 1, i + 1] + padded[j + 2, i + 1]
    # Next to its place, one edge is in both ways.
    both = np.where(j == i + 1, near[np.minimum(i + 1, size)], np.where(j == i - 2, near[i], 0.0))
    moves = np.where((j == i) | (j == i - 1), np.inf, _share(new - both, old - both))
    # Steps i and j exchanged; side by side that is a move.
    i, j = np.indices((size, size))
    old = near[i] + near[i + 1] + near[j] + near[j + 1]
    new = before[i, j] + after[i, j] + before[j, i] + after[j, i]
    both = np.where(j == i + 2, near[i + 1] + near[j], 0.0)  # the step between keeps its neighbours
    swaps = np.where(j < i + 2, np.inf, _share(new - both, old - both))
    found = [(moves[a, b], "move", a, b - 1) for a, b in np.argwhere(moves <= SHORTER)]
    found += [(swaps[a, b], "swap", a, b) for a, b in np.argwhere(swaps <= SHORTER)]
    for _, kind, a, b in sorted(found):
        changed = list(order)
        if kind == "swap":
            changed[a], changed[b] = changed[b], changed[a]
        else:
            changed.insert(b + 1 if b < a else b, changed.pop(a))
        yield changed


def _share(new: Matrix, old: Matrix) -> Matrix:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(old > 0, new / old, np.inf)


def _ratio(far: Matrix, before: Sequence[int], after: Sequence[int]) -> float:
    """Length of a way over that of another, of the edges that are not in both."""
    old, new = _edges(before), _edges(after)
    length = sum(far[a, b] for a, b in old - new)
    return float(sum(far[a, b] for a, b in new - old) / length) if length > 0 else 1.0


def _agreed(series: Compared, before: Sequence[int], after: Sequence[int]) -> bool:
    moving = series.moving
    shorter = [_ratio(one.rms, before, after) < 1 for one in moving]
    return bool(np.mean(shorter) >= AGREE) if shorter else False


def _edges(order: Sequence[int]) -> set[tuple[int, int]]:
    pairs = itertools.pairwise(order)
    return {(min(a, b), max(a, b)) for a, b in pairs}
