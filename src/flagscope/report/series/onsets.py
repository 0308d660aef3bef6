"""When alignment is reached, counted over pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from flagscope.records.series import SeriesRecord
from flagscope.records.series_onsets import Onset
from flagscope.report.wording import counted

WORDS = {
    "overlap": "overlap beyond chance",
    "commutator_ratio": "commutator beyond chance",
    "gram_correlation": "Gram correlation beyond chance",
    "rank": "level 1, rank",
    "subspace": "level 2, subspace",
    "basis": "level 3, basis",
    "near_copies": "near-copies",
}
"""What an onset is of."""
_LISTED = 4


class OnsetSummary(NamedTuple):
    """Of one kind of pair and one test or level: how many pairs reach it, and by which step.

    Of heads, pairs are two heads of a layer that are near-copies at some step.
    """

    kind: str
    of: str
    pairs: int  # that could be looked at, in all runs
    from_the_first: int
    later: tuple[tuple[str, int], ...]  # step by which, and pairs
    not_at_last: int
    open: int


def onset_summaries(record: SeriesRecord) -> list[OnsetSummary]:
    """Counts by kind and by test or level, in the order of the pairs."""
    groups: dict[tuple[str, str], list[Onset]] = defaultdict(list)
    for onset in record.onsets:
        groups[onset.kind, onset.of].append(onset)
    return [_summary(kind, of, onsets) for (kind, of), onsets in groups.items()]


def _summary(kind: str, of: str, onsets: list[Onset]) -> OnsetSummary:
    answers = Counter(onset.answer for onset in onsets)
    later = Counter(
        (onset.by_number, _step(onset)) for onset in onsets if onset.answer == "between"
    )
    ordered = sorted(later.items(), key=lambda entry: (entry[0][0] is None, entry[0][0] or 0))
    return OnsetSummary(
        kind=kind,
        of=of,
        pairs=len(onsets) - answers["not-tested"],
        from_the_first=answers["from-the-first"],
        later=tuple((step, count) for (_, step), count in ordered),
        not_at_last=answers["not-at-last"],
        open=answers["open"],
    )


def _step(onset: Onset) -> str:
    return f"{onset.by_number:,}" if onset.by_number is not None else onset.by or ""


def later_in_words(summary: OnsetSummary) -> str:
    """Steps by which pairs reach it, with how many: "2 by 80, 1 by 400"."""
    shown = [f"{count:,} by {step}" for step, count in summary.later[:_LISTED]]
    rest = sum(count for _, count in summary.later[_LISTED:])
    return ", ".join([*shown, *([f"{rest:,} later"] if rest else [])])


def onset_in_words(onset: Onset) -> str:
    """When one pair reaches a test or a level.

    Examples
    --------
    >>> onset_in_words(
    ...     Onset(pair="layer.0.mlp", kind="mlp", layer=0, of="overlap", answer="between",
    ...           after="step-80", by="step-400", after_number=80, by_number=400, steps=5,
    ...           steps_with=3)
    ... )
    'overlap beyond chance: by 400, not at 80'
    """
    after = f"{onset.after_number:,}" if onset.after_number is not None else onset.after
    said = {
        "from-the-first": f"from {_step(onset)} on, the first step looked at",
        "between": f"by {_step(onset)}, not at {after}",
        "not-at-last": f"at {onset.steps_with:,} of {counted(onset.steps, 'step')}, not at the last"
        if onset.steps_with
        else "at no step",
        "open": "not excluded by what was measured",
        "not-tested": "not tested",
    }
    of = WORDS[onset.of]
    if onset.heads is not None:
        of = f"heads {onset.heads[0]} and {onset.heads[1]}, {of}"
    return f"{of}: {said[onset.answer]}"
