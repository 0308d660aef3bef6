"""Training is repeatable and paired; weight decay and the conservation law are what they say."""

import math
from itertools import pairwise

import pytest
import torch

from flagscope.lab.gpt import GPTShape, initial_state, mean_loss
from flagscope.lab.gpt_alignment import conserved_norms
from flagscope.lab.gpt_training import TrainingRecipe, _optimizer, checkpoint_steps, trained
from flagscope.lab.text import pydoc_corpus

TEXT = pydoc_corpus()
SHAPE = GPTShape(len(TEXT.vocabulary), n_layer=1, n_head=2, n_embd=8, n_positions=16)


def run(recipe, *, seed=0, task="real", checkpoints=None):
    steps = checkpoints or [0, recipe.steps]
    return [
        {name: weight.clone() for name, weight in state.items()}
        for _, state in trained(SHAPE, TEXT, recipe, task=task, seed=seed, checkpoints=steps)
    ]


def test_one_seed_gives_one_training():
    recipe = TrainingRecipe("adamw", 5, 2, 1e-2, 1.0)
    one, other, third = run(recipe), run(recipe), run(recipe, seed=1)
    assert all(torch.equal(one[-1][name], other[-1][name]) for name in one[-1])
    assert not torch.equal(one[-1]["transformer.wte.weight"], third[-1]["transformer.wte.weight"])


def test_arms_of_one_seed_begin_alike():
    starts = [
        run(TrainingRecipe(optimizer, 1, 2, 1e-2, decay), task=task)[0]
        for optimizer, decay, task in (("adamw", 1.0, "real"), ("sgd", 0.0, "random"))
    ]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


def test_the_learning_rate_warms_up_and_falls_to_a_tenth():
    recipe = TrainingRecipe("adamw", 1000, 8, 2.0, 0.0)
    rates = [recipe.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(2 / 50)
    assert rates[49] == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0.2, rel=1e-4)
    assert rates[50:] == sorted(rates[50:], reverse=True)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_without_gradients_weights_follow_the_law(optimizer):
    recipe = TrainingRecipe(optimizer, 2000, 1, 0.5, 1.5)
    state = {"map": torch.ones(3, dtype=torch.float64), ".ln_": torch.ones(3, dtype=torch.float64)}
    optimiser = _optimizer(state, recipe)
    for step in range(recipe.steps):
        for weight in state.values():
            weight.grad = torch.zeros_like(weight)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        optimiser.step()
    assert float(state["map"][0] ** 2) == pytest.approx(recipe.law([2000])[0], rel=1e-10)
    # e^{-2τ} up to what momentum adds in second order: β n x²/(1-β) with x ≈ τ/n a step.
    assert recipe.law([0, 2000]) == [1.0, pytest.approx(math.exp(-3), rel=0.05)]
    assert float(state[".ln_"][0]) == 1  # norms do not decay


def test_a_gradient_step_conserves_to_first_order():
    generator = torch.Generator().manual_seed(0)
    state = {
        name: (weight.double() + 0.3 * torch.randn(weight.shape, generator=generator))
        .double()
        .requires_grad_()
        for name, weight in initial_state(SHAPE, generator).items()
    }
    loss = mean_loss(state, TEXT.validation[:65], SHAPE)
    gradients = dict(zip(state, torch.autograd.grad(loss, list(state.values())), strict=True))

    def moved(step):
        return {name: (w + step * gradients[name]).detach() for name, w in state.items()}

    for kind in ("qk", "ov"):
        # ‖D + ηF + η²S‖² is even in η if and only if F, the gradient's effect on A - B, is zero.
        there, here, back = (conserved_norms(moved(step), SHAPE, kind) for step in (0.1, 0, -0.1))
        assert ((there - back).abs() < 1e-12 * here).all()
        assert ((there - here).abs() > 1e-6 * here).all()


def test_the_conserved_matrix_holds_the_biases():
    generator = torch.Generator().manual_seed(0)
    state = {name: weight.double() for name, weight in initial_state(SHAPE, generator).items()}
    bias = torch.randn(24, generator=generator, dtype=torch.float64)
    state["transformer.h.0.attn.c_attn.bias"] = bias
    weight = state["transformer.h.0.attn.c_attn.weight"]
    q, k, v = (weight[:, 8 * i + 4 : 8 * i + 8].mT for i in range(3))  # head 1 of 2
    b_q, b_k, b_v = (bias[8 * i + 4 : 8 * i + 8, None] for i in range(3))
    o = state["transformer.h.0.attn.c_proj.weight"][4:8]
    expected = {
        "qk": q @ q.mT + b_q @ b_q.mT - k @ k.mT - b_k @ b_k.mT,
        "ov": v @ v.mT + b_v @ b_v.mT - o @ o.mT,
    }
    for kind, matrix in expected.items():
        found = conserved_norms(state, SHAPE, kind)[0, 1]
        assert float(found) == pytest.approx(float(matrix.norm()), rel=1e-12)


def test_checkpoints_are_even_on_a_log_scale():
    steps = checkpoint_steps(3200, per_decade=3)
    assert (steps[0], steps[1], steps[-1]) == (0, 1, 3200)
    ratios = [b / a for a, b in pairwise(steps[5:])]
    assert max(ratios) / min(ratios) < 1.1
    assert checkpoint_steps(80, per_decade=0) == [0, 1, 80]
