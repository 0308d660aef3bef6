"""One pair of tensors, compared: its record, and the sums that parts of the model add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from flagscope.checkpoint import Checkpoint, TensorInfo
from flagscope.comparison.content.checks import SideName
from flagscope.comparison.content.differences import EntrySums
from flagscope.comparison.content.evidence import CastEvidence, pooled
from flagscope.comparison.content.pairing import Pair
from flagscope.comparison.content.reading import (
    broken_in_equal,
    comparable,
    first_rows,
    rows_of,
    same_bits,
    same_integers,
)
from flagscope.comparison.content.rounding import ScaleRules, Settled, rounding_checks, settled
from flagscope.comparison.content.scaled import Scales, common_rule, group_scales
from flagscope.errors import FlagscopeError
from flagscope.records.comparison.content_parts import (
    ContentClass,
    Difference,
    Rounding,
    TensorContent,
)
from flagscope.records.comparison.content_tests import same

# A transpose is looked for where the cosine is not larger, and compared where the first rows are
# as near as this, which is further than rounding to 4 bits.
_LIKE, _NEAR = 0.5, 0.2


@dataclass(frozen=True)
class Compared:
    """The record of a pair, and its sums; None where the sides are equal or were not read.

    Attributes
    ----------
    cast, without_cast
        What shows that the cast of the record was made, and the record if it was not; None where
        the record rests on no cast.
    """

    pair: Pair
    record: TensorContent
    sums: EntrySums | None
    cast: CastEvidence | None = None
    without_cast: TensorContent | None = None


def entry_count(shape: tuple[int, ...]) -> int:
    """Entries of a tensor."""
    count = 1
    for size in shape:
        count *= size
    return count


def scale_rules(pairs: tuple[Pair, ...], a: Checkpoint, b: Checkpoint) -> Mapping[Pair, ScaleRules]:
    """Scales of each pair that has some, with the rule that nearly all of a side's follow.

    Rules are pooled over tensors of one type and one side, since many tensors have one scale.
    """
    found: dict[tuple[SideName, str, int], dict[Pair, Scales]] = {}
    sides: tuple[tuple[SideName, Checkpoint], ...] = (("a", a), ("b", b))
    for pair in pairs:
        for side, checkpoint in sides:
            info, other = (pair.a, pair.b) if side == "a" else (pair.b, pair.a)
            if info.name not in checkpoint.scaled or not comparable(other):
                continue
            try:
                if same_bits(pair, a, b):
                    continue
                scales = group_scales(pair, side, a, b)
            except FlagscopeError:
                continue  # the comparison of the pair says why it cannot be read
            if scales is not None:
                found.setdefault((side, info.dtype, scales.stored.ndim), {})[pair] = scales
    rules: dict[Pair, ScaleRules] = {}
    for (side, _, _), every in found.items():
        rule = common_rule(list(every.values()))
        for pair, scales in every.items():
            rules.setdefault(pair, {})[side] = (scales, rule)
    return rules


def compared_pair(pair: Pair, a: Checkpoint, b: Checkpoint, scales: ScaleRules) -> Compared:
    """The two tensors of a pair, compared entry by entry.

    What cannot be read has the status that says why.
    """
    try:
        return _compared(pair, a, b, scales)
    except FlagscopeError as error:
        return Compared(pair, _record(pair, "unread", status=str(error)), None)


def _compared(pair: Pair, a: Checkpoint, b: Checkpoint, scales: ScaleRules) -> Compared:
    if pair.common_shape is None:
        return Compared(pair, _record(pair, "reshaped", status="the shapes differ"), None)
    if 0 in pair.common_shape:
        kind: ContentClass = "identical" if pair.a.shape == pair.b.shape else "reshaped"
        status = "no entries" if kind == "identical" else "one side has no entries"
        return Compared(pair, _record(pair, kind, status=status), None)
    broken = broken_in_equal(pair, a, b)
    if broken is not None:
        return Compared(pair, _record(pair, "identical", difference=_equal(pair, broken)), None)
    if pair.a.dtype != pair.b.dtype and same_integers(pair, a, b):
        status = f"equal integers of types {' and '.join(sorted((pair.a.dtype, pair.b.dtype)))}"
        return Compared(
            pair, _record(pair, "rounding", difference=_equal(pair), status=status), None
        )
    if not (comparable(pair.a) and comparable(pair.b)):
        kind = "different" if pair.a.dtype == pair.b.dtype else "unread"
        status = f"types {pair.a.dtype} and {pair.b.dtype} are compared by their bits alone"
        return Compared(pair, _record(pair, kind, status=status), None)
    sums, checks = EntrySums(), rounding_checks(pair, scales)
    for rows in rows_of(pair, a, b):
        sums.add(rows)
        for check in checks:
            check.add(rows)
    equal = sums.equal == sums.entries
    found = settled(checks, sums.entries, equal=equal)
    if found.content == "different" and _may_be_turned(pair, sums, a, b):
        turned = _compared(replace(pair, turned=True), a, b, {})
        if same(turned.record):
            return replace(turned, pair=pair)
    record = _settled_record(pair, found, sums)
    if found.cast is None:
        return Compared(pair, record, sums)
    without = settled(checks, sums.entries, equal=equal, casts=False)
    return Compared(pair, record, sums, found.cast, _settled_record(pair, without, sums))


def _settled_record(pair: Pair, found: Settled, sums: EntrySums) -> TensorContent:
    content, rounding = found.content, found.rounding
    difference = sums.record(transposed=pair.transposed)
    # Rows that only one side has are a change of shape, whatever the common rows hold.
    plain = pair.a.dtype == pair.b.dtype and pair.a.shape != pair.b.shape
    if plain and content == "rounding" and rounding.rule is None and not pair.transposed:
        content = "identical"  # the common rows are
    status = "ok" if pair.a.shape == pair.b.shape or pair.transposed else _more_rows(pair)
    return _record(pair, content, rounding=rounding, difference=difference, status=status)


def with_shown_casts(done: Sequence[Compared]) -> list[Compared]:
    """The pairs, casts taken back where neither the tensor nor its model shows that one was made.

    A tensor that is too small or too constant to say counts with those that follow the same cast.
    """
    casts: dict[tuple[str | None, str | None], list[CastEvidence]] = {}
    for entry in done:
        if entry.cast is not None and entry.cast.shown is not False:
            casts.setdefault(_cast_key(entry), []).append(entry.cast)
    shown = {
        key
        for key, every in casts.items()
        if any(cast.shown for cast in every) or pooled(every).shown
    }
    return [_taken_back(entry, shown) for entry in done]


def _cast_key(entry: Compared) -> tuple[str | None, str | None]:
    rounding = entry.record.rounding
    return (rounding.rule, rounding.rounded) if rounding else (None, None)


def _taken_back(entry: Compared, shown: Set[tuple[str | None, str | None]]) -> Compared:
    if entry.cast is None or entry.without_cast is None:
        return entry
    if entry.cast.shown is not False and _cast_key(entry) in shown:
        return entry
    return replace(entry, record=entry.without_cast, cast=None, without_cast=None)


def _may_be_turned(pair: Pair, sums: EntrySums, a: Checkpoint, b: Checkpoint) -> bool:
    """Whether the first rows of a square matrix are the first columns of the other side's."""
    shape = pair.a.shape
    if len(shape) != 2 or shape[0] != shape[1] or pair.b.shape != shape or pair.turned:
        return False
    if abs(sums.cosine or 0.0) > _LIKE:
        return False
    rows = first_rows(replace(pair, turned=True), a, b)
    if rows is None:
        return False
    gap, norm = (rows.a.values - rows.b.values).norm(), rows.a.values.norm()
    return bool(gap <= _NEAR * norm) and bool(norm > 0)


def _more_rows(pair: Pair) -> str:
    common, a, b = pair.common_shape, pair.a.shape, pair.b.shape
    rows = common[0] if common else 0
    return f"{rows} rows that both hold were compared; the longer side has {max(a[0], b[0])}"


def _equal(pair: Pair, broken: int = 0) -> Difference:
    count = entry_count(pair.a.shape)
    rows = pair.a.shape[0] if len(pair.a.shape) > 1 else None
    return Difference(
        entries=count, equal=count, not_finite_a=broken, not_finite_b=broken,
        relative_a=0.0, relative_b=0.0,
        cosine=None, cosine_log10_p=None, agreement=None, agreement_z=None, product_z=None,
        scale_a=None, scale_b=None, rows_shared=rows, rows_permuted=False, transposed=False,
    )  # fmt: skip


def _record(
    pair: Pair,
    content: ContentClass,
    *,
    rounding: Rounding | None = None,
    difference: Difference | None = None,
    status: str = "ok",
) -> TensorContent:
    return TensorContent(
        name_a=pair.a.name, name_b=pair.b.name, by=pair.by, part=pair.part,
        layer_a=pair.layer_a, layer_b=pair.layer_b,
        type_a=_type(pair.a), type_b=_type(pair.b), shape_a=pair.a.shape, shape_b=pair.b.shape,
        content=content, rounding=rounding, difference=difference, status=status,
    )  # fmt: skip


def _type(info: TensorInfo) -> str:
    return info.quantised or info.dtype
