"""Rows, columns and entries that are zero on one side alone come first, behind what is NaN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from comparison.content.test_content import content, made, tuned
from flagscope.checkpoint import from_state_dict
from flagscope.comparison.content.compared import compared_content
from flagscope.records.comparison import Verdict, lettered
from flagscope.records.comparison.content import ContentRecord
from flagscope.report.comparison import verdict_of_models

State = dict[str, Tensor]
UP, DOWN = "model.layers.2.mlp.up_proj.weight", "model.layers.2.mlp.down_proj.weight"


def half_dead(state: State) -> State:
    """A copy of which half the neurons of all layers are zero."""
    copy = {name: tensor.clone() for name, tensor in state.items()}
    for name, tensor in copy.items():
        if "up_proj" in name:
            tensor[::2] = 0
        if "down_proj" in name:
            tensor[:, ::2] = 0
    return copy


def verdict(a: State, b: State) -> tuple[ContentRecord, Verdict]:
    record = compared_content(from_state_dict(a), from_state_dict(b))
    return record, lettered(verdict_of_models(record, None), turned=False)


def test_half_of_the_neurons_zeroed_is_not_called_fine_tuned():
    record = content(made(0), half_dead(made(0)))
    assert record.evidence[0] == (
        "288 rows and 288 columns of 12 tensors are zero in B and not in A"
    )
    up = next(tensor.difference for tensor in record.tensors if tensor.name_a == UP)
    assert up is not None
    assert (up.zero_rows_a, up.zero_rows_b, up.zeros_a, up.zeros_b) == (0, 48, 0, 48 * 48)
    assert record.mirrored().evidence[0].endswith("are zero in A and not in B")
    _, said = verdict(made(0), half_dead(made(0)))
    assert said.code == "zeroed"
    assert said.text == (
        "the same but for 27,648 entries that are zero in B (288 rows and 288 columns of 12 "
        "tensors)"
    )


def test_zeroed_and_trained_on_says_both():
    dead = half_dead(made(0))
    moved = {name: torch.where(dead[name] == 0, 0.0, tensor)
             for name, tensor in tuned(made(0), 0.1).items()}  # fmt: skip
    _, said = verdict(made(0), moved)
    assert said.code == "zeroed"
    assert said.text.startswith("fine-tuned: ")
    assert "288 rows and 288 columns of 12 tensors are zero in " in said.text


def test_zeros_of_both_sides_and_of_padding_say_nothing():
    zero = made(0)
    zero[UP][3] = 0
    other = tuned(zero, 0.1)
    other[UP][3] = 0
    other["model.embed_tokens.weight"][0] = 0
    record, said = verdict(zero, other)
    assert said.code == "fine-tuned"
    assert record.evidence[0].startswith("1 row of 1 tensor is zero in ")


@pytest.mark.parametrize("sides", ["a", "b", "both"])
def test_what_is_not_finite_stands_before_the_verdict(sides: str):
    a, b = made(0), tuned(made(0), 0.1)
    for state, side in ((a, "a"), (b, "b")):
        if sides in (side, "both"):
            state[DOWN][1, 2] = math.nan
    _, said = verdict(a, b)
    assert said.text.startswith("NaN or infinity in ")
    assert "; fine-tuned: " in said.text
    assert "1 entry of 1 tensor is NaN or infinite in " in said.evidence[0]


def test_equal_tensors_are_looked_at_too():
    a, b = made(0), made(0)
    for state in (a, b):
        state[DOWN][1, 2] = math.inf
    record, said = verdict(a, b)
    assert (record.relation, said.code) == ("identical", "identical")
    assert said.text.startswith("NaN or infinity in ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_large_sums_of_short_types_are_finite(dtype: torch.dtype):
    state = {"fc.weight": torch.full((300, 300), 400.0).to(dtype)}
    record, said = verdict(state, {name: tensor.clone() for name, tensor in state.items()})
    assert record.relation == "identical"
    assert not said.text.startswith("NaN")


def test_entries_pruned_one_by_one_are_counted():
    pruned = {
        name: torch.where(tensor.abs() > tensor.abs().median(), tensor, 0.0)
        if tensor.ndim > 1 else tensor
        for name, tensor in made(0).items()
    }  # fmt: skip
    record, said = verdict(made(0), pruned)
    assert said.code == "zeroed"
    assert " entries of " in record.evidence[0]
