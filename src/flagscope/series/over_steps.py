"""Records of each step of a series, turned to those of each subject over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from flagscope.records import PairRecord

_Record = TypeVar("_Record")


def over_steps(by_name: Sequence[Mapping[str, _Record]]) -> dict[str, list[_Record | None]]:
    """Of each subject that any step has its record at every step, in order of appearance.

    Parameters
    ----------
    by_name
        The records of each step by the name of their subject; empty for a step that was not
        measured.

    Returns
    -------
    dict
        Lists with one entry for each step, None where the step lacks it, and never all None.

    Examples
    --------
    >>> over_steps([{"a": 1}, {}, {"a": 3, "b": 4}])
    {'a': [1, None, 3], 'b': [None, None, 4]}
    """
    names = dict.fromkeys(name for known in by_name for name in known)
    return {name: [known.get(name) for known in by_name] for name in names}


def pairs_over_steps(
    scans: Sequence[Sequence[PairRecord]],
) -> dict[str, list[PairRecord | None]]:
    """The same of the pairs of each step, by their names."""
    return over_steps([{pair.name: pair for pair in scanned} for scanned in scans])
