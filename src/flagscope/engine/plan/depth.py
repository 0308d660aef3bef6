"""Which pairs of a scan are measured by products and leading directions alone."""

from __future__ import annotations

from math import inf

from flagscope.arch import PairGroup
from flagscope.engine.plan.cost import other_dimension
from flagscope.records import Depth

# Size of a pair's eigenproblem beyond which it is sharp. Below 256 all of it takes milliseconds.
_FROM: dict[Depth, float] = {"auto": 1024, "sharp": 256, "full": inf}


def is_sharp(pair: PairGroup, depth: Depth) -> bool:
    """Whether a pair is measured without its whole spectrum."""
    return pair_size(pair) > _FROM[depth]


def pair_size(pair: PairGroup) -> int:
    """Size of the eigenproblems of a pair: d, or the larger of the maps' other dimensions."""
    sides = (other_dimension(side, pair.d) for side in (pair.write, pair.read))
    return min(pair.d, max(sides))
