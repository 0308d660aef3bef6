"""Does each step of a run continue from the step before it, or from that of another run?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flagscope.records.series import SeriesFault
from flagscope.records.series_runs import StartAnswer
from flagscope.series.checks.branches import NEARER
from flagscope.series.checks.foreign import PLAIN, unrelated
from flagscope.series.compared import Compared, compared
from flagscope.series.step import Step
from flagscope.shortening import listed

Run = dict[int, Step]
"""Steps by their numbers, ascending."""
_AGREE = 0.7  # share of tensors by which a step lies nearer to another run
_NAMED = 4


@dataclass(frozen=True)
class Start:
    """Whether the second step of a run descends from its first.

    Attributes
    ----------
    name
        Of the first step.
    answer, of
        See `RunRecord.start_answer`; the other run, where it is one.
    own, other
        Correlation with its own start, and the largest with that of another run.
    ratio
        Distance from its own start over that from the nearest of another run.
    """

    name: str
    answer: StartAnswer = "not-compared"
    of: str | None = None
    own: float | None = None
    other: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class _Before:
    """A step from which a later one may continue."""

    run: str
    content: str  # the run whose training it is a step of, as far as the steps before it show
    step: Step


class Passages:
    """Steps of runs of one shape, each next to the steps before it.

    The first step of a run is taken at its word; each later one is of the run of the step that it
    continues from. It continues from that of another run if it lies plainly nearer to it, in most
    tensors.

    Parameters
    ----------
    runs
        By name, each not empty.
    """

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self._runs = runs
        self._content: dict[str, dict[int, str]] = {name: {} for name in runs}
        self._ratio: dict[tuple[str, int], float] = {}
        self.starts = {name: Start(run[min(run)].place.name) for name, run in runs.items()}
        """By run."""
        for number in sorted(set().union(*runs.values())):
            by_before: dict[int, list[str]] = defaultdict(list)
            for name, content in self._content.items():
                if number in runs[name]:
                    if content:
                        by_before[max(content)].append(name)
                    content[number] = content[max(content)] if content else name
            for before, names in by_before.items():
                self._pass(before, number, names)

    def faults(self) -> list[SeriesFault]:
        """Steps that are not of the training that their run starts with, or a start that is not."""
        found = []
        for name, content in self._content.items():
            usual = Counter(content.values()).most_common(1)[0][0]
            odd = [number for number, of in content.items() if of != usual]
            if odd and odd == [min(content)]:
                found.append(self._other_start(name, usual))
            elif odd:
                other = [number for number, of in content.items() if of != name]
                found.append(self._other_steps(name, other, content[other[0]]))
        return found

    def _pass(self, before: int, number: int, names: Sequence[str]) -> None:
        earlier = [
            _Before(name, self._content[name][before], run[before])
            for name, run in self._runs.items()
            if before in run
        ]
        # Past a step that is of another run, its own training continues from a step further back.
        earlier += [
            _Before(name, name, self._runs[name][last])
            for name in names
            if self._content[name][before] != name and (last := self._last_own(name)) is not None
        ]
        series = compared(
            [*(one.step for one in earlier), *(self._runs[name][number] for name in names)]
        )
        if not series.far.size:
            return
        for place, name in enumerate(names, start=len(earlier)):
            own = next(i for i, one in enumerate(earlier) if one.run == name)
            others = [i for i in range(len(earlier)) if not series.equal[own, i]]
            nearest = min(others, key=lambda i, place=place: series.far[i, place], default=None)
            if before == min(self._runs[name]):
                of = None if nearest is None else earlier[nearest].run
                self.starts[name] = _start(series, own, nearest, place, of, self.starts[name].name)
            if nearest is not None and series.far[nearest, place] > 0:
                ratio = series.far[own, place] / series.far[nearest, place]
                self._ratio[name, number] = float(ratio)
            if nearest is None or not _nearer(series, nearest, own, place):
                continue
            other = earlier[nearest].run
            partner = names.index(other) + len(earlier) if other in names else None
            if not _related(series, own, nearest) or (
                partner is not None and _nearer(series, own, nearest, partner)
            ):
                self._content[name][number] = earlier[nearest].content

    def _last_own(self, name: str) -> int | None:
        return max((n for n, of in self._content[name].items() if of == name), default=None)

    def _other_start(self, name: str, usual: str) -> SeriesFault:
        first, second = sorted(self._runs[name])[:2]
        start, later = (self._runs[name][number].place.name for number in (first, second))
        return SeriesFault(
            code="of-another-run",
            steps=[f"{name}/{start}"],
            plain=f"{name}/{later} and later steps descend from the start of {usual}, not from "
            f"{name}/{start}.",
            evidence=self._evidence(name, second, usual),
        )

    def _other_steps(self, name: str, odd: Sequence[int], of: str) -> SeriesFault:
        steps = [self._runs[name][number].place.name for number in odd]
        verb = "continues" if len(steps) == 1 else "continue"
        return SeriesFault(
            code="of-another-run",
            steps=[f"{name}/{step}" for step in steps],
            plain=f"{listed(steps, _NAMED)} of {name} {verb} from {of}, and not from the other "
            f"steps of {name}.",
            evidence=self._evidence(name, odd[0], of),
        )

    def _evidence(self, name: str, number: int, of: str) -> str:
        step, ratio = self._runs[name][number].place.name, self._ratio.get((name, number))
        if ratio is None:
            return (
                f"{step} holds the weights of the step before it in {of}, as far as samples show."
            )
        return (
            f"By samples {step} lies {ratio:.1f} times as far from the step before it in {name} as "
            f"from that of {of}."
        )


def _nearer(series: Compared, other: int, own: int, place: int) -> bool:
    if not series.far[other, place] <= NEARER * series.far[own, place]:
        return False
    votes = [one.rms[other, place] < one.rms[own, place] for one in series.moving]
    return bool(np.mean(votes) >= _AGREE)


def _related(series: Compared, one: int, two: int) -> bool:
    """Whether two steps have a common origin, or may have.

    Of two runs of one start, one may be ahead of the other on the same way: a step that lies
    nearer to the other run is then a claim only if the same holds the other way round.
    """
    return not series.correlation.size or not series.correlation[one, two] < PLAIN


def _start(
    series: Compared, own: int, nearest: int | None, place: int, of: str | None, name: str
) -> Start:
    limit = unrelated(series)
    size = len(series.steps)
    known = series.correlation if series.correlation.size else np.full((size, size), np.nan)
    mine, other = float(known[own, place]), np.nan
    answer: StartAnswer = "own" if mine > limit else "unknown"
    ratio = None
    if nearest is not None:
        other = float(known[nearest, place])
        if series.far[nearest, place] > 0:
            ratio = float(series.far[own, place] / series.far[nearest, place])
        if (
            other > limit
            and _nearer(series, nearest, own, place)
            and not _related(series, own, nearest)
        ):
            answer = "another-run"
    return Start(
        name=name,
        answer=answer,
        of=of if answer == "another-run" else None,
        own=mine if np.isfinite(mine) else None,
        other=other if np.isfinite(other) else None,
        ratio=ratio,
    )
