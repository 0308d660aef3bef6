"""One observable as it is shown everywhere: words, null, labels, places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from flagscope.records import PairRecord


@dataclass(frozen=True)
class Explanation:
    """One diagnostic in words.

    Parameters
    ----------
    title, symbol
        Name and the letter it goes by.
    short
        One line for a heading.
    definition
        The formula.
    chance
        What a random position gives, and the other landmarks of its range.
    reading
        What a value says.
    misleads
        When not to trust the first reading.
    legend
        What it is and which way it goes, in one plain line under a table; empty where no table of
        the terminal has it.
    """

    title: str
    symbol: str
    short: str
    definition: str
    chance: str
    reading: str
    misleads: str
    legend: str = ""


class Band(NamedTuple):
    """Range under chance: the mean, and the central 95 % interval (or the mean twice)."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Observable:
    """One number, or list of numbers, of a pair's record.

    Parameters
    ----------
    field
        Its name in `PairRecord`, or in the pair's `functional` part.
    invariance
        The changes of the shared space that leave it: "product", all of them, for functions of
        W2 W1 and of the ranks; "orthogonal", those that keep lengths and angles.
    of_ranges
        Whether it depends on ranges and kernels alone, which no change inside the blocks moves.
    sized
        Whether a factor on one of the maps moves it.
    words
        Its entry in the glossary; None for what is explained with another one.
    null
        Where chance puts it, read from a pair's record; None where no random model applies.
    z, p_adjusted
        Fields of its distance from chance (also in the balanced part) and of its adjusted p-value.
    error
        Field of its standard error, where it may be an estimate.
    floor
        Relative distance from chance below which a significant value is a remark, no finding.
    balanced_linear
        Its value once A = B, which the record of a pair under the full linear freedom leaves out.
    dominant
        Whether it belongs to the dominant spaces, and is not there where nothing stands out.
    counts_meetings
        Whether it counts directions that meet, which some dimensions leave open or untestable.
    column, at_a_glance, profiled
        Whether the page's table of pairs, its overview and its profiles over depth show it.
    from_zero, logarithmic
        Whether its axis begins at 0; whether it is logarithmic where values are large.
    """

    field: str
    invariance: Literal["product", "orthogonal"]
    of_ranges: bool = False
    sized: bool = False
    words: Explanation | None = None
    null: Callable[[PairRecord], Band | None] | None = None
    z: str | None = None
    error: str | None = None
    p_adjusted: str | None = None
    floor: float | None = None
    balanced_linear: int | None = None
    dominant: bool = False
    counts_meetings: bool = False
    column: bool = True
    at_a_glance: bool = False
    profiled: bool = False
    from_zero: bool = False
    logarithmic: bool = False
