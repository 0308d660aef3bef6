"""Which steps hold the same weights, or nearly the same?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from flagscope.records.series import SeriesFault
from flagscope.series.checks.words import named
from flagscope.series.compared import Compared, detour
from flagscope.series.distances import Matrix
from flagscope.series.file_hashes import file_hashes
from flagscope.series.step import Step

NEAR = 0.01
"""Distance of near-equal steps in units of that of their other neighbours, at most."""
_RELATIVE = 1e-3
_STRETCH = 3  # pairs of equal steps, each next to the last, that are a repetition
_FEW = 0.05  # share of tensors that differ in what is otherwise a copy
_COARSE = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}


def equal_groups(series: Compared) -> list[list[int]]:
    """Places of the steps whose samples are all equal, in groups of two and more."""
    if not series.tensors:
        return []
    equal, seen, groups = series.equal, set[int](), []
    for place in range(len(series.steps)):
        group = [other for other in range(place, len(series.steps)) if equal[place, other]]
        if place not in seen and len(group) > 1:
            groups.append(group)
        seen.update(group)
    return groups


def misplaced(series: Compared, group: list[int]) -> list[int]:
    """Members of a group of equal steps that do not lie where their content does.

    All but the one whose neighbours lie nearest around it; none where that is not plain.
    """
    lengths = {}
    for place in group if series.far.size else ():
        length = detour(series.far, place, [other for other in group if other != place])
        if length is None:
            return []
        lengths[place] = length
    if not lengths:
        return []
    best = min(lengths, key=lambda place: lengths[place])
    rest = [place for place in group if place != best]
    return rest if all(lengths[place] > 1.25 * lengths[best] for place in rest) else []


def equal_faults(series: Compared, groups: list[list[int]]) -> list[SeriesFault]:
    """A fault for each group of equal steps, and one for all where a whole stretch is repeated."""
    again = _repeated(groups)
    faults = [_repeat(series, again)] if again else []
    for group in groups:
        if group in again:
            continue
        steps = [series.steps[place] for place in group]
        wrong = [series.steps[place] for place in misplaced(series, group)]
        count = sum(one.count for one in series.tensors)
        fits = f" The content is out of place in {named(wrong)}." if wrong else ""
        faults.append(
            SeriesFault(
                code="equal",
                steps=[step.place.name for step in steps],
                plain=f"{named(steps)} hold the same weights, as far as samples show.{fits}",
                evidence=f"All {count:,} samples of {len(series.tensors):,} tensors are "
                f"equal{_by_hash(steps)}. A training that does not move leaves equal steps too.",
            )
        )
    return faults


def _by_hash(steps: Sequence[Step]) -> str:
    """What hashes of whole files add to equal samples, where they are known."""
    known = [file_hashes(step) for step in steps]
    if None in known:
        return ""
    if len(set(known)) == 1:
        return ", and so are the SHA-256 of their files"
    return (
        "; the SHA-256 of their files are not, so that they differ in what was not sampled, or in "
        "what a file says of itself"
    )


def _repeated(groups: list[list[int]]) -> list[list[int]]:
    """The longest run of pairs of equal steps in which both go on by one step."""
    runs: list[list[list[int]]] = []
    for group in groups:
        if len(group) != 2:
            continue
        following = [[place - 1 for place in group]]
        last = next((run for run in runs if run[-1:] == following), None)
        if last is None:
            runs.append([group])
        else:
            last.append(group)
    longest = max(runs, key=len, default=[])
    return longest if len(longest) >= _STRETCH else []


def _repeat(series: Compared, pairs: list[list[int]]) -> SeriesFault:
    (first, second), (last, end) = (
        [series.steps[place].place.name for place in pair] for pair in (pairs[0], pairs[-1])
    )
    anew = pairs[0][0] < 2  # a first step may not have been saved again
    return SeriesFault(
        code="restart" if anew else "rolled-back",
        steps=[second],
        plain=f"{len(pairs):,} steps, {second} to {end}, hold again what {first} to {last} hold.",
        evidence=f"All samples are equal, step by step. A training that began anew from {first}, "
        "with equal draws, looks so, and so do steps that were saved twice.",
    )


def near_equal_faults(series: Compared, left: set[int]) -> list[SeriesFault]:
    """A fault for each two steps that are one another's rounding, or hardly differ."""
    if not series.moving or not series.far.size:
        return []
    faults = []
    rounded = _roundings(series)
    differing = np.sum([~one.same for one in series.moving], axis=0)
    few = (differing > 0) & (differing <= _FEW * len(series.moving))
    likely = np.any([*rounded.values(), few, _close(series.far)], axis=0)
    for first, second in np.argwhere(np.triu(likely & ~series.equal, 1)).tolist():
        if left & {first, second}:
            continue
        word = next((word for word, pairs in rounded.items() if pairs[first, second]), None)
        if word is not None:
            why = f"One is the other rounded to {word}, in all samples."
        elif few[first, second]:
            count = len(series.moving)
            why = (
                f"All samples of {count - differing[first, second]:,} of {count:,} tensors that "
                "move in this series are equal."
            )
        else:
            why = _near(series, first, second)
        if why:
            steps = [series.steps[first], series.steps[second]]
            faults.append(
                SeriesFault(
                    code="near-equal",
                    steps=[step.place.name for step in steps],
                    plain=f"{named(steps)} hold nearly the same weights.",
                    evidence=why,
                )
            )
    return faults


def _close(far: Matrix) -> NDArray[np.bool_]:
    """(T, T) whether `_near` may hold: no pair that it names is left out, and few others are in."""
    neighbours = np.diag(far, 1)
    longest = np.maximum(np.append(neighbours, 0.0), np.append(0.0, neighbours))
    return far <= NEAR * np.maximum(longest[:, None], longest[None, :])


def _near(series: Compared, first: int, second: int) -> str:
    around = [
        series.far[place, other]
        for place, twin in ((first, second), (second, first))
        for other in (place - 1, place + 1)
        if 0 <= other < len(series.steps) and other != twin
    ]
    usual = min((one for one in around if one > 0), default=0.0)
    apart = series.far[first, second]
    if not usual or apart > NEAR * usual:
        return ""
    relative = _relative(series, first, second)
    if relative > _RELATIVE:
        return ""
    return (
        f"Their samples differ by {relative:.1g} of their size, which is {apart / usual:.1g} "
        "of the distance to the next step."
    )


def _relative(series: Compared, first: int, second: int) -> float:
    """Distance of two steps over the size of their samples."""
    one, two = series.steps[first].values, series.steps[second].values
    names = [tensor.name for tensor in series.moving]
    over = sum(float(((one[name] - two[name]).astype(np.float64) ** 2).sum()) for name in names)
    size = sum(float((one[name].astype(np.float64) ** 2).sum()) for name in names)
    return float(np.sqrt(over / size)) if size else np.inf


def _roundings(series: Compared) -> dict[str, NDArray[np.bool_]]:
    """(T, T) by type: whether one step is the other rounded to it, in all samples that move."""
    names = [tensor.name for tensor in series.moving]

    def digests(kind: torch.dtype | None) -> NDArray[np.str_]:
        return np.array([_digest(step, names, kind) for step in series.steps])

    stored = digests(None)
    found = {}
    for word, kind in _COARSE.items():
        pairs = digests(kind)[:, None] == stored[None, :]
        found[word] = pairs | pairs.T
    return found


def _digest(step: Step, names: Sequence[str], kind: torch.dtype | None) -> str:
    """Of the samples of a step, rounded to a type; equal where the numbers are."""
    content = hashlib.blake2b(digest_size=16)
    for name in names:
        values = torch.from_numpy(step.values[name])
        wide = (values if kind is None else values.to(kind)).double() + 0.0  # -0 is 0
        content.update(wide.numpy().tobytes())
    return content.hexdigest()
