"""A cast is claimed where values show one, and not where one side is constant or hardly moved."""

from __future__ import annotations

import pytest
import torch

from comparison.content.forms import in_memory
from flagscope.comparison.content.compared import compared_content

D = 64


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def matrices():
    return {f"layers.{n}.mlp.up_proj.weight": noise(2 * D, D, seed=n) for n in range(2)}


def gains(spread):
    names = [f"layers.{n}.{kind}_layernorm.weight" for n in range(2)
             for kind in ("input", "post_attention")]  # fmt: skip
    return {
        name: 1 + spread * noise(D, seed=9 + n) for n, name in enumerate([*names, "norm.weight"])
    }


def of_norms(record):
    return {tensor.content for tensor in record.tensors if "norm" in tensor.name_a}


def claims(record):
    return [line for line in record.evidence if "rounded to" in line or "cut off" in line]


@pytest.mark.parametrize("spread", [1e-4, 1e-3, 1.9e-3])
def test_gains_near_a_constant_were_not_rounded_to_it(spread):
    a, b = matrices() | gains(0), matrices() | gains(spread)
    for record in (
        compared_content(in_memory(a), in_memory(b)),
        compared_content(in_memory(b), in_memory(a)),
    ):
        assert claims(record) == []
        assert of_norms(record) == {"different"}
        assert record.relation == "shares_parts"


@pytest.mark.parametrize("size", [1e-7, 1e-6])
def test_a_change_of_less_than_a_step_of_every_entry_is_no_cast(size):
    """A model of bfloat16, widened, and trained a little: it rounds back to what it was."""
    a = {name: tensor.bfloat16().float() for name, tensor in (matrices() | gains(0.5)).items()}
    b = {name: tensor * (1 + size * noise(*tensor.shape, seed=77)) for name, tensor in a.items()}
    record = compared_content(in_memory(a), in_memory(b))
    assert claims(record) == []
    assert record.relation == "related"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_constant_and_small_tensors_count_with_a_model_that_was_cast(kind):
    a = matrices() | gains(1e-3) | {"layers.0.attn.q_proj.bias": noise(4, seed=5)}
    b = {name: tensor.to(kind).float() for name, tensor in a.items()}
    record = compared_content(in_memory(a), in_memory(b))
    assert record.relation == "reencoded"
    assert len(claims(record)) == 1


def test_small_tensors_show_a_cast_together():
    a = {f"layers.{n}.mlp.up_proj.bias": noise(4, seed=n) for n in range(20)}
    b = {name: tensor.bfloat16().float() for name, tensor in a.items()}
    assert compared_content(in_memory(a), in_memory(b)).relation == "reencoded"
