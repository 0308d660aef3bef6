"""Edge cases of mixtures: parents that are the base, equal parents, other shapes."""

from __future__ import annotations

import torch

from comparison.content.test_content import made, tuned
from flagscope.checkpoint import from_state_dict
from flagscope.comparison.content.compared import compared_content


def fit(base, merged, *parents):
    return compared_content(
        from_state_dict(base), from_state_dict(merged),
        parents=[from_state_dict(parent) for parent in parents],
    )  # fmt: skip


def test_a_parent_that_is_the_base_adds_nothing():
    base, one = made(0), tuned(made(0), 0.1, seed=1)
    merged = {name: base[name] + 0.5 * (one[name] - base[name]) for name in base}
    record = fit(base, merged, one, base)
    assert record.relation == "merge"
    assert "adds nothing" in record.mixture_b.with_base.status
    assert record.mixture_b.with_base.coefficients[0] == torch.tensor(0.5).item() or (
        abs(record.mixture_b.with_base.coefficients[0] - 0.5) < 1e-3
    )


def test_equal_parents_have_no_coefficients_of_their_own():
    base, one = made(0), tuned(made(0), 0.1, seed=1)
    record = fit(base, one, one, one)
    assert "not independent" in record.mixture_b.with_base.status
    assert record.mixture_b.linear


def test_layers_with_coefficients_of_their_own():
    base, one = made(0), tuned(made(0), 0.1, seed=1)
    weight = {name: 0.1 * (1 + len(name) % 7) for name in base}
    merged = {name: base[name] + weight[name] * (one[name] - base[name]) for name in base}
    found = fit(base, merged, one).mixture_b.with_base
    assert found.each
    assert not found.agree
    assert found.lowest[0] < found.highest[0]


def test_parents_of_other_shapes():
    record = fit(made(0), tuned(made(0), 0.1), {"fc.weight": torch.ones(3, 3)})
    assert record.mixture_b.with_base.tensors == 0
    assert not record.mixture_b.linear
    assert record.relation == "related"
