from __future__ import annotations

import math
from collections.abc import Sequence

from flagscope.null import Significance, mean_overlap_significance
from flagscope.null.largest import largest_cosine_significance
from flagscope.null.projectors import projector_sum_edges
from flagscope.null.tracy_widom import tracy_widom_log_sf


def projector_sum_significance(value: float, d: int, r: int, count: int) -> Significance:
    edges = projector_sum_edges(d, r, count)
    if count == 1 or r == d or (count > 2 and abs(count * r - (count - 1) * d) < 1):
        return Significance.undefined("no freedom")
    if count == 2:
        return largest_cosine_significance(min(1.0, max(0.0, value - 1)), r, r, d)
    width = math.sqrt(edges.upper - edges.lower)
    scale = (2.0 * edges.upper * (count - edges.upper) / (count * d * width)) ** (2.0 / 3.0)
    return Significance.one_sided(None, log_tail=tracy_widom_log_sf((value - edges.upper) / scale))


def cluster_significance(ratio: float, ranks: Sequence[int], d: int, *, count: int) -> Significance:
    test = mean_overlap_significance(ratio, ranks, d)
    if test.log10_p is None:
        return test
    if ratio < 1:
        return Significance.one_sided(test.z, log_tail=0.0)
    log = (test.log10_p - math.log10(2)) * math.log(10) + math.log(math.comb(count, len(ranks)))
    return Significance.one_sided(test.z, log_tail=log)
