"""The storage noise of W2 W1 is that of each map times the size of the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diagnose.planted import pair_group
from flagscope.diagnose import pair_records, residual_record
from flagscope.geometry import Matrices, RankRule, prepared_map
from geometry.planted import haar

RULE = RankRule.parse("numerical")
SIZE, OF_LARGE, OF_SMALL = 30.0, 1e-2, 1e-6
# δ of the large map times the norm of the small one, which is 1, and the other way round.
NOISE = OF_LARGE * 1.0 + OF_SMALL * SIZE
CASES = pytest.mark.parametrize(
    ("large", "above"), [("write", True), ("write", False), ("read", True), ("read", False)]
)


def pair(d: int, *, large: str, weakest: float) -> tuple[tuple[Tensor, float], ...]:
    """(map, δ) of a writer and a reader, one of norm `SIZE`; the least value of their product."""
    strong = torch.ones(d, dtype=torch.float64)
    strong[0] = SIZE
    weak = torch.full((d,), 0.5, dtype=torch.float64)
    weak[0], weak[-1] = 1.0, weakest
    shared, left, right = (haar(1, d, d, seed=seed)[0] for seed in (1, 2, 3))
    # W2 W1 = left diag(strong · weak) rightᵀ, so that its least value is `weakest`.
    sides = ((shared * weak) @ right.mT, OF_SMALL), ((left * strong) @ shared.mT, OF_LARGE)
    if large == "read":
        return sides
    return tuple((values.mT, delta) for values, delta in reversed(sides))


def noisy(values: Tensor, delta: float) -> Matrices:
    return Matrices(values[None], torch.tensor([delta]).double(), torch.tensor([1e-12]).double())


@CASES
def test_a_direction_of_a_product_counts_above_the_noise_of_both_maps(large, above):
    (w1, of_w1), (w2, of_w2) = pair(40, large=large, weakest=NOISE * (1.2 if above else 0.8))
    group = pair_group(w1[None], w2[None])
    (record,) = pair_records(group, noisy(w1, of_w1), noisy(w2, of_w2), rule=RULE)
    assert record.functional.product_rank == (40 if above else 39)


@CASES
def test_the_bound_without_singular_values_knows_the_noise_of_both_maps(large, above):
    """Of large maps in single precision the rank is certain above the noise, and open below."""
    sides = pair(520, large=large, weakest=NOISE * (1.2 if above else 0.8))
    maps = [noisy(values.float(), delta) for values, delta in sides]
    write, read = (
        prepared_map(lambda side=side: side, read=bool(i), rule=RULE) for i, side in enumerate(maps)
    )
    group = pair_group(maps[0].values, maps[1].values)
    record = residual_record(group, write, read, rule=RULE)
    assert record.functional.product_rank == (520 if above else None)
