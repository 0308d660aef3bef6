"""Do all steps hold the same tensors, in one type, with finite numbers?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from flagscope.records.series import SeriesFault
from flagscope.series.step import Header, Step
from flagscope.shortening import listed

_NAMED = 4
_KEPT = 8


def unread(steps: Sequence[Step]) -> list[SeriesFault]:
    """Steps that cannot be read, or that are being written."""
    faults = []
    for step in steps:
        name = step.place.name
        if step.place.unfinished:
            faults.append(
                SeriesFault(
                    code="being-written",
                    steps=[name],
                    plain=f"{name} is not whole: it has the name of what is being written.",
                    evidence=step.reason
                    or "It was not looked at; a save that was stopped leaves such a name too.",
                )
            )
        elif step.fault is not None:
            said = {
                "truncated": "is damaged or cut short",
                "incomplete": "is not all there",
                "unreadable": "cannot be read",
                "being-written": "is not whole yet: its files still change",
            }[step.fault]
            faults.append(
                SeriesFault(
                    code=step.fault, steps=[name], plain=f"{name} {said}.", evidence=step.reason
                )
            )
    return faults


def other_tensors(steps: Sequence[Step]) -> list[SeriesFault]:
    """Steps whose names and shapes are not those of most steps."""
    if len(steps) < 2:
        return []
    usual = _usual_shapes(steps)
    faults = []
    for step in steps:
        own = _shapes(step)
        if own == usual:
            continue
        names = {name for name, _ in usual}
        missing = sorted(names - step.headers.keys())
        further = sorted(step.headers.keys() - names)
        other = sorted(name for name, _ in own - usual if name in names)
        parts = [
            f"{len(what):,} {word} ({listed(what, _NAMED)})"
            for what, word in ((missing, "missing"), (further, "more"), (other, "of another shape"))
            if what
        ]
        faults.append(
            SeriesFault(
                code="other-tensors",
                steps=[step.place.name],
                plain=f"{step.place.name} holds other tensors than most steps: {', '.join(parts)}.",
                evidence=f"{len(step.headers):,} tensors, against {len(usual):,} in most steps.",
                tensors=[*missing, *further, *other][:_KEPT],
            )
        )
    return faults


def like_most(steps: Sequence[Step]) -> list[Step]:
    """Steps that have at least half of the tensors of most steps, in the same shapes."""
    if not steps:
        return []
    usual = _usual_shapes(steps)
    return [step for step in steps if 2 * len(_shapes(step) & usual) >= len(usual)]


def mixed_dtype(steps: Sequence[Step]) -> list[SeriesFault]:
    """Steps of which tensors have another type than in most steps."""
    if len(steps) < 2:
        return []
    names = set.intersection(*(set(step.headers) for step in like_most(steps)))
    usual = {name: _usual([step.headers[name] for step in like_most(steps)]) for name in names}
    faults = []
    for step in like_most(steps):
        other = sorted(name for name in names if step.headers[name].dtype != usual[name])
        if not other:
            continue
        kinds = sorted({step.headers[name].dtype for name in other})
        before = sorted({usual[name] for name in other})
        faults.append(
            SeriesFault(
                code="mixed-dtype",
                steps=[step.place.name],
                plain=f"{step.place.name} stores {len(other):,} of {len(step.headers):,} tensors "
                f"as {', '.join(kinds)}; most steps store them as {', '.join(before)}.",
                evidence="Differences from its neighbours hold the rounding of the coarser type.",
                tensors=other[:_KEPT],
            )
        )
    return faults


def not_finite(steps: Sequence[Step]) -> list[SeriesFault]:
    """Steps with samples that are NaN or infinite."""
    faults = []
    for step in steps:
        bad = [name for name, one in sorted(step.values.items()) if not np.isfinite(one).all()]
        if bad:
            count = sum(int((~np.isfinite(step.values[name])).sum()) for name in bad)
            faults.append(
                SeriesFault(
                    code="not-finite",
                    steps=[step.place.name],
                    plain=f"{step.place.name} holds NaN or infinity in {len(bad):,} tensors: "
                    f"{listed(bad, _NAMED)}.",
                    evidence=f"{count:,} of the samples; the rest of these tensors was not read.",
                    tensors=bad[:_KEPT],
                )
            )
    return faults


def _shapes(step: Step) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset((name, one.shape) for name, one in step.headers.items())


def _usual_shapes(steps: Sequence[Step]) -> frozenset[tuple[str, tuple[int, ...]]]:
    return Counter(_shapes(step) for step in steps).most_common(1)[0][0]


def _usual(headers: Sequence[Header]) -> str:
    return Counter(header.dtype for header in headers).most_common(1)[0][0]
