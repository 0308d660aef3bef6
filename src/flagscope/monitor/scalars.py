"""Some twenty numbers of a measurement, for loggers: the rest is in the scan itself.

For each kind of pair (a GPT has qk, ov, mlp and residual):

=================================  ============================================================
pairs/KIND/gram_correlation        mean ρ: do write and read maps weigh the same directions
                                   (chance: 0)
pairs/KIND/overlap_ratio           mean Σcos² of the dominant spaces, in units of chance (1)
pairs/KIND/participation_min       smallest participation ratio of a map: effective directions
                                   of the map nearest to a collapse
=================================  ============================================================

and of the whole network:

=================================  ============================================================
pairs/beyond_chance                share of pairs with a number beyond chance, at the error rate
                                   of the scan, over all of its tests
heads/overlap_ratio_max            largest mean overlap of the heads of a layer in one space,
                                   in units of chance
heads/near_copies                  pairs among heads of one layer and space that are at least half
                                   of the way from chance to a copy, beyond chance
health/not_finite                  tensors with NaN or infinity
health/dead_neurons                neurons without effect
health/dead_heads                  heads without effect
weights/norm                       Frobenius norm of all weights
weights/block_norm_max             that of the block whose is largest
=================================  ============================================================

Numbers that a measurement did not look at, or that are not finite, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from flagscope.monitor.weights import block_norms
from flagscope.records import PairRecord, ScanResult
from flagscope.series.near_copies import is_near_copy


def scalars_of(result: ScanResult, norms: Mapping[str, float]) -> dict[str, float]:
    """The numbers by name, as the table above has them."""
    numbers: dict[str, float | None] = {}
    for kind in sorted({pair.kind for pair in result.pairs}):
        pairs = [pair for pair in result.pairs if pair.kind == kind]
        ends = [x for pair in pairs for x in (pair.participation_write, pair.participation_read)]
        numbers[f"pairs/{kind}/gram_correlation"] = _mean(pair.gram_correlation for pair in pairs)
        numbers[f"pairs/{kind}/overlap_ratio"] = _mean(pair.overlap_ratio for pair in pairs)
        numbers[f"pairs/{kind}/participation_min"] = _least(ends)
    if result.pairs:
        level = result.settings.fdr
        numbers["pairs/beyond_chance"] = _mean(beyond_chance(pair, level) for pair in result.pairs)
    if result.heads:
        ratios = [-head.overlap_ratio for head in result.heads if head.overlap_ratio is not None]
        lowest = _least(ratios)
        numbers["heads/overlap_ratio_max"] = None if lowest is None else -lowest
        listed = [pair for head in result.heads for pair in head.near_copies]
        numbers["heads/near_copies"] = sum(map(is_near_copy, listed))
    if result.health is not None:
        numbers["health/not_finite"] = result.health.not_finite
        numbers["health/dead_neurons"] = dead_units(result, "neurons")
        numbers["health/dead_heads"] = dead_units(result, "heads")
    numbers["weights/norm"] = math.sqrt(sum(norm * norm for norm in norms.values()))
    numbers["weights/block_norm_max"] = max(block_norms(norms).values(), default=None)
    return {name: float(x) for name, x in numbers.items() if x is not None and math.isfinite(x)}


def dead_units(result: ScanResult, what: Literal["neurons", "heads"]) -> int:
    """Neurons or heads that have no effect on the output of their block.

    Of neurons of which it is not known what lies between the two maps, those whose outgoing weights
    are all zero.
    """
    return 0 if result.health is None else result.health.dead(what) or 0


def beyond_chance(pair: PairRecord, level: float) -> bool:
    """Whether any number of a pair lies beyond chance."""
    tests = (
        pair.p_familywise,
        pair.commutator_p_familywise,
        pair.gram_correlation_p_familywise,
    )
    return any(p is not None and p <= level for p in tests)


def _mean(values: Iterable[float | None]) -> float | None:
    known = _finite(values)
    return sum(known) / len(known) if known else None


def _least(values: Iterable[float | None]) -> float | None:
    return min(_finite(values), default=None)


def _finite(values: Iterable[float | None]) -> list[float]:
    return [x for x in values if x is not None and math.isfinite(x)]
