"""What a comparison shows besides its verdict, with stable codes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from flagscope.observables import EXPLANATIONS
from flagscope.records import Severity
from flagscope.records.comparison import (
    FAULT_CODES,
    SIDE_A,
    SIDE_B,
    ChangeRecord,
    ComparisonFinding,
    ContentRecord,
    Fault,
    MapChange,
)
from flagscope.records.comparison.content_tests import factor_between, is_rearranged
from flagscope.report.comparison.plain import PLAIN
from flagscope.report.comparison.whereabouts import OF_BOTH, over_both, relative_change
from flagscope.report.wording import counted, joined, number, typical

COMPARISON_CODES = (
    "entries-outside-rounding",
    "not-finite",
    "scaled-copy",
    "rows-permuted",
    "transposed",
    "unpaired-tensors",
    "reshaped-tensors",
    "unread-tensors",
    "intruders",
    "change-in-leading-space",
    "change-outside-leading-space",
    "heads-moved",
    "basis-changed",
    "near-copies-changed",
    "diagnostics-changed",
)
"""Codes of findings on two models; those on an adapter are the `fault_codes`."""

_LEVEL = 0.05
_NAMED = 4
_HEADS = 3
_TIMES = 2.0  # a head that moved this many times the median of its kind is named
_BASIS = 10.0  # a raw change this many times the change of function is one of basis


def comparison_findings(
    content: ContentRecord | None, change: ChangeRecord | None
) -> list[ComparisonFinding]:
    """Findings on two models: strong ones, notable ones, warnings, then remarks."""
    found: list[ComparisonFinding] = []
    if content is not None:
        found += [*_entries(content), *_tensors(content)]
    if change is not None:
        found += [*_intruders(change), *_energies(change), *_heads(change), *_basis(change)]
        found += [*_near_copies(change), *_diagnostics(change)]
    order = ("strong", "notable", "warning", "info")
    return sorted(found, key=lambda finding: order.index(finding.severity))


def fault_codes() -> tuple[str, ...]:
    """Codes of findings on an adapter or its merge."""
    return tuple(map(_as_finding, FAULT_CODES))


def _as_finding(code: str) -> str:
    return code.replace("_", "-")


def fault_findings(faults: Iterable[Fault], side: str = "") -> list[ComparisonFinding]:
    """What is wrong with an adapter, of that side where it is given, or its merge, as findings."""
    found = [_fault(fault) for fault in faults]
    if not side:
        return found
    return [
        finding.model_copy(
            update={"plain": f"{side}: {finding.plain}", "text": f"{side}: {finding.text}"}
        )
        for finding in found
    ]


def _finding(
    code: str, severity: Severity, text: str, evidence: Iterable[str] = ()
) -> ComparisonFinding:
    plain = PLAIN.get(code, text)  # what is said of an adapter is plain as it stands
    return ComparisonFinding(
        code=code, severity=severity, plain=plain, text=text, evidence=tuple(evidence)
    )


def _fault(fault: Fault) -> ComparisonFinding:
    more = fault.count - len(fault.names[:_NAMED])
    names = joined([*fault.names[:_NAMED], *([f"{more:,} more"] if more > 0 else [])])
    return _finding(_as_finding(fault.code), "warning", fault.text, [names] if names else [])


def _entries(content: ContentRecord) -> list[ComparisonFinding]:
    """Single entries and scales that rounding does not explain."""
    found = []
    for tensor in content.tensors:
        if tensor.content != "few_entries" or tensor.rounding is None:
            continue
        rounding = tensor.rounding
        lines = [
            f"at {list(entry.index)}: {entry.text_a} in {SIDE_A}, {entry.text_b} in {SIDE_B}"
            + (f"; {entry.bits}" if entry.bits else "")
            for entry in rounding.entries
        ] + [
            f"scale of {scale.place}: {number(scale.found, 6)} where {number(scale.expected, 6)} "
            "is expected" + (f"; {scale.bits}" if scale.bits else "")
            for scale in rounding.scales
        ]
        what = [counted(rounding.outside, "entry", "entries")] if rounding.outside else []
        what += [counted(rounding.groups_outside, "scale")] if rounding.groups_outside else []
        text = f"{tensor.name_b}: {joined(what)} that rounding does not explain."
        # In models that differ everywhere, a vector that hardly moved is nothing by itself.
        severity: Severity = "strong" if content.relation == "few_entries" else "info"
        found.append(_finding("entries-outside-rounding", severity, text, lines[:_NAMED]))
    return found


def _tensors(content: ContentRecord) -> list[ComparisonFinding]:
    found = []
    broken = [
        t.name_b
        for t in content.tensors
        if t.difference and (t.difference.not_finite_a or t.difference.not_finite_b)
    ]
    scaled = [
        t.name_b
        for t in content.tensors
        if t.content == "different" and t.difference and factor_between(t.difference.scale_b)
    ]
    reordered = [t.name_b for t in content.tensors if t.difference and t.difference.rows_permuted]
    turned = [
        t.name_b
        for t in content.tensors
        if is_rearranged(t) and t.difference and t.difference.transposed
    ]
    reshaped = [t.name_b for t in content.tensors if t.content == "reshaped"]
    unread = [t.name_b for t in content.tensors if t.content == "unread"]
    kinds: tuple[tuple[str, Severity, list[str], str], ...] = (
        ("not-finite", "warning", broken, "NaN or infinity on a side"),
        ("scaled-copy", "notable", scaled, "the other side's values times one factor"),
        ("rows-permuted", "notable", reordered, "the other side's rows in another order"),
        ("transposed", "notable", turned, "the other side's values transposed"),
        ("reshaped-tensors", "warning", reshaped, "another shape on each side"),
        ("unread-tensors", "warning", unread, "values that could not be read or placed"),
    )
    for code, severity, names, words in kinds:
        if names:
            verb = "has" if len(names) == 1 else "have"
            text = f"{counted(len(names), 'tensor')} {verb} {words}."
            found.append(_finding(code, severity, text, [joined(names, limit=_NAMED)]))
    for side, alone in ((SIDE_A, content.unpaired_a), (SIDE_B, content.unpaired_b)):
        if alone.tensors:
            verb = "has" if alone.tensors == 1 else "have"
            text = (
                f"{counted(alone.tensors, 'tensor')} of {side} ({alone.parameters:,} parameters) "
                f"{verb} no counterpart on the other side, and nothing here is about "
                f"{'it' if alone.tensors == 1 else 'them'}."
            )
            # Masks and positions are stored by some writers and left out by others.
            severity = "info" if alone.buffers == alone.tensors else "warning"
            names = [joined(alone.names, limit=_NAMED)]
            found.append(_finding("unpaired-tensors", severity, text, names))
    return found


def _intruders(change: ChangeRecord) -> list[ComparisonFinding]:
    found = []
    for field, side, other in (("a", SIDE_A, SIDE_B), ("b", SIDE_B, SIDE_A)):
        some = []
        for entry in change.maps:
            intruders = getattr(entry, f"intruders_{field}")
            if intruders is None or intruders.p_adjusted is None:
                continue
            count = max(intruders.write or 0, intruders.read or 0)
            if count and intruders.p_adjusted <= _LEVEL:
                some.append((entry, count))
        if some:
            total = sum(count for _, count in some)
            text = (
                f"{side} has {counted(total, 'leading direction')} in "
                f"{counted(len(some), 'map')} that are not among those of {other} (intruders): "
                "a random update of the same size would not have made them."
            )
            names = joined((f"{entry.name} {count}" for entry, count in some), limit=_NAMED)
            found.append(_finding("intruders", "notable", text, [names]))
    return found


def _energies(change: ChangeRecord) -> list[ComparisonFinding]:
    """Maps whose change lies in the leading spaces of both sides, or outside of both.

    Both, since the spaces of the side that was made by the change lean towards it.
    """
    tested: list[tuple[MapChange, float, float]] = []
    for entry in change.maps:
        shares = [
            energies.write_leading
            for energies in (entry.energies_a, entry.energies_b)
            if energies is not None
        ]
        known = [(s.ratio, s.log10_p) for s in shares if s.ratio is not None]
        p_values = [log10_p for _, log10_p in known if log10_p is not None]
        if len(known) < 2 or len(p_values) < 2:
            continue
        nearest = min((ratio for ratio, _ in known), key=lambda r: abs(math.log(max(r, 1e-9))))
        agree = len({ratio > 1 for ratio, _ in known}) == 1
        tested.append((entry, nearest, max(p_values) if agree else 0.0))
    bound = math.log10(_LEVEL) - math.log10(max(1, len(tested)))
    sure = [(entry, ratio) for entry, ratio, log10_p in tested if log10_p <= bound]
    found = []
    for code, deed, some in (
        ("change-in-leading-space", "inside", [s for s in sure if s[1] > 1]),
        ("change-outside-leading-space", "outside", [s for s in sure if s[1] < 1]),
    ):
        if some:
            ratios = [ratio for _, ratio in some]
            text = (
                f"In {len(some):,} of {counted(len(tested), 'map')} the change lies {deed} the "
                f"leading output directions of both sides more than by chance: {typical(ratios)} "
                "times what a random change of the same spectrum gives."
            )
            far = sorted(some, key=lambda entry: -abs(math.log(max(entry[1], 1e-9))))
            names = joined((f"{entry.name} {number(r)}" for entry, r in far), limit=_NAMED)
            found.append(_finding(code, "notable", text, [names, f"at {_LEVEL}, Bonferroni"]))
    return found


def _heads(change: ChangeRecord) -> list[ComparisonFinding]:
    found = []
    for kind, words in (("qk", "what they attend to (QK)"), ("ov", "what they write (OV)")):
        heads = [
            (moved, product.name)
            for product in change.products
            if product.kind == kind and product.head is not None and product.status == "ok"
            if (moved := relative_change(product)) is not None
        ]
        if len(heads) < 2:
            continue
        middle = median(moved for moved, _ in heads)
        far = sorted((head for head in heads if head[0] >= _TIMES * middle), reverse=True)
        if far:
            top = joined((f"{name} {number(moved, 2)}" for moved, name in far), limit=_HEADS)
            text = (
                f"{counted(len(far), 'head')} of {len(heads):,} changed {words} at least twice as "
                f"far as the median head ({number(middle, 2)} {OF_BOTH}): {top}."
            )
            found.append(_finding("heads-moved", "info", text))
    return found


def _basis(change: ChangeRecord) -> list[ComparisonFinding]:
    """Pairs whose maps moved far and whose product did not: a change of basis."""
    some = []
    for product in change.products:
        raw, floor = over_both(product.raw_relative_a, product.raw_relative_b), product.floor
        moved = relative_change(product)
        if raw is None or floor is None or moved is None:
            continue
        if raw > _BASIS * max(moved, floor):
            some.append(product)
    if not some:
        return []
    text = (
        f"{counted(len(some), 'pair')} of maps changed basis and hardly what they compute: the "
        "maps moved more than ten times as far as their product."
    )
    return [_finding("basis-changed", "notable", text, [joined((p.name for p in some), limit=4)])]


def _near_copies(change: ChangeRecord) -> list[ComparisonFinding]:
    found = []
    for field, side in (("a", SIDE_A), ("b", SIDE_B)):
        pairs = [
            f"layer {group.layer} {group.space}: {first} and {second}"
            for group in change.heads
            for first, second in getattr(group, f"near_copies_{field}")
        ]
        if pairs:
            text = f"{counted(len(pairs), 'pair')} of heads are near-copies in {side} alone."
            names = [joined(pairs, limit=_NAMED)]
            found.append(_finding("near-copies-changed", "notable", text, names))
    return found


def _diagnostics(change: ChangeRecord) -> list[ComparisonFinding]:
    flagged: dict[str, int] = {}
    for entry in change.diagnostics:
        if entry.flagged:
            flagged[entry.observable] = flagged.get(entry.observable, 0) + 1
    if not flagged:
        return []
    words = joined(
        f"{_title(name)} of {counted(count, 'pair')}"
        for name, count in sorted(flagged.items(), key=lambda entry: (-entry[1], entry[0]))
    )
    text = (
        f"Changed by more than their noise and by more than is negligible: {words} "
        f"({change.diagnostics_compared:,} numbers compared)."
    )
    return [_finding("diagnostics-changed", "info", text)]


def _title(observable: str) -> str:
    words = EXPLANATIONS.get(observable)
    return observable if words is None else words.title
