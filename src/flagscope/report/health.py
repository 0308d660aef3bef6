"""Health in words: what was looked at, what is wrong, and what sound models have too."""

from __future__ import annotations

from typing import NamedTuple

from flagscope.records import Health, NotLookedAt, ScanResult, WeightFault
from flagscope.report.coverage import percent
from flagscope.report.health_finding import WHOLE_WORDS, listed_names
from flagscope.report.health_findings import health_findings
from flagscope.report.wording import counted, joined, ranges
from flagscope.shortening import shortened

_SIDES = {
    "zero-rows": ("row of zeros", "rows of zeros"),
    "zero-columns": ("column of zeros", "columns of zeros"),
    "duplicate-rows": ("copy of a row", "copies of rows"),
    "duplicate-columns": ("copy of a column", "copies of columns"),
}
# Share of exact zeros from which a network is called sparse: rounding leaves far fewer.
_FIRES = " (whether a neuron ever fires takes data to see)"
_SPARSE = 0.05


class HealthText(NamedTuple):
    """The health section of a report.

    Attributes
    ----------
    headline
        One sentence.
    wrong
        What is amiss, one sentence each, the gravest first.
    notices
        What is rare in sound models and may be by design.
    seen
        What was seen and sound models have too.
    left
        What was not looked at, by reason.
    """

    headline: str
    wrong: list[str]
    notices: list[str]
    seen: list[str]
    left: list[str]


def health_text(result: ScanResult) -> HealthText:
    """The health section of a report; it says so where nobody looked."""
    health = result.health
    if health is None:
        return HealthText("not looked at in this scan", [], [], [], [])
    found = health_findings(result)
    wrong = [one.plain for one in found if one.severity == "warning"]
    notices = [
        one.plain for one in found
        if one.severity != "warning" and one.code in ("scale-outliers", "duplicate-heads")
    ]  # fmt: skip
    wrong += [_left(one) for one in health.not_looked_at if not one.expected]
    left = [_left(one) for one in health.not_looked_at if one.expected]
    amount = f"{counted(health.tensors, 'tensor')} looked at ({health.entries:,} numbers)"
    if health.layers is not None:
        amount += f", of {_layers(health.layers)} alone"
    if not health.tensors:
        headline = "no tensor was looked at"
    elif wrong:
        headline = f"{counted(len(wrong), 'thing')} wrong in {amount}"
    else:
        headline = f"nothing wrong in {amount}: {_sound(health)}"
    return HealthText(headline, wrong, notices, _seen(health), left)


def _layers(layers: list[int]) -> str:
    return f"layer{'' if len(layers) == 1 else 's'} {ranges(layers)}"


def _sound(health: Health) -> str:
    """What was looked for and not found."""
    units = {one.check: one for one in health.units}
    known, living = ["every number is finite"], list[str]()
    for check, noun in (("neurons", "neuron"), ("heads", "head")):
        if check in units and units[check].units:
            living.append(f"none of {counted(units[check].units, noun)}")
    if living:
        known.append(f"{joined(living)} is dead by its weights{_FIRES * ('neurons' in units)}")
    known.append("no row of zeros or equal rows where maps are known")
    return f"{joined(known)}; {_outside(health)}"


def _outside(health: Health) -> str:
    """What was looked for outside of the layers, and that no more is known."""
    if health.outside is None:
        return "whether tensors outside the numbered layers are missing is not known"
    names = joined(shortened(name) for name in health.outside)
    verb = "is" if len(health.outside) == 1 else "are"
    return f"outside the layers {names} {verb} there, and what else may be missing is not known"


def _seen(health: Health) -> list[str]:
    lines: list[str] = []
    share = health.zeros / max(1, health.entries)
    if share >= _SPARSE:
        lines.append(
            f"sparse: {percent(health.zeros, health.entries)} of the numbers are exactly zero"
        )
    lines += [_fault(one) for one in health.faults if one.expected]
    lines += [
        f"{stack}: numbers run without {one.layers}, which may be by design"
        if one.check == "layers"
        else f"{stack}{one.layers} lacks {joined(one.names)}, which may be by design"
        for one in health.missing if not one.certain
        for stack in (shortened(one.stack),)
    ]  # fmt: skip
    return lines


def _fault(one: WeightFault) -> str:
    where = f" [{', '.join(listed_names(one))}]"
    tensors = counted(one.tensors, "tensor")
    if whole := WHOLE_WORDS.get(one.check):
        return f"{tensors} {whole[one.tensors > 1]}{where}"
    return f"{counted(one.count, *_SIDES[one.check])} in {tensors}{where}"


def _left(one: NotLookedAt) -> str:
    names = listed_names(one)
    return f"{counted(one.tensors, 'tensor')} not looked at: {one.reason}" + (
        f" [{', '.join(names)}]" if names else ""
    )
