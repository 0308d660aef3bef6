"""How two checkpoints are related, as far as what was measured says."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records.comparison.content import ContentRecord
from flagscope.records.comparison.content_parts import (
    Relation,
    TensorContent,
)
from flagscope.records.comparison.content_tests import (
    correlated,
    is_evidence,
    is_rearranged,
    is_tested,
    same,
    test_count,
)

# Where less of the parameters of both sides has a counterpart, architectures are different.
_COMPARABLE = 0.1
# Of the entries tested, this share must lie in tensors that are correlated beyond chance.
_MOST = 0.5
# Entries below which nothing is said about independence.
_LEAST_ENTRIES = 4096
# Entries that a part must have to be a part that is shared.
_LEAST_SHARED = 1024


def relation_of(record: ContentRecord) -> Relation:
    """The relation that the numbers of a record support; `unclear` where they support none."""
    tensors = [tensor for tensor in record.tensors if tensor.part != "buffer"]
    if not tensors and record.tensors:
        return _copy(record) or "unclear"
    matrices = [tensor for tensor in tensors if is_evidence(tensor) and tensor.difference]
    paired = sum(_entries(tensor) for tensor in tensors)
    if not tensors or paired < _COMPARABLE * _parameters(record):
        shared = [tensor for tensor in matrices if same(tensor) and _entries(tensor)]
        big = any(_entries(tensor) >= _LEAST_SHARED for tensor in shared)
        return "shares_parts" if big else "different_architectures"
    if any(layers.changed for layers in record.layers):
        return "layers_changed"
    copy = _copy(record) or _rearranged(record)
    if copy is not None:
        return copy
    if any(mixture is not None and mixture.linear for mixture in (record.mixture_a,
                                                                  record.mixture_b)):  # fmt: skip
        return "merge"
    return _by_tests(record, matrices)


def _copy(record: ContentRecord) -> Relation | None:
    """The relation of two models of which every tensor, buffers among them, is the same."""
    kinds = {tensor.content for tensor in record.tensors}
    turned = any(is_rearranged(tensor) for tensor in record.tensors)
    if not _whole(record) or turned or not record.tensors:
        return None
    if kinds <= {"identical"}:
        return "identical"
    if kinds <= {"identical", "rounding"}:
        return "reencoded"
    return "few_entries" if kinds <= {"identical", "rounding", "few_entries"} else None


def _rearranged(record: ContentRecord) -> Relation | None:
    """Whether every tensor is the same or rearranged, and enough entries lie in these."""
    moved = [tensor for tensor in record.tensors if is_rearranged(tensor)]
    known = all(same(tensor) or is_rearranged(tensor) for tensor in record.tensors)
    enough = sum(map(_entries, moved)) >= _LEAST_SHARED
    return "rearranged" if known and enough and _whole(record) else None


def _whole(record: ContentRecord) -> bool:
    """Whether no tensor of either side lacks a counterpart, buffers aside, and no row does."""
    alone = record.unpaired_a.tensors or record.unpaired_b.tensors
    return not _cut(record.tensors) and (not alone or _only_buffers(record))


def _by_tests(record: ContentRecord, matrices: Sequence[TensorContent]) -> Relation:
    """The relation of models that differ in many entries, by their matrices."""
    tests = test_count(record)
    equal = sum(_entries(tensor) for tensor in matrices if same(tensor))
    moved = [tensor for tensor in matrices if not same(tensor)]
    like = [tensor for tensor in moved if is_rearranged(tensor) or correlated(tensor, tests)]
    unlike = [tensor for tensor in moved if tensor not in like and is_tested(tensor)]
    near = sum(map(_entries, like))
    far = sum(map(_entries, unlike))
    if equal + near + far == 0:
        return "unclear"
    alone = record.unpaired_a.parameters + record.unpaired_b.parameters
    # What was not tested, as NaN, is not the same either; nor are buffers that differ.
    open_ends = [tensor for tensor in record.tensors if not same(tensor)]
    more = alone or _cut(record.tensors) or open_ends
    if equal >= _LEAST_SHARED and (far > near or (not near and (far or more))):
        return "shares_parts"
    if equal + near >= _MOST * (equal + near + far):
        return "related"
    if near or equal:
        return "unclear"
    return "unrelated" if far >= _LEAST_ENTRIES else "unclear"


def _entries(tensor: TensorContent) -> int:
    return tensor.difference.entries if tensor.difference else 0


def _cut(tensors: Sequence[TensorContent]) -> bool:
    """Whether one side has rows that the other lacks."""
    return any(
        tensor.shape_a != tensor.shape_b and not (tensor.difference or _NONE).transposed
        for tensor in tensors
    )


def _parameters(record: ContentRecord) -> int:
    """Parameters of the smaller side."""
    paired = sum(count.parameters for count in record.counts)
    return paired + min(record.unpaired_a.parameters, record.unpaired_b.parameters)


def _only_buffers(record: ContentRecord) -> bool:
    """Whether what has no counterpart are buffers alone, as far as all of their names are known."""
    for unpaired in (record.unpaired_a, record.unpaired_b):
        if unpaired.buffers < unpaired.tensors:
            return False
    return True


class _NoDifference:
    transposed = False


_NONE = _NoDifference()
