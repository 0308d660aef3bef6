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
    matrices = [tensor for tensor in tensors if is_evidence(tensor) and tensor.difference]
    paired = sum(_entries(tensor) for tensor in tensors)
    if not tensors or paired < _COMPARABLE * _parameters(record):
        shared = [tensor for tensor in matrices if same(tensor) and _entries(tensor)]
        big = any(_entries(tensor) >= _LEAST_SHARED for tensor in shared)
        return "shares_parts" if big else "different_architectures"
    if any(layers.changed for layers in record.layers):
        return "layers_changed"
    whole = not (record.unpaired_a.tensors or record.unpaired_b.tensors) or _only_buffers(record)
    kinds = {tensor.content for tensor in tensors}
    if whole and kinds <= {"identical"} and not _cut(tensors):
        return "identical"
    if whole and kinds <= {"identical", "rounding"} and not _cut(tensors):
        return "reencoded"
    if whole and kinds <= {"identical", "rounding", "few_entries"} and not _cut(tensors):
        return "few_entries"
    if any(mixture is not None and mixture.linear for mixture in (record.mixture_a,
                                                                  record.mixture_b)):  # fmt: skip
        return "merge"
    return _by_tests(record, matrices)


def _by_tests(record: ContentRecord, matrices: Sequence[TensorContent]) -> Relation:
    """The relation of models that differ in many entries, by their matrices."""
    tests = test_count(record)
    equal = sum(_entries(tensor) for tensor in matrices if same(tensor))
    like = [tensor for tensor in matrices if not same(tensor) and correlated(tensor, tests)]
    unlike = [tensor for tensor in matrices if not same(tensor) and not correlated(tensor, tests)]
    near = sum(map(_entries, like))
    far = sum(map(_entries, unlike))
    if equal + near + far == 0:
        return "unclear"
    alone = record.unpaired_a.parameters + record.unpaired_b.parameters
    more = alone or _cut(record.tensors)
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
