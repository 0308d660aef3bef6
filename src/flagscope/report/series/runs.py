"""Several runs in words and tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pandas

from flagscope.records.series_runs import RunRecord, RunRelation, RunsRecord, StartAnswer
from flagscope.shortening import listed

START_WORDS: dict[StartAnswer, str] = {
    "own": "yes",
    "another-run": "no, from {}",
    "unknown": "not known",
    "not-compared": "not compared",
}
"""Whether a run descends from its start; the name of another run goes in."""
_OVER = ("runs", "mean", "low", "high", "mean_low", "mean_high")
_NAMED = 6


def runs_frame(record: RunsRecord | None) -> pandas.DataFrame:
    """One row for each run; none for a single training."""
    rows = [] if record is None else [run.model_dump() for run in record.runs]
    return pandas.DataFrame(rows, columns=list(RunRecord.model_fields))


def relations_frame(record: RunsRecord | None) -> pandas.DataFrame:
    """One row for each two runs."""
    rows = [] if record is None else [one.model_dump() for one in record.relations]
    return pandas.DataFrame(rows, columns=list(RunRelation.model_fields))


def bands_frame(record: RunsRecord | None) -> pandas.DataFrame:
    """One row for each number of each pair at each step that several runs have."""
    columns = ("number", "pair", "kind", "layer", "observable", *_OVER, "part")
    rows = [
        (number, band.pair, band.kind, band.layer, band.observable,
         *(getattr(band, field)[place] for field in _OVER), band.part)
        for band in (record.bands if record is not None else ())
        for place, number in enumerate(band.numbers)
    ]  # fmt: skip
    return pandas.DataFrame(rows, columns=list(columns)).astype({"layer": "Int64"})


def relations_in_words(record: RunsRecord) -> Iterator[str]:
    """What the runs share, a sentence for each answer."""
    groups: dict[tuple[str, int | None, int | None], list[str]] = defaultdict(list)
    for one in record.relations:
        groups[one.answer, one.equal_until, one.differ_from].append(f"{one.first} and {one.second}")
    unit = record.unit or "step"
    for (answer, until, differ), pairs in groups.items():
        names = (
            f"{listed(pairs, _NAMED)} ({len(pairs):,} of {len(record.relations):,} pairs of runs)"
        )
        if answer == "same":
            yield f"Equal at all common {unit}s: {names}."
        elif answer == "parted":
            assert until is not None
            assert differ is not None
            yield f"Equal up to {unit} {until:,}, and parted by {unit} {differ:,}: {names}."
        elif answer == "common-origin":
            yield f"Of one origin, as far as samples show, and not equal at first: {names}."
        elif answer == "no-common-origin":
            yield f"No more alike at the first common {unit} than independent weights: {names}."
        elif answer == "unknown":
            yield f"Somewhat alike at the first common {unit}; their origin is not known: {names}."
        else:
            yield f"Not compared, as they have no step or no tensors in common: {names}."
    for one in record.relations:
        if one.equal_later:
            steps = listed([f"{number:,}" for number in one.equal_later], _NAMED)
            yield f"{one.first} and {one.second} are equal at {unit} {steps}, after they differed."
