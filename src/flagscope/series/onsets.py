"""From which step on a pair stands beyond chance, and on which level of alignment.

A test goes back from the last step and stops at the first step at which it does not reject. Such a
fixed sequence needs no correction for the number of steps: a false claim needs a rejection at the
one step where the sequence first meets a true null. Over pairs and numbers each step's own
family-wise p-value holds the level.

References
----------
.. [1] Maurer, Hothorn and Lehmacher, Multiple comparisons in drug clinical trials and preclinical
   assays: a-priori ordered hypotheses (1995).
.. [2] Xiao, Sui, Ruan, arXiv 2605.09861 (2026), for the levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from flagscope.diagnose.levels import TOLERANCE
from flagscope.records import PairRecord
from flagscope.records.series import StepRecord
from flagscope.records.series_onsets import Onset, OnsetAnswer, OnsetOf
from flagscope.series.over_steps import pairs_over_steps

LEVEL = 0.05
"""Chance that any test of a series is said to stand beyond chance at a step where it does not."""
# A cosine below this counts as 0: the composed map then loses a dominant direction.
_LOST = 1e-6

Side = Literal["above", "below"]


@dataclass(frozen=True)
class Seen:
    """One number at one step: whether it is there, on which side of chance, and its grade."""

    there: bool
    side: Side | None = None
    grade: float | None = None


def onsets(
    steps: Sequence[StepRecord], scans: Sequence[Sequence[PairRecord]], *, run: str | None = None
) -> list[Onset]:
    """When each pair reaches what it stands on at the end: tests against chance, and levels.

    Parameters
    ----------
    steps
        Of one training, in the order of their numbers.
    scans
        Pairs of each step; none of a step that was not measured, which is passed over.
    run
        Name of the training, where there are several.

    Returns
    -------
    list of Onset
        For each pair that any step has: its three tests, then the three levels.
    """
    found = []
    for pairs in pairs_over_steps(scans).values():
        pair = next(one for one in pairs if one is not None)
        for of, look in _LOOKS.items():
            seen = [None if one is None else look(one) for one in pairs]
            found.append(onset(steps, seen, of, run, (pair.name, pair.kind, pair.layer)))
    return found


def onset(
    steps: Sequence[StepRecord],
    seen: Sequence[Seen | None],
    of: OnsetOf,
    run: str | None,
    where: tuple[str, str, int | None],
    *,
    heads: tuple[int, int] | None = None,
) -> Onset:
    """From when on something is there until the end.

    Parameters
    ----------
    steps, run
        As of `onsets`.
    seen
        What each step shows; None where it does not have it.
    of
        What is looked at.
    where
        Name, kind and layer.
    heads
        The two heads, where it is of heads.
    """
    pair, kind, layer = where
    known = [(step, one) for step, one in zip(steps, seen, strict=True) if one is not None]
    start = len(known)
    while start and known[start - 1][1].there and known[start - 1][1].side == known[-1][1].side:
        start -= 1
    after = known[start - 1][0] if 0 < start < len(known) else None
    by = known[start][0] if start < len(known) else None
    answer: OnsetAnswer = "from-the-first" if after is None else "between"
    if by is None:
        answer = "not-at-last" if known else "not-tested"
    elif of == "basis":
        answer = "open"
    return Onset(
        run=run,
        pair=pair,
        kind=kind,
        layer=layer,
        heads=heads,
        of=of,
        answer=answer,
        side=None if by is None else known[-1][1].side,
        after=None if after is None else after.name,
        by=None if by is None else by.name,
        after_number=None if after is None else after.number,
        by_number=None if by is None else by.number,
        steps=len(known),
        steps_with=sum(one.there for _, one in known),
        last=known[-1][1].grade if known else None,
    )


def _overlap(pair: PairRecord) -> Seen | None:
    ratio = None if pair.overlap_test is None else pair.overlap_test.overlap_ratio
    return _tested(pair.p_familywise, ratio, 1.0)


def _commutator(pair: PairRecord) -> Seen | None:
    return _tested(pair.commutator_p_familywise, pair.commutator_ratio, 1.0)


def _correlation(pair: PairRecord) -> Seen | None:
    return _tested(pair.gram_correlation_p_familywise, pair.gram_correlation, 0.0)


def _tested(p: float | None, value: float | None, chance: float) -> Seen | None:
    if p is None or value is None:
        return None
    return Seen(p <= LEVEL, side="above" if value > chance else "below")


def _rank(pair: PairRecord) -> Seen | None:
    ranks = _ranks(pair)
    if ranks is None:
        return None
    low, high = ranks
    return _graded(min(low, _kept(pair, low)) / high if high else 0.0)


def _subspace(pair: PairRecord) -> Seen | None:
    ranks = _ranks(pair)
    if ranks is None:
        return None
    low, _ = ranks
    if low / pair.d >= 1 - TOLERANCE:  # dimensions alone give the grade
        return None
    # Σcos² / max(r1, r2), where the ratio is Σcos² d / (r1 r2).
    return _graded(0.0 if pair.overlap_ratio is None else pair.overlap_ratio * low / pair.d)


def _basis(pair: PairRecord) -> Seen | None:
    """What level 3 can be at most: its blocks agree no better than the spaces that they span."""
    subspace, defect = _subspace(pair), pair.commutation_defect
    if subspace is None or subspace.grade is None or defect is None:
        return None
    return _graded(min(subspace.grade, 1 - min(1.0, defect)))


def _ranks(pair: PairRecord) -> tuple[int, int] | None:
    """Dominant ranks, the lesser first; 0 where nothing stands out."""
    if pair.effective_rank_write is None or pair.effective_rank_read is None:
        return None
    low, high = sorted((pair.effective_rank_write, pair.effective_rank_read))
    return low, high


def _kept(pair: PairRecord, low: int) -> int:
    """Dominant directions that the composed map does not lose; all where that is not known."""
    return sum(one > _LOST for one in pair.cosines) if isinstance(pair.cosines, list) else low


def _graded(grade: float) -> Seen:
    # Rounding may carry a sum of squared cosines past the dimension.
    return Seen(grade >= 1 - TOLERANCE, grade=min(1.0, grade))


_LOOKS: dict[OnsetOf, Callable[[PairRecord], Seen | None]] = {
    "overlap": _overlap,
    "commutator_ratio": _commutator,
    "gram_correlation": _correlation,
    "rank": _rank,
    "subspace": _subspace,
    "basis": _basis,
}
