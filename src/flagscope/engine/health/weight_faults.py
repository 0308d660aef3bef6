"""Faults of single tensors, put together by check and by whether sound models have them too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set

import numpy as np

from flagscope.engine.health.accounted import Accounted, Side
from flagscope.engine.health.tensor_health import Copies, TensorHealth, unpacked
from flagscope.engine.plan.look import Look
from flagscope.engine.plan.name_patterns import index_text, name_patterns
from flagscope.records import FaultyTensor, WeightCheck, WeightFault

LISTED, _EXAMPLES = 6, 6
# Factors of adapters that are zero before they are trained.
_FRESH = re.compile(r"lora_(?:B|up|embedding_A)\b")


def weight_faults(
    looks: Mapping[str, Look],
    health: Mapping[str, TensorHealth],
    *,
    mapped: Set[str],
    accounted: Accounted,
    never: Mapping[WeightCheck, Set[str]],
) -> list[WeightFault]:
    """Faults of tensors, those that sound models have behind the others.

    Parameters
    ----------
    looks, health
        By the name of the tensor, in the order of the file.
    mapped
        Tensors in which the graph has maps: in these a row of zeros is amiss.
    accounted
        Rows and columns whose zeros or copies are said of neurons or heads already.
    never
        Other tensors in which a check finds nothing unless it is amiss.
    """
    faults: dict[tuple[WeightCheck, bool], list[FaultyTensor]] = {}
    for name, one in health.items():
        for check, fault, expected in _of_tensor(looks[name], one, mapped, accounted):
            sound = expected and name not in never.get(check, ())
            faults.setdefault((check, sound), []).append(fault)
    entries = [_entry(check, expected, some) for (check, expected), some in faults.items()]
    order = ["nan", "infinity", "all-zero", "constant", "zero-rows", "zero-columns",
             "duplicate-rows", "duplicate-columns"]  # fmt: skip
    return sorted(entries, key=lambda entry: (entry.expected, order.index(entry.check)))


def _of_tensor(
    look: Look, one: TensorHealth, mapped: Set[str], accounted: Accounted
) -> Iterator[tuple[WeightCheck, FaultyTensor, bool]]:
    name, vector = one.tensor, look.kind == "vector"
    expected = name not in mapped or _FRESH.search(name) is not None
    if one.nan:
        yield "nan", FaultyTensor(name=name, count=one.nan, of=one.entries), False
    if one.infinite:
        yield "infinity", FaultyTensor(name=name, count=one.infinite, of=one.entries), False
    if one.constant is not None and one.entries > 1:
        check: WeightCheck = "all-zero" if one.constant == 0 else "constant"
        yield check, FaultyTensor(name=name, count=one.entries, of=one.entries), vector or expected
        return
    if vector:
        return
    matrices, rows, columns, _ = look.sizes
    sides: tuple[tuple[Side, int, str, Copies], ...] = (
        ("rows", rows, one.zero_rows, one.copied_rows),
        ("columns", columns, one.zero_columns, one.copied_columns),
    )
    for side, length, zero, copies in sides:
        flags = unpacked(zero, matrices * length)
        indices = np.flatnonzero(flags).tolist()
        if not accounted.covers(name, side, len(indices), "zero"):
            fault = _listed(name, len(indices), matrices * length, indices)
            yield "zero-rows" if side == "rows" else "zero-columns", fault, expected
        if not accounted.covers(name, side, copies.count, "copies"):
            fault = _copied(name, copies, matrices * length)
            yield "duplicate-rows" if side == "rows" else "duplicate-columns", fault, expected


def _copied(name: str, copies: Copies, length: int) -> FaultyTensor:
    return _listed(name, copies.count, length, [index for index, _ in copies.pairs])


def _listed(name: str, count: int, of: int, indices: list[int]) -> FaultyTensor:
    return FaultyTensor(name=name, count=count, of=of, where=index_text(indices))


def _entry(check: WeightCheck, expected: bool, tensors: list[FaultyTensor]) -> WeightFault:
    names, unlisted = name_patterns([one.name for one in tensors], limit=LISTED)
    return WeightFault(
        check=check, expected=expected, tensors=len(tensors),
        count=sum(one.count for one in tensors), of=sum(one.of for one in tensors),
        names=names, unlisted=unlisted,
        examples=sorted(tensors, key=lambda one: -one.count)[:_EXAMPLES],
    )  # fmt: skip
