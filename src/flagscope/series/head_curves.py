"""Curves of the heads of each layer, from the scans of the steps."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.observables import HEAD_NUMBERS
from flagscope.records import HeadRecord
from flagscope.records.series import SeriesCurve
from flagscope.series.over_steps import over_steps


def head_curves(scans: Sequence[Sequence[HeadRecord]]) -> list[SeriesCurve]:
    """A curve for each number of the heads of a layer in one space of the stream.

    Parameters
    ----------
    scans
        The groups of heads of each step; none of a step that was not measured.

    Returns
    -------
    list of SeriesCurve
        For each group that any step has its numbers, in the order of `HEAD_NUMBERS`. A number that
        no step has, as those of a layer with a single head, has no curve.
    """
    found = []
    for name, steps in heads_over_steps(scans).items():
        first = next(one for one in steps if one is not None)
        for number in HEAD_NUMBERS:
            values = [None if one is None else number.value(one) for one in steps]
            if all(value is None for value in values):
                continue
            bands = [
                None if one is None or value is None or number.null is None else number.null(one)
                for one, value in zip(steps, values, strict=True)
            ]
            found.append(
                SeriesCurve(
                    part="heads",
                    pair=name,
                    kind=first.space,
                    layer=first.layer,
                    observable=number.field,
                    label="functional",
                    values=values,
                    low=[None if band is None else band.low for band in bands],
                    high=[None if band is None else band.high for band in bands],
                )
            )
    return found


def heads_over_steps(
    scans: Sequence[Sequence[HeadRecord]],
) -> dict[str, list[HeadRecord | None]]:
    """Of each layer's heads in one space their record at every step, by name.

    Parameters
    ----------
    scans
        The groups of heads of each step.

    Returns
    -------
    dict
        Names such as ``"layer.0.heads.k"``, with the stack in front where there are several. Lists
        with one entry for each step, None where the step lacks the group, and never all None.
    """
    several = len({one.stack for scanned in scans for one in scanned}) > 1
    return over_steps([{_name(one, several): one for one in scanned} for scanned in scans])


def _name(heads: HeadRecord, several: bool) -> str:
    stack = f"{heads.stack}." if several else ""
    cross = "cross." if heads.attention == "cross" else ""
    return f"{stack}layer.{heads.layer}.{cross}heads.{heads.space}"
