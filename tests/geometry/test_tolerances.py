"""No result depends on the unit of the weights: every tolerance is relative."""

from __future__ import annotations

import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    RankRule,
    balancing_transform,
    energy_rank,
    equilibrated,
    neuron_scales,
    numerical_rank,
    orthonormal_basis,
    participation_ratio,
    plane_scales,
    signal_rank_of,
    singular_blocks,
    singular_flag,
    singular_space,
)
from geometry.planted import map_with_values, seeded

UNITS = (2.0**-50, 2.0**50)
# Two values that agree, one small, one that is rounding in float32.
VALUES = torch.tensor([5.0, 3.0, 3.0, 0.01, 1e-9])
MATRIX = map_with_values(VALUES.tolist(), 12, 9, generator=seeded(1)).float()
READ = map_with_values([3.0, 2.0, 1.0, 0.5], 4, 9, generator=seeded(3)).float()
GRAM = READ @ READ.mT
PLANES = torch.tensor([[0, 1], [2, 3]])

RESULTS = {
    "numerical_rank": lambda c: numerical_rank(c * VALUES, shape=(12, 9)),
    "numerical_rank of a Gram": lambda c: numerical_rank(c * VALUES, shape=(12, 9), gram=True),
    "energy_rank": lambda c: energy_rank(c * VALUES, fraction=0.9),
    "participation_ratio": lambda c: participation_ratio(c * VALUES),
    "signal_rank_of": lambda c: signal_rank_of(c * MATRIX[None]),
    "RankRule": lambda c: RankRule.parse("energy:1").rank(c * VALUES, shape=(12, 9)),
    "singular_blocks": lambda c: singular_blocks(c * VALUES, noise_sd=c * 1e-4),
    "singular_flag": lambda c: singular_flag(c * MATRIX).type,
    "singular_space": lambda c: singular_space(c * MATRIX, rank=1),
    "orthonormal_basis": lambda c: orthonormal_basis(c * MATRIX[:, :3], rank=3),
    "equilibrated": lambda c: equilibrated(c * MATRIX[None]).values,
    "neuron_scales": lambda c: neuron_scales(c * VALUES, c * VALUES.flip(0)).scales,
    "plane_scales": lambda c: plane_scales(c * GRAM, c * GRAM.flip(0, 1), PLANES).scales,
    "balancing_transform": lambda c: balancing_transform(c * GRAM, c * GRAM.flip(0, 1)).transform,
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("unit", UNITS)
def test_results_are_those_in_any_unit(name, unit):
    plain, other = RESULTS[name](1.0), RESULTS[name](unit)
    if isinstance(plain, torch.Tensor):
        torch.testing.assert_close(other, plain, rtol=1e-6, atol=1e-6)
    else:
        assert other == plain


@pytest.mark.parametrize("unit", [1.0, *UNITS])
def test_a_gram_is_symmetric_or_not_in_any_unit(unit):
    tilted = GRAM.clone()
    tilted[0, 1] *= 1.01
    rounded = GRAM * (1 + 1e-6 * torch.rand(4, 4, generator=seeded(2)))
    for function in (
        lambda gram: balancing_transform(gram, GRAM),
        lambda gram: balancing_transform(GRAM, gram),
        lambda gram: plane_scales(gram, GRAM, PLANES),
    ):
        function(unit * rounded)
        with pytest.raises(InputError, match="not symmetric"):
            function(unit * tilted)
