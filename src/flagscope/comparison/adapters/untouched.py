"""Tensors that an adapter replaces whole, and those that it does not touch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.lora import AdapterWeights, TargetNames
from flagscope.checkpoint.widen import widen
from flagscope.comparison.adapters.targets import Target, merged_name
from flagscope.comparison.row_blocks import row_blocks, row_index
from flagscope.errors import UnknownDtypeError
from flagscope.records.comparison.adapters import UntouchedRecord, WholeReplay

_READ = 1 << 22
# Names that a record lists.
_LISTED = 20
# Errors of rounding to a packed format's own grid, in steps.
_HALF = 0.51


@dataclass
class Difference:
    """How two tensors differ; `different` counts entries that a change of type does not explain."""

    different: int = 0
    square: float = 0.0
    reference: float = 0.0

    @property
    def relative(self) -> float | None:
        """‖second - first‖/‖first‖; None for a zero first tensor and where it is not finite."""
        value = math.sqrt(self.square / self.reference) if self.reference > 0 else math.nan
        return value if math.isfinite(value) else None


def difference(one: Checkpoint, name: str, two: Checkpoint, other: str) -> Difference:
    """Compare two tensors of one shape, a block of rows at a time."""
    found = Difference()
    shape = one.tensors[name].shape
    for rows in row_blocks(shape, _READ):
        index = row_index(shape, rows)
        first, second = one.read(name, index), two.read(other, index)
        wide = widen(first, scale=one.scale(name, index))
        values = widen(second, scale=two.scale(other, index))
        same = _same(wide, values, first, second)
        step = two.step(other, index)
        if step is not None and not bool(same.all()):
            same |= (wide - values).abs() <= _HALF * step
        found.different += int((~same).sum())
        error = torch.where(same, torch.zeros_like(wide), values - wide)
        found.square += float(error.square().sum())
        found.reference += float(wide.square().sum())
    return found


def _same(wide: Tensor, values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Equal in value, or after the first is rounded to the second's type; NaN equals NaN."""
    same = (wide == values) | (wide.isnan() & values.isnan())
    if second.is_floating_point() and first.dtype != second.dtype:
        same |= wide.to(second.dtype).to(torch.float64) == values
    return same


def whole_records(
    adapter: AdapterWeights, base: Checkpoint, merged: Checkpoint
) -> list[WholeReplay]:
    """Every tensor that the adapter stores whole, or trains as a bias of its factors."""
    ours, theirs = TargetNames(base.tensors), TargetNames(merged.tensors)
    targets = {factors.target for factors in adapter.factors.values()}
    records = []
    for name, file in adapter.whole.items():
        if name in targets:
            records.append(WholeReplay(name=name, tensor=ours.found(name), status="base_copy"))
            continue
        record = _whole(adapter, name, file, (base, ours.found(name)), (merged, theirs.found(name)))
        if record.status == "other" and _is_tied_copy(adapter, name, merged, theirs):
            record = record.model_copy(update={"status": "base_copy"})
        records.append(record)
    for factors in adapter.factors.values():
        if factors.bias is not None:
            name = factors.module + ".bias"
            change = adapter.values(factors.bias) * factors.scaling
            records.append(
                _bias(name, change, (base, ours.found(name)), (merged, theirs.found(name)))
            )
    return records


def _is_tied_copy(
    adapter: AdapterWeights, name: str, merged: Checkpoint, names: TargetNames
) -> bool:
    """Whether it is the copy of a head that shares its weights with an embedding that is merged."""
    file, tensor = adapter.whole[name], merged_name(name, names)
    for factors in adapter.factors.values():
        copy, other = adapter.whole.get(factors.target), merged_name(factors.target, names)
        if copy is None or tensor is None or other is None:
            continue
        stored = adapter.file.tensors
        if stored[copy].shape != stored[file].shape:
            continue
        if merged.tensors[tensor].shape != merged.tensors[other].shape:
            continue
        if not difference(adapter.file, file, adapter.file, copy).different:
            return not difference(merged, tensor, merged, other).different
    return False


_Place = tuple[Checkpoint, str | None]


def _whole(
    adapter: AdapterWeights, name: str, file: str, ours: _Place, theirs: _Place
) -> WholeReplay:
    merged, tensor = theirs
    shape = adapter.file.tensors[file].shape
    if tensor is None:
        return WholeReplay(name=name, tensor=None, status="no_target")
    if merged.tensors[tensor].shape != shape:
        return WholeReplay(name=name, tensor=tensor, status="other")
    applied = difference(adapter.file, file, merged, tensor)
    base, base_tensor = ours
    fits = base_tensor is not None and base.tensors[base_tensor].shape == shape
    as_base = base_tensor is not None and fits and not difference(
        base, base_tensor, merged, tensor
    ).different  # fmt: skip
    return _compared(name, tensor, applied.different, as_base=as_base)


def _bias(name: str, change: Tensor, ours: _Place, theirs: _Place) -> WholeReplay:
    (base, first), (merged, second) = ours, theirs
    if first is None or second is None:
        return WholeReplay(name=name, tensor=second, status="no_target")
    before = widen(base.read(first), scale=base.scale(first))
    stored = merged.read(second)
    after = widen(stored, scale=merged.scale(second))
    if before.shape != change.shape or after.shape != change.shape:
        return WholeReplay(name=name, tensor=second, status="other")
    # Within a unit in the last place: the product and the sum are rounded once each.
    unit = torch.finfo(stored.dtype).eps if stored.is_floating_point() else 0.0
    allowed = unit * (after.abs() + change.abs())
    different = int(((after - before - change).abs() > allowed).sum())
    return _compared(name, second, different, as_base=bool((after == before).all()))


def _compared(name: str, tensor: str, different: int, *, as_base: bool) -> WholeReplay:
    """The record from how many entries are not the adapter's, and whether all are the base's."""
    if different == 0:
        status = "same_as_base" if as_base else "applied"
    else:
        status = "left_out" if as_base else "other"
    return WholeReplay(name=name, tensor=tensor, status=status, entries_different=different)


def untouched_record(
    adapter: AdapterWeights, base: Checkpoint, merged: Checkpoint, targets: list[Target]
) -> UntouchedRecord:
    """Every tensor of both models that the adapter does not change."""
    ours, theirs = TargetNames(base.tensors), TargetNames(merged.tensors)
    touched = {target.tensor for target in targets}
    names = (*adapter.whole, *(module + ".weight" for module in adapter.tokens),
             *(f.module + ".bias" for f in adapter.factors.values() if f.bias))  # fmt: skip
    touched |= {ours.found(name) for name in names}
    touched.discard(None)
    left = [n for n in base.tensors if n not in touched and n not in base.auxiliary]
    places = {name: merged_name(name, theirs) for name in left}
    changed: list[str] = []
    refused: list[str] = []
    compared, largest = 0, None
    entries, moved = 0, 0
    for name, other in places.items():
        if other is None:
            continue
        shapes = base.tensors[name].shape, merged.tensors[other].shape
        if shapes[0] != shapes[1]:
            refused.append(f"{name}: shape {shapes[0]} against {shapes[1]}")
            continue
        try:
            found = difference(base, name, merged, other)
        except UnknownDtypeError as error:
            refused.append(f"{name}: {error}")
            continue
        compared += 1
        entries += math.prod(shapes[0])
        if found.different and not _is_tied(name, touched, base, merged, theirs):
            changed.append(name)
            moved += math.prod(shapes[0])
            if found.relative is not None:
                largest = max(largest or 0.0, found.relative)
    lost = [name for name, other in places.items() if other is None]
    known = set(places.values())
    new = [
        name for name in merged.tensors
        if name not in known and name not in merged.auxiliary and ours.found(name) is None
    ]  # fmt: skip
    return UntouchedRecord(
        compared=compared, changed=len(changed), largest_relative=largest,
        changed_share=moved / entries if entries else None,
        changed_names=changed[:_LISTED], only_base=lost[:_LISTED], only_base_count=len(lost),
        only_merged=new[:_LISTED], only_merged_count=len(new), not_compared=refused[:_LISTED],
    )  # fmt: skip


def _is_tied(
    name: str,
    touched: set[str | None],
    base: Checkpoint,
    merged: Checkpoint,
    names: TargetNames,
) -> bool:
    """Whether it equals, in both models, a tensor that the adapter changes: one stored twice."""
    for tensor in touched:
        if tensor is None or base.tensors[tensor].shape != base.tensors[name].shape:
            continue
        pair = merged_name(name, names), merged_name(tensor, names)
        if pair[0] is None or pair[1] is None or difference(base, name, base, tensor).different:
            continue
        if merged.tensors[pair[0]].shape == merged.tensors[pair[1]].shape:
            return not difference(merged, pair[0], merged, pair[1]).different
    return False
