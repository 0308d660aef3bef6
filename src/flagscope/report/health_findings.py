"""Findings on the health of the weights: what stands before all that is measured of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flagscope.records import (
    Finding,
    Health,
    HealthCode,
    Missing,
    NotFinite,
    ScanResult,
    WeightCheck,
    WeightFault,
)
from flagscope.report.health_finding import WHOLE_WORDS, health_finding, listed_names
from flagscope.report.layer_health import equal_layer_findings, scale_findings
from flagscope.report.unit_findings import copied_units, dead_units
from flagscope.report.wording import begun, counted, joined
from flagscope.shortening import shortened

_SHOWN = 6
_ROWS: dict[WeightCheck, str] = {
    "zero-rows": "row", "zero-columns": "column",
    "duplicate-rows": "row", "duplicate-columns": "column",
}  # fmt: skip


def health_findings(result: ScanResult) -> list[Finding]:
    """Findings on weights that are not finite, missing, dead, constant or copied, gravest first.

    What sound models have too is a remark.
    """
    found = list(_not_finite(result))
    health = result.health
    if health is None:
        return found
    found += _missing(health)
    for units in health.units:
        found += dead_units(units)
    found += _constant(health)
    found += _rows(health, "zero-rows", ("zero-rows", "zero-columns"))
    found += equal_layer_findings(health)
    found += [one for units in health.units for one in copied_units(units)]
    found += _rows(health, "duplicate-rows", ("duplicate-rows", "duplicate-columns"))
    found += scale_findings(health)
    return sorted(found, key=lambda finding: finding.severity != "warning")


def _not_finite(result: ScanResult) -> Iterator[Finding]:
    """NaN and infinity: where they are, how many, and what has no number because of them."""
    coverage, health = result.coverage, result.health
    met = None if coverage is None else coverage.not_finite
    seen = [] if health is None else [
        one for one in health.faults if one.check in ("nan", "infinity")
    ]  # fmt: skip
    if met is None and not seen:
        return
    parts = [
        f"{one.count:,} of {counted(one.of, 'number')} {'is' if one.count == 1 else 'are'} "
        f"{'NaN' if one.check == 'nan' else 'infinite'}"
        for one in seen
    ]
    tensors = max(0 if met is None else met.tensors, 0 if health is None else health.not_finite)
    where = _places([*seen, *([] if met is None else [met])])
    text = (
        f"{counted(tensors, 'tensor')} {'holds' if tensors == 1 else 'hold'} NaN or infinity: "
        f"{where}."
    )
    if parts:
        text += f" There {joined(parts)}."
    if met is not None:
        text += _lost(result)
    elif result.pairs or result.heads:
        text += " No pair, head group or link reads them."
    plain = (
        f"{counted(tensors, 'tensor')} {'holds' if tensors == 1 else 'hold'} numbers that are not "
        f"finite (NaN or infinity): {where}."
    )
    evidence = tuple(
        f"{shortened(e.name)}: {e.count:,} of {e.of:,} {words}"
        for one in seen for words in ("NaN" if one.check == "nan" else "infinite",)
        for e in one.examples[:_SHOWN]
    )  # fmt: skip
    yield health_finding(
        "not-finite", plain, text, evidence,
        target="health" if seen else "coverage",
        means="What the network computes from them is NaN or infinite too.",
        next_step="Look at the step of training, the conversion or the merge that wrote them.",
        not_meaning="It does not mean that other weights are broken too.",
    )  # fmt: skip


def _lost(result: ScanResult) -> str:
    """What has no number because of weights that are not finite."""
    coverage = result.coverage
    met = None if coverage is None else coverage.not_finite
    if coverage is None or met is None:
        return ""
    links = next((one.of for one in coverage.without_numbers if one.what == "links"), 0)
    lost = [
        f"{count:,} of {counted(every, noun, plural)}"
        for count, every, noun, plural in (
            (met.pairs, len(result.pairs), "pair", None),
            (met.head_groups, len(result.heads), "head group", None),
            (met.links, links, "link between heads", "links between heads"),
        )
        if count
    ]
    text = f" It takes the numbers of {joined(lost) or 'nothing'}"
    if met.balanced:
        sharing = counted(met.balanced, "pair that shares", "pairs that share")
        text += f", and the numbers after balancing of {sharing} a map with one of them"
    return f"{text}."


def _missing(health: Health) -> Iterator[Finding]:
    for one in health.missing:
        text = _missing_text(one)
        code = "missing-tensors" if one.check == "outside" else "missing-layers"
        yield health_finding(
            code, text, text, (), certain=one.certain,
            means="What loads a model of this family from it refuses it, or leaves the missing "
            "weights at random.",
            next_step="Look for a shard that was not fetched, or for what saved it.",
            not_meaning="A model that was cut on purpose looks the same.",
        )  # fmt: skip


def _missing_text(one: Missing) -> str:
    if one.check == "outside":
        names = joined(shortened(name) for name in one.names)
        verb = "is" if one.count == 1 else "are"
        return f"{names} {verb} missing, which the config asks for ({one.said})."
    stack = shortened(one.stack)
    numbers = f"{'layer' if ',' not in one.layers and '-' not in one.layers else 'layers'} "
    numbers += one.layers
    if one.check == "tensors":
        names = joined(shortened(name) for name in one.names)
        return (
            f"{begun(numbers)} of {stack!r} lacks {names}, which the other "
            f"{counted(one.present - 1, 'layer')} have."
        )
    why = f"the config says {one.said}" if one.said else "their numbers are left out"
    return (
        f"{begun(numbers)} of {stack!r} {'is' if one.count == 1 else 'are'} missing: "
        f"{counted(one.present, 'layer')} {'is' if one.present == 1 else 'are'} there, and {why}."
    )


def _constant(health: Health) -> Iterator[Finding]:
    for one in health.faults:
        phrases = WHOLE_WORDS.get(one.check)
        if phrases is None or one.expected:
            continue
        names = joined(listed_names(one), limit=_SHOWN + 1)
        text = f"{counted(one.tensors, 'tensor')} {phrases[one.tensors > 1]}: {names}."
        yield health_finding(
            "constant-tensors", text, text, _examples(one, "entries"),
            means="A matrix of one value maps all to one line; zeros let nothing through.",
            next_step="See whether it was ever trained, or loaded.",
            not_meaning="Some parts begin as zeros on purpose, and are so until they are trained.",
        )  # fmt: skip


def _rows(
    health: Health, code: HealthCode, checks: tuple[WeightCheck, WeightCheck]
) -> Iterator[Finding]:
    """Rows and columns that are zero, or copies: what is amiss, and what sound models have."""
    for expected in (False, True):
        faults = [one for one in health.faults if one.check in checks and one.expected is expected]
        if not faults:
            continue
        copies = code == "duplicate-rows"
        parts = [counted(one.count, _ROWS[one.check]) for one in faults]
        verb = "is" if sum(one.count for one in faults) == 1 else "are"
        said = f"{'a copy' if verb == 'is' else 'copies'} of another" if copies else "all zero"
        text = f"{begun(joined(parts))} of weights {verb} {said}: {_places(faults)}."
        if expected:
            text = f"{text[:-1]}. No map is known to be in them."
        yield health_finding(
            code, text, text,
            tuple(line for one in faults for line in _examples(one, f"{_ROWS[one.check]}s")),
            certain=not expected,
            means="Equal rows always give equal outputs." if copies else
            "A row of zeros writes nothing; a column of zeros reads nothing.",
            next_step="See whether the model was pruned, padded or widened.",
            not_meaning="It does not mean that the model is worse for it.",
        )  # fmt: skip


def _places(several: Sequence[WeightFault | NotFinite]) -> str:
    """Names of tensors that several records list; what all of them leave out is not counted."""
    names = list(dict.fromkeys(name for one in several for name in one.names))
    others = len(names) > _SHOWN or any(one.unlisted for one in several)
    return joined([*names[:_SHOWN], *(["others"] if others else [])], limit=_SHOWN + 1)


def _examples(one: WeightFault, noun: str) -> tuple[str, ...]:
    return tuple(
        f"{shortened(e.name)}: {e.count:,} of {e.of:,} {noun}"
        + (f" ({e.where})" if e.where else "")
        for e in one.examples
    )
