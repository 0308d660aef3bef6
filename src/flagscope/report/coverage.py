"""Coverage in words, the first thing a report says: how much was measured, and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flagscope.records import Coverage, LeftOut, PairRecord
from flagscope.report.wording import counted

_WORDS = {"pairs": "pair", "head groups": "head group", "links": "link between heads"}
_PLURALS = {"links": "links between heads"}
HINT = (
    "The head of this report lists which ones, and why. What may help: give the family or the "
    "number of heads (--family, --heads; in Python family=, heads=), or scan the module itself "
    "with example inputs."
)


def percent(part: int, whole: int) -> str:
    """A share in percent, never rounded to all or to none where it is neither.

    Examples
    --------
    >>> percent(1, 3), percent(1, 1), percent(99_999, 100_000), percent(1, 10**6), percent(0, 5)
    ('33 %', '100 %', 'more than 99.9 %', 'less than 0.1 %', '0 %')
    >>> percent(996, 1000), percent(4, 1000)
    ('99.6 %', '0.4 %')
    """
    if part == whole or not part or not whole:
        return "100 %" if part and part == whole else "0 %"
    share = 100 * part / whole
    if share > 99.9:
        return "more than 99.9 %"
    if share < 0.1:
        return "less than 0.1 %"
    return f"{share:.1f} %" if share < 1 or share >= 99.5 else f"{share:.0f} %"


def measured_share(coverage: Coverage) -> str:
    """Coverage as in "measured 12 of 36 matrices, 33 % of the parameters"."""
    share = percent(coverage.parameters_measured, coverage.parameters)
    noun = "matrix" if coverage.matrices == 1 else "matrices"
    return (
        f"measured {coverage.measured:,} of {coverage.matrices:,} {noun}, {share} of the parameters"
    )


def measured_sharp(pairs: Sequence[PairRecord]) -> str:
    """How many pairs were measured without their whole spectrum; empty where none was."""
    sharp = sum(pair.depth == "sharp" for pair in pairs)
    if not sharp:
        return ""
    some = "all pairs" if sharp == len(pairs) else f"{sharp:,} of {counted(len(pairs), 'pair')}"
    return (
        f"sharp: {some} by Gram matrices, products and leading directions; "
        "their whole spectra take --depth full"
    )


class Left(NamedTuple):
    """Weights not measured for one reason: how much, why, and which."""

    amount: str
    reason: str
    names: str
    share: str = ""  # of the parameters

    def __str__(self) -> str:
        return f"{self.amount}: {self.reason}" + (f" [{self.names}]" if self.names else "")


def left_out(coverage: Coverage) -> list[Left]:
    """One entry for each reason why matrices were not measured, and one for what is no matrix."""
    found = [_left(one, coverage.parameters) for one in coverage.left_out]
    matrices = coverage.parameters_measured + sum(one.parameters for one in coverage.left_out)
    vectors = coverage.parameters - matrices
    if vectors > 0:
        share = percent(vectors, coverage.parameters)
        found.append(
            Left(f"vectors, {share} of the parameters", "biases, gains of norms", "", share)
        )
    if coverage.buffers:
        names = ", ".join(coverage.buffers)
        found.append(Left("buffers", "no parameters, and in no count here", names))
    return found


def left_out_oddly(coverage: Coverage) -> list[Left]:
    """The entries of `left_out` that not every model has."""
    return [_left(one, coverage.parameters) for one in coverage.left_out if not one.expected]


def left_out_as_usual(coverage: Coverage) -> list[Left]:
    """The other entries of `left_out`, such as embeddings, biases and buffers."""
    odd = left_out_oddly(coverage)
    return [entry for entry in left_out(coverage) if entry not in odd]


def in_brief(entries: Sequence[Left]) -> str:
    """Entries of `left_out` in one line without names, as in "embedding, by its name (52 %)"."""
    return "; ".join(
        f"{entry.reason} ({entry.share})" if entry.share else entry.amount for entry in entries
    )


def _left(one: LeftOut, parameters: int) -> Left:
    names = ", ".join(one.names)
    if one.unlisted:
        names += f", and {one.unlisted:,} more"
    share = percent(one.parameters, parameters)
    amount = f"{counted(one.matrices, 'matrix', 'matrices')}, {share} of the parameters"
    return Left(amount, one.reason, names, share)


def without_number_lines(coverage: Coverage) -> list[str]:
    """One line for each kind of result and reason, as in "3 of 12 pairs: weights that are …"."""
    lines = []
    for one in coverage.without_numbers:
        plural = _PLURALS.get(one.what, one.what)
        noun = _WORDS[one.what] if one.of == 1 else plural
        lines.append(f"{one.count:,} of {one.of:,} {noun}: {one.reason}")
    return lines


def not_understood(coverage: Coverage) -> tuple[int, int]:
    """Matrices, and numbers in them, that were left out though not every model has such."""
    odd = [one for one in coverage.left_out if not one.expected]
    return sum(one.matrices for one in odd), sum(one.parameters for one in odd)
