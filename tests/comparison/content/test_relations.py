"""Relations of models that are copies in another arrangement, or could not be tested."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flagscope.checkpoint import from_state_dict
from flagscope.comparison.content.compared import compared_content
from flagscope.records.comparison.content import ContentRecord
from flagscope.records.comparison.content_tests import correlated, seen_correlation

State = dict[str, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> State:
    state = {f"h.{i}.attn.weight": normal(48, 48, seed=i) for i in range(3)}
    state |= {f"h.{i}.mlp.weight": normal(96, 48, seed=9 + i) for i in range(3)}
    return state | {f"h.{i}.norm.weight": 1 + 0.1 * normal(48, seed=20 + i) for i in range(3)}


def content(a: State, b: State) -> ContentRecord:
    return compared_content(from_state_dict(a), from_state_dict(b))


@pytest.mark.parametrize("factor", [-1.0, 2.0, 1.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scaled_copy_is_rearranged(model: State, factor: float, dtype: torch.dtype) -> None:
    scaled = {name: (factor * tensor).to(dtype) for name, tensor in model.items()}
    for record in (content(model, scaled), content(scaled, model)):
        assert record.relation == "rearranged"


def test_a_scaled_and_trained_copy_is_not(model: State) -> None:
    moved = {name: 1.1 * (t + 1e-3 * normal(*t.shape, seed=7)) for name, t in model.items()}
    assert content(model, moved).relation == "related"


def test_one_square_matrix_transposed_is_seen(model: State) -> None:
    turned = model | {"h.1.attn.weight": model["h.1.attn.weight"].T.bfloat16()}
    for record in (content(model, turned), content(turned, model)):
        assert record.relation == "rearranged"
        (tensor,) = [t for t in record.tensors if t.difference and t.difference.transposed]
        assert tensor.name_a == "h.1.attn.weight"
        assert tensor.content == "rounding"


def test_rows_in_another_order_are_rearranged() -> None:
    matrix = normal(64, 64)
    shuffled = matrix[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    assert content({"w": matrix}, {"w": shuffled}).relation == "rearranged"


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_what_could_not_be_tested_is_not_unrelated(model: State, value: float) -> None:
    empty = {name: torch.full_like(tensor, value) for name, tensor in model.items()}
    record = content(model, empty)
    assert record.relation == "unclear"
    assert any("could not be tested" in line for line in record.evidence)


def test_one_matrix_of_nan_is_not_training(model: State) -> None:
    broken = model | {"h.0.mlp.weight": torch.full((96, 48), float("nan"))}
    assert content(model, broken).relation == "shares_parts"


@pytest.mark.parametrize("name", ["bn.running_mean", "bn.num_batches_tracked"])
def test_models_with_other_buffers_are_not_identical(model: State, name: str) -> None:
    buffer = torch.arange(48) if "num" in name else normal(48)
    record = content(model | {name: buffer}, model | {name: buffer + 1})
    assert record.relation == "shares_parts"
    assert content(model | {name: buffer}, model).relation == "identical"


def test_integers_alone_can_be_identical() -> None:
    assert content({"w": torch.arange(9)}, {"w": torch.arange(9)}).relation == "identical"
    assert content({"w": torch.arange(9)}, {"w": torch.arange(9) + 1}).relation == "unclear"


def test_integers_of_other_widths_are_equal(model: State) -> None:
    one, other = ({**model, "position_ids": torch.arange(9, dtype=kind)}
                  for kind in (torch.int32, torch.int64))  # fmt: skip
    assert content(one, other).relation == "reencoded"
    other["position_ids"] = other["position_ids"] + 2**40
    assert content(one, other).relation == "shares_parts"


def test_a_tensor_without_entries_is_not_equal_to_one_with_some() -> None:
    record = content({"w": torch.zeros(0, 4)}, {"w": torch.zeros(4, 4)})
    assert [tensor.content for tensor in record.tensors] == ["reshaped"]


def test_one_nan_in_a_copy_is_no_rounding(model: State) -> None:
    short = {name: tensor.half().float() for name, tensor in model.items()}
    broken = {name: tensor.clone() for name, tensor in short.items()}
    broken["h.0.mlp.weight"][1, 1] = float("nan")
    record = content(short, broken)
    assert record.relation == "few_entries"
    assert not any("rounded to" in line for line in record.evidence)


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_the_least_correlation_that_is_seen_is_seen(mean: float) -> None:
    least = seen_correlation(
        content({"w": mean + normal(48, 48, seed=1)}, {"w": mean + normal(48, 48, seed=2)}).tensors[
            0
        ],
        1,
    )
    assert least < 0.5
    seen = 0
    for trial in range(100):
        one, other = normal(48, 48, seed=2 * trial), normal(48, 48, seed=2 * trial + 1)
        mixed = least * one + (1 - least**2) ** 0.5 * other
        record = content({"w": mean + one}, {"w": mean + mixed})
        seen += correlated(record.tensors[0], 1)
    assert seen >= 95
