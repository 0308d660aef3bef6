"""Finds pairs that something else may share, so that the freedom of their neurons is not known.

Within one nn.Sequential, nothing else has access to the output of one map before the next. Anywhere
else, a sum, a second reader or a concatenation has, if widths allow it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from flagscope.arch.reading.modules import Matrix
from flagscope.arch.reading.norm_lists import Vector
from flagscope.arch.reading.segments import Placed


@dataclass
class Doubts:
    """Writers whose readers are not fully known, with reasons.

    Attributes
    ----------
    open
        Tensors of these writers.
    vectors
        Norms and scales that may follow them.
    shared
        Pairs whose neurons another part of the same width may hold as well.
    """

    open: set[str] = field(default_factory=set)
    vectors: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)


def doubts_of(
    sequences: Sequence[Sequence[Placed]], vectors: Sequence[Vector], matrices: Collection[Matrix]
) -> Doubts:
    """The doubts about the pairs of sequences.

    Parameters
    ----------
    sequences
        Maps that follow each other.
    vectors
        Norms and scales whose position is not known.
    matrices
        All matrices of the model.
    """
    doubts = Doubts()
    placed = {entry.item.matrix.tensor for sequence in sequences for entry in sequence}
    alone = len(sequences) == 1 and len(placed) == len(matrices)
    widths = Counter(
        n for sequence in sequences for entry in sequence for n in (entry.out, entry.inp)
    )
    for write, read in (pair for sequence in sequences for pair in pairwise(sequence)):
        writer, reader = write.item, read.item
        seat = writer.seat if writer.seat == reader.seat else None
        near = [
            vector.name for vector in vectors if vector.length == write.out
            and vector.may_stand_between((writer.matrix.path, reader.matrix.path))
            and (seat is None or vector.parent == seat)
        ]  # fmt: skip
        doubts.vectors += [name for name in near if name not in doubts.vectors]
        # The pair itself accounts for two occurrences of the width.
        tied = seat is None and not (alone and widths[write.out] == 2)
        if tied:
            doubts.shared.append(f"{writer.matrix.path} to {reader.matrix.path}")
        if near or tied:
            doubts.open.add(writer.matrix.tensor)
    return doubts
