"""Records of when alignment is reached over a series, and stays."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.record import Record

OnsetOf = Literal[
    "overlap", "commutator_ratio", "gram_correlation", "rank", "subspace", "basis", "near_copies"
]
"""A test of a pair against chance (the first three), a level of alignment, or one of two heads."""
ONSETS_OF: tuple[OnsetOf, ...] = get_args(OnsetOf)
OnsetAnswer = Literal["from-the-first", "between", "not-at-last", "open", "not-tested"]
"""When something is reached, in words that do not change from release to release."""
ONSET_ANSWERS: tuple[OnsetAnswer, ...] = get_args(OnsetAnswer)


class Onset(Record):
    """From when on a pair or two heads stand beyond chance, or on a level, until the end.

    Checkpoints between which nothing was saved leave an interval: `after` is the last step at which
    it was not seen, `by` the first from which it is seen at every later step.
    """

    run: str | None = Field(default=None, description="Run, where there are several.")
    pair: str = Field(description="As in the curves: of a pair, or of the heads of a layer.")
    kind: str
    layer: int | None
    of: OnsetOf = Field(
        description="A test against chance: `overlap` (the combined test), `commutator_ratio`, "
        "`gram_correlation`; or a level of alignment: `rank`, `subspace`, `basis`. Of two heads "
        "`near_copies`: at least half of the way from chance to a copy, and beyond chance."
    )
    answer: OnsetAnswer = Field(
        description="`open`: level 3 alone, where what was measured does not exclude it. "
        "`not-tested`: no step has the number, or dimensions alone give it."
    )
    side: Literal["above", "below"] | None = Field(
        default=None, description="Of chance, on which a test stands from then on."
    )
    after: str | None = Field(default=None, description="The last step without it.")
    by: str | None = Field(default=None, description="The first step from which it stays.")
    after_number: int | None = None
    by_number: int | None = None
    steps: int = Field(description="Steps at which it could be looked at.")
    steps_with: int = Field(description="Those at which it is there, also if it is lost again.")
    last: float | None = Field(
        default=None, description="Grade of a level at the last of these steps, 1 for alignment."
    )
    heads: tuple[int, int] | None = Field(
        default=None, description="The two heads, where it is of heads."
    )
