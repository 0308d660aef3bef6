"""Decay times: against PyTorch's own optimisers on a weight without a gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.series.rates import (
    GroupSchedule,
    Schedule,
    decayed_by_trainer,
    given_schedule,
    known_rates,
    logged_rates,
)

RATES = [0.5 * (n + 1) / 5 for n in range(5)] + [0.5 - 0.01 * n for n in range(35)]


def shrunk(optimiser: torch.optim.Optimizer, weight: torch.Tensor) -> list[float]:
    """Twice the exponent by which a weight without gradient shrinks under RATES."""
    start, left = weight.item(), [0.0]
    for rate in RATES:
        for group in optimiser.param_groups:
            group["lr"] = rate
        weight.grad = torch.zeros_like(weight)
        optimiser.step()
        left.append(-2 * math.log(weight.item() / start))
    return left


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.8},
        {"momentum": 0.8, "dampening": 0.3},
        {"momentum": 0.6, "nesterov": True},
    ],
)
def test_the_decay_time_is_that_of_pytorchs_sgd(settings):
    weight = torch.tensor([3.0], dtype=torch.float64)
    expected = shrunk(torch.optim.SGD([weight], lr=0.1, weight_decay=0.02, **settings), weight)
    group = GroupSchedule("all", known_rates(RATES), 0.02, **settings)
    time = group.decay_time(range(len(RATES) + 1))
    np.testing.assert_allclose(time.value, expected, rtol=1e-12, atol=1e-14)
    assert (time.low == time.value).all()


def test_the_decay_time_is_that_of_pytorchs_adamw():
    weight = torch.tensor([3.0], dtype=torch.float64)
    expected = shrunk(torch.optim.AdamW([weight], lr=0.1, weight_decay=0.02), weight)
    group = GroupSchedule("all", known_rates(RATES), 0.02)
    np.testing.assert_allclose(group.decay_time(range(41)).value, expected, rtol=1e-12)


def test_large_steps_follow_the_products_and_small_ones_the_sum():
    for rate, near in ((0.5, 1e-1), (1e-4, 1e-4)):
        time = GroupSchedule("all", known_rates(rate, updates=10), 0.1).decay_time([10]).value[0]
        assert time == pytest.approx(-20 * math.log(1 - 0.1 * rate), rel=1e-12)
        assert time == pytest.approx(2 * 10 * rate * 0.1, rel=near)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("every", [1, 7, 25])
def test_bounds_between_logged_steps_hold_the_truth(every, shift):
    """A cosine without warm-up only falls; logged before or after the scheduler moves."""
    updates = 200
    true = [0.1 * (1 + math.cos(math.pi * n / updates)) for n in range(updates + 1)]
    logged = {s: true[s - shift] for s in range(every, updates + 1, every)}
    rates = logged_rates(logged, updates=updates)
    group = GroupSchedule("all", rates, 0.05)
    steps = range(every, updates + 1, every)
    known = GroupSchedule("all", known_rates(true[:-1]), 0.05).decay_time(steps).value
    time = group.decay_time(steps)
    for one in (known, time.value):
        moved = np.diff(one)
        assert (np.diff(time.low) <= moved + 1e-12).all()
        assert (moved <= np.diff(time.high) + 1e-12).all()
    within = slice(every, updates - every)
    assert (rates.low[within] <= true[within]).all()
    assert (true[within] <= rates.high[within]).all()
    # Before the first logged step nothing is known but that it is not negative.
    assert time.low[0] <= time.value[0] <= time.high[0]
    assert not rates.exact


def test_learning_rates_by_mapping_callable_list_and_number():
    assert known_rates([0.1, 0.2]).values.tolist() == [0.1, 0.2]
    assert known_rates(0.3, updates=2).values.tolist() == [0.3, 0.3]
    assert known_rates(lambda n: n / 2, updates=3).values.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: known_rates(0.1), "not known"),
        (lambda: known_rates([0.1], updates=2), "for 2 updates"),
        (lambda: known_rates([-0.1]), "not negative"),
        (lambda: known_rates([math.nan]), "finite"),
        (lambda: known_rates(0.1, updates=10**9), "got 1000000000"),
        (lambda: logged_rates({}, updates=3), "no learning rate"),
        (lambda: GroupSchedule("all", known_rates([0.1]), -1.0), "weight decay"),
        (lambda: GroupSchedule("all", known_rates([0.1]), 0.1, momentum=1.0), "momentum"),
        (lambda: GroupSchedule("all", known_rates([0.1]), None).decay_time([1]), "not known"),
        (lambda: GroupSchedule("all", known_rates([0.1]), 0.1).decay_time([2]), "step 2"),
        (lambda: GroupSchedule("all", known_rates([0.1]), 0.1).decay_time([-1]), "step -1"),
        (lambda: GroupSchedule("all", known_rates([2.0]), 0.5).decay_time([1]), "times weight"),
        (
            lambda: GroupSchedule("all", known_rates([0.9] * 40), 1.0, momentum=0.9).decay_time(
                [1]
            ),
            "overshoots",
        ),
        (lambda: Schedule((), "sgd"), "groups of different names"),
        (lambda: given_schedule(known_rates([0.1]), 0.1).group("b"), "no group 'b'"),
    ],
)
def test_what_cannot_be_is_said(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_the_rule_of_the_trainer_is_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    from transformers.trainer_pt_utils import get_parameter_names

    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 8, "vocab_size": 9}  # fmt: skip
    for model in (
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_embd=8, n_layer=1, n_head=2, vocab_size=9, bos_token_id=0, eos_token_id=0
            )
        ),
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**small)),
        transformers.BertModel(transformers.BertConfig(**small)),
    ):
        named = dict(model.named_parameters())  # tied ones once
        decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], patterns)) & set(named)
        found = decayed_by_trainer((name, tensor.ndim) for name, tensor in named.items())
        assert {name for name, yes in found.items() if yes} == decayed
