"""The pairs of a series, each over its steps."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records import PairRecord


def pairs_over_steps(
    scans: Sequence[Sequence[PairRecord]],
) -> dict[str, list[PairRecord | None]]:
    """Of each pair that any step has its record at every step, by name in order of appearance.

    Parameters
    ----------
    scans
        The pairs of each step; none of a step that was not measured.

    Returns
    -------
    dict
        Lists with one entry for each step, None where the step lacks the pair, and never all None.
    """
    by_name = [{pair.name: pair for pair in scanned} for scanned in scans]
    names = dict.fromkeys(name for known in by_name for name in known)
    return {name: [known.get(name) for known in by_name] for name in names}
