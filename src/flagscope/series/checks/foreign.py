"""Which steps, or files of a step, hold weights of another step or of another training?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flagscope.records.series import SeriesFault
from flagscope.series.compared import Compared, detour
from flagscope.series.distances import Matrix, TensorDistances, pooled, pooled_correlation

ASIDE = 3.0
"""Detour of a file through a step, in units of that of the other files, of a foreign one."""
_SIGMAS = 4.0
_NO_MORE = 0.05  # correlation that independent weights do not exceed, whatever the samples
PLAIN = 0.3
"""Correlation of neighbours that shows a common origin."""
_PER_STEP = 5  # a first distance of more steps than this many times the next may lose all memory
_KEPT = 8


def unrelated(series: Compared | _Part) -> float:
    """Correlation that independent weights do not exceed."""
    return max(_SIGMAS * series.noise, _NO_MORE)


def foreign_files(series: Compared) -> tuple[list[SeriesFault], set[int]]:
    """Faults of files of a step that belong elsewhere, and the places of these steps."""
    places = set[int]()
    parts: dict[tuple[str, ...], _Part] = {}  # most steps have the same tensors in a file

    def part(tensors: Sequence[TensorDistances]) -> _Part:
        names = tuple(one.name for one in tensors)
        if names not in parts:
            parts[names] = _Part.of(tensors, series)
        return parts[names]

    found: dict[tuple[int, str], SeriesFault] = {}
    seen: list[tuple[int, str, _Part, _Part]] = []
    for place in range(len(series.steps)):
        files = defaultdict(list)
        for one in series.moving:
            files[one.files[place]].append(one)
        if len(files) < 2:
            continue
        for file, tensors in sorted(files.items()):
            rest = part([one for one in series.moving if one.files[place] != file])
            seen.append((place, file, part(tensors), rest))
    for place, file, inside, rest in seen:
        fault = _copied(series, place, file, inside, rest)
        if fault is not None:
            found[place, file] = fault
            places.add(place)
    # A copy or a foreign file would lead its neighbours astray: they are looked at without it, and
    # the one that has least in common with the other steps is named first.
    while True:
        faults = {
            (inside.nearest(place, places) or 0.0, place, file): fault
            for place, file, inside, rest in seen
            if (place, file) not in found
            and (fault := _aside(series, place, file, (inside, rest), places)) is not None
        }
        if not faults:
            break
        _, place, file = least = min(faults)
        found[place, file] = faults[least]
        places.add(place)
    return [found[one] for one in sorted(found)], places


@dataclass(frozen=True)
class _Part:
    """Some tensors of a series, such as those of a file, and the distances of steps by them."""

    tensors: Sequence[TensorDistances]
    same: NDArray[np.bool_]
    far: Matrix
    correlation: Matrix
    noise: float

    @classmethod
    def of(cls, tensors: Sequence[TensorDistances], series: Compared) -> _Part:
        shapes = series.steps[0].headers
        matrices = [one for one in tensors if len(shapes[one.name].shape) > 1]
        same = np.logical_and.reduce([one.same for one in tensors])
        return cls(tensors, same, pooled(tensors), *pooled_correlation(matrices))

    def nearest(self, place: int, left: set[int]) -> float | None:
        """Largest correlation of a step's matrices with another; `left` are passed over."""
        if not self.correlation.size:
            return None
        others = np.delete(self.correlation[place], [place, *(left - {place})])
        return float(others.max()) if others.size and np.isfinite(others).all() else None


def _copied(
    series: Compared, place: int, file: str, inside: _Part, rest: _Part
) -> SeriesFault | None:
    """A file that holds what another step holds, where the other files do not."""
    for other in np.flatnonzero(inside.same[place] & ~rest.same[place]).tolist():
        own = detour(inside.far, place, [other])
        theirs = detour(inside.far, other, [place])
        if own is None or theirs is None or (own, place) < (theirs, other):
            continue  # it is the other one that lies aside; at the start both are alike: the later
        mine, name = series.steps[place].place.name, series.steps[other].place.name
        unsure = "" if own > 1.25 * theirs else f" It may be {name} that is wrong."
        return SeriesFault(
            code="foreign-shard",
            steps=[mine],
            plain=f"{file} of {mine} holds the weights of {name}; its other files do not.",
            evidence=f"All {sum(one.count for one in inside.tensors):,} samples of its "
            f"{len(inside.tensors):,} tensors are equal to those of {name}.{unsure}",
            tensors=[one.name for one in inside.tensors[:_KEPT]],
        )
    return None


def _aside(
    series: Compared, place: int, file: str, parts: tuple[_Part, _Part], left: set[int]
) -> SeriesFault | None:
    """A file whose tensors lie off the way of their neighbours, where the others lie on it.

    `parts` are its tensors and those of the other files; `left` are steps that are passed over.
    """
    inside, rest = parts
    name = series.steps[place].place.name
    own, others = detour(inside.far, place, left), detour(rest.far, place, left)
    if own is None or others is None:
        return None
    nearest, usual = inside.nearest(place, left), rest.nearest(place, left)
    lost = nearest is not None and nearest < unrelated(inside)
    kept = usual is not None and usual > PLAIN
    around = set(range(len(series.steps))) - left
    inner = min(around) < place < max(around)
    if not (inner and own > ASIDE * others) and not (lost and kept):
        return None
    further = ""
    if nearest is not None:
        further = f"; correlation with the nearest step {nearest:.2f}"
    return SeriesFault(
        code="foreign-shard",
        steps=[name],
        plain=f"{file} of {name} holds weights that do not belong to this step.",
        evidence=f"The way through them is {own:.1f} times the way past them, and "
        f"{others:.1f} times in the other files{further}. Which step or training they are of is "
        "not known.",
        tensors=[one.name for one in inside.tensors[:_KEPT]],
    )


def foreign_steps(
    series: Compared, copies: set[int], partly: set[int]
) -> tuple[list[SeriesFault], set[int]]:
    """Faults of steps that have nothing in common with the others, and their places.

    Copies of other steps are passed over. So are those with a foreign file (`partly`), except that
    a step which has something in common with one of them is not foreign.
    """
    left = copies | partly
    faults, places = [], set[int]()
    size = len(series.steps)
    if not series.correlation.size or size < 3:
        return [], places
    limit = unrelated(series)
    for place in range(size):
        others = [other for other in range(size) if other != place and other not in left]
        if len(others) < 2 or place in left:
            continue
        values = np.delete(series.correlation[place], [place, *(copies - {place})])
        if not (values < limit).all():  # also where one is unknown
            continue
        neighbours = _around(others, place)
        bound = float(series.correlation[neighbours[0], neighbours[1]])
        # A step between two lies no further from them than they from each other.
        between = neighbours[0] < place < neighbours[1]
        own = float(series.correlation[place, list(neighbours)].mean())
        if not (bound - own > limit if between else bound > PLAIN):
            continue
        if not _as_dense(series, place, neighbours):
            continue
        name = series.steps[place].place.name
        first = place == 0
        best = float(values.max())
        names = " and ".join(series.steps[other].place.name for other in neighbours)
        faults.append(
            SeriesFault(
                code="foreign-initialisation" if first else "foreign-step",
                steps=[name],
                plain=f"{name} is not what the later steps were trained from, as far as samples "
                "show."
                if first
                else f"{name} has nothing in common with the other steps: it is of another "
                "training, or of another start.",
                evidence=f"Correlation with the nearest step {best:.3f}, by chance up to "
                f"{_SIGMAS * series.noise:.3f}; {names} correlate at {bound:.2f}."
                + (
                    " A training that forgets its start between two steps looks the same."
                    if first
                    else ""
                ),
            )
        )
        places.add(place)
    return faults, places


def another_training(series: Compared, left: set[int]) -> tuple[list[SeriesFault], int | None]:
    """A fault where all later steps have nothing in common with all earlier ones, and its place."""
    places = [place for place in range(len(series.steps)) if place not in left]
    limit = unrelated(series)
    for cut in range(2, len(places) - 1) if series.correlation.size else ():
        early, late = places[:cut], places[cut:]
        across = series.correlation[np.ix_(early, late)]
        bound = min(series.correlation[early[-2], early[-1]], series.correlation[late[0], late[1]])
        if not (across < limit).all() or not bound > PLAIN:
            continue
        name, before = series.steps[late[0]].place.name, series.steps[early[-1]].place.name
        fault = SeriesFault(
            code="restart",
            steps=[name],
            plain=f"{name} and the steps after it are of another training than {before} and those "
            "before it: it began anew from another start.",
            evidence=f"No step before correlates with one after by more than {across.max():.3f}; "
            f"by chance up to {_SIGMAS * series.noise:.3f}. Neighbours on either side correlate at "
            f"{bound:.2f} and more.",
        )
        return [fault], late[0]
    return [], None


def _around(others: Sequence[int], place: int) -> tuple[int, int]:
    before = [other for other in others if other < place]
    after = [other for other in others if other > place]
    if before and after:
        return before[-1], after[0]
    return (before[-2], before[-1]) if before else (after[0], after[1])


def _as_dense(series: Compared, place: int, neighbours: tuple[int, int]) -> bool:
    """Whether the step lies about as near, in steps of training, as the others to each other."""
    numbers = [series.steps[one].place.number for one in (place, *neighbours)]
    if place != 0 or any(number is None for number in numbers):
        return True
    own, first, second = (number or 0 for number in numbers)
    return first - own <= _PER_STEP * max(1, second - first)
