"""Scores find planted redundancy, ablation is removal, and the verdicts follow their rules."""

import numpy as np
import pytest
import torch

from flagscope.lab.experiment import Cell, Measured, Options
from flagscope.lab.experiments.pruning.claims import (
    area,
    layer_ranks,
    partial_rank_correlation,
    rank_correlation,
)
from flagscope.lab.experiments.pruning.experiment import EXPERIMENT, _order
from flagscope.lab.experiments.pruning.head_scores import (
    Ablation,
    gradient_importance,
    magnitude_scores,
    redundancy,
)
from flagscope.lab.gpt import GPTShape, initial_state, mean_loss

SHAPE = GPTShape(vocab_size=11, n_layer=2, n_head=4, n_embd=32, n_positions=8)
TEXT = torch.randint(11, (100,), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    start = initial_state(SHAPE, generator)
    return {name: w + 0.3 * torch.randn(w.shape, generator=generator) for name, w in start.items()}


def head(index, part=0):
    """Where a head's query (0), key (1) or value (2) lies in c_attn, its output (0) in c_proj."""
    return slice(32 * part + 8 * index, 32 * part + 8 * index + 8)


def test_a_copied_head_is_the_most_redundant(state):
    generator = torch.Generator().manual_seed(1)
    attention = state["transformer.h.1.attn.c_attn.weight"]
    output = state["transformer.h.1.attn.c_proj.weight"]
    for part in range(3):  # the same spaces, in another basis
        turn = torch.randn(8, 8, generator=generator)
        attention[:, head(3, part)] = attention[:, head(1, part)] @ turn
    output[head(3)] = torch.randn(8, 8, generator=generator) @ output[head(1)]
    found = redundancy(state, SHAPE)
    assert found.pairwise[1, 1, 3] == pytest.approx(32 / 8, rel=1e-5)
    assert np.isnan(found.pairwise[:, range(4), range(4)]).all()
    for name in ("overlap", "nearest", "overlap_q", "overlap_k", "overlap_v", "overlap_o"):
        scores = found.scores[name]
        assert set(np.argsort(scores.ravel())[-2:]) == {5, 7}, name
    assert found.scores["nearest"][1, [1, 3]] == pytest.approx(4, rel=1e-5)
    assert found.scores["overlap"][1, 1] == pytest.approx(np.nanmean(found.pairwise[1, 1]))


def test_a_direction_that_heads_share_counts_for_them_alone():
    shape = GPTShape(vocab_size=11, n_layer=1, n_head=12, n_embd=48)
    start = initial_state(shape, torch.Generator().manual_seed(0))
    attention = start["transformer.h.0.attn.c_attn.weight"]
    assert redundancy(start, shape).scores["membership"].sum() == 0
    # One direction of the stream that heads 0 to 7 read queries from, and the others do not.
    attention[0, :48] = 0
    attention[:, 0:32:4] = torch.eye(48)[:, :1]
    members = redundancy(start, shape).scores["membership"][0]
    assert members.tolist() == [1] * 8 + [0] * 4


def test_the_product_norm_is_free_of_the_gauge(state):
    before = magnitude_scores(state, SHAPE)
    state = {name: weight.double() for name, weight in state.items()}
    v = state["transformer.h.0.attn.c_attn.weight"][:, head(1, 2)]
    o = state["transformer.h.0.attn.c_proj.weight"][head(1)]
    expected = float(torch.linalg.matrix_norm(v @ o))
    g = torch.diag(torch.arange(1.0, 9.0, dtype=torch.float64))
    v.copy_(v @ g)
    o.copy_(torch.linalg.inv(g) @ o)
    after = magnitude_scores(state, SHAPE)
    assert after["product"][0, 1] == pytest.approx(expected, rel=1e-12)
    assert before["product"] == pytest.approx(after["product"], rel=1e-6)
    assert after["norms"][0, 1] > 1.2 * before["norms"][0, 1]


def test_gradient_importance_is_the_derivative_by_the_gate(state):
    state = {name: weight.double() for name, weight in state.items()}
    text = TEXT[:9]  # a single window
    found = gradient_importance(state, SHAPE, text, windows=3)
    for layer, index in ((0, 0), (1, 2)):
        losses = []
        for step in (1e-5, -1e-5):
            gates = torch.ones(2, 4, dtype=torch.float64)
            gates[layer, index] += step
            losses.append(float(mean_loss(state, text, SHAPE, gates=gates)))
        slope = abs(losses[0] - losses[1]) / 2e-5
        # Gates in float32 do not limit it, the weights are float64.
        assert found[layer, index] == pytest.approx(slope, rel=1e-5)


def test_each_window_has_a_gradient_of_its_own(state):
    # |mean of gradients| would be smaller than the mean of their absolute values.
    each = [gradient_importance(state, SHAPE, TEXT[i : i + 9], windows=1) for i in (0, 91)]
    found = gradient_importance(state, SHAPE, TEXT, windows=2)
    assert found == pytest.approx(np.mean(each, axis=0), rel=1e-5)


def test_ablation_is_a_zero_output_map(state):
    ablation = Ablation(state, SHAPE, TEXT)
    without = {name: weight.clone() for name, weight in state.items()}
    without["transformer.h.1.attn.c_proj.weight"][head(2)] = 0
    expected = float(mean_loss(without, TEXT, SHAPE))
    assert ablation.loss([6]) == pytest.approx(expected, rel=1e-12)
    assert abs(ablation.loss([6]) - ablation.loss([])) > 1e-3


def test_curves_and_interactions_are_made_of_losses(state):
    ablation = Ablation(state, SHAPE, TEXT)
    curve = ablation.curve([3, 0, 6])
    assert curve == [ablation.loss(removed) for removed in ([], [3], [3, 0], [3, 0, 6])]
    base, single = ablation.loss([]), [ablation.loss([h]) for h in range(8)]
    pairs = {(i, j): beyond for i, j, beyond in ablation.interactions(base, single)}
    assert len(pairs) == 2 * 6
    expected = ablation.loss([4, 7]) - single[4] - single[7] + base
    assert pairs[4, 7] == pytest.approx(expected, abs=1e-12)


def test_the_order_removes_redundant_and_unimportant_heads_first():
    scores = {"overlap": [1.0, 3.0, 2.0], "gradient": [1.0, 3.0, 2.0]}
    assert _order("overlap", scores, []) == [1, 2, 0]
    assert _order("gradient", scores, []) == [0, 2, 1]
    assert _order("oracle", scores, [2.0, 1.0, 3.0]) == [1, 0, 2]


def test_the_partial_correlation_is_that_of_regression_residuals():
    rng = np.random.default_rng(0)
    x, y, z = rng.permutation(40) + 0.0, rng.permutation(40) + 0.0, rng.permutation(40) + 0.0
    design = np.stack([np.ones(40), z], axis=1)
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y)]
    expected = np.corrcoef(*left)[0, 1]
    assert partial_rank_correlation(x, y, z) == pytest.approx(expected, rel=1e-10)
    assert partial_rank_correlation(x, y, np.zeros(40)) is None


def test_ranks_within_layers_lose_what_a_layer_has_in_common():
    assert layer_ranks([5.0, 7.0, 6.0, 105.0, 107.0, 106.0], 3).tolist() == [1, 3, 2, 1, 3, 2]
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None
    assert area([1.0, 2.0, 3.0]) == 1.0


def models(cost, *, count=4):
    """Models whose heads' costs are a function of their (overlap, size), with some noise."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        overlap, size = rng.permutation(32) / 32, rng.permutation(32) / 32
        single = cost(overlap, size) + 0.02 * rng.standard_normal(32)
        scores = {f"overlap_{space}": overlap for space in "qkvo"}
        scores |= {"overlap": overlap, "nearest": overlap, "membership": np.round(9 * overlap)}
        scores |= {"norms": size, "product": size, "gradient": single}
        flat = {name: list(map(float, one)) for name, one in scores.items()}

        def curve(order, single=single):
            return [1.0, *(1 + np.cumsum(single[order])).tolist()]

        orders = {name: curve(_order(name, flat, list(single))) for name in (
            "overlap", "nearest", "product", "gradient", "oracle"
        )}  # fmt: skip
        values = {
            "heads": 8,
            "base": 1.0,
            "scores": flat,
            "single": (1 + single).tolist(),
            "interactions": [[0, 1, o, o + 0.1 * rng.standard_normal()] for o in overlap],
            "curves": orders,
            "random_curves": [curve(rng.permutation(32)) for _ in range(20)],
        }
        made.append(Measured(Cell(f"trained-{seed}", {}), values, 1.0))
    return made


def verdicts(measured):
    return [finding.verdict for finding in EXPERIMENT.conclude(measured)]


def test_cheap_redundant_heads_confirm_the_claims():
    found = verdicts(models(lambda overlap, size: 1 - overlap + 0.01 * size))
    assert found[:8] == ["confirmed"] * 8
    assert found[9] == "confirmed"  # the gradient, which is the cost itself


def test_dear_redundant_heads_refute_them():
    found = verdicts(models(lambda overlap, size: overlap + size))
    assert found[:5] == ["refuted"] * 5
    assert found[5] == "confirmed"  # the interactions are as before
    assert found[6:8] == ["refuted"] * 2
    assert found[8:] == ["confirmed"] * 3


def test_scores_that_do_not_vary_leave_the_claim_open():
    measured = models(lambda overlap, size: overlap + size)
    for one in measured:
        one.values["scores"]["membership"] = [0.0] * 32
    claim = EXPERIMENT.conclude(measured)[2]
    assert (claim.verdict, claim.estimates) == ("open", ())


def test_the_bundled_model_is_measured():
    cells = {cell.name: cell for cell in EXPERIMENT.cells(Options(quick=True))}
    assert set(cells) == {"bundled", "trained-1", "trained-2"}
    settings = cells["trained-1"].settings
    recipe = settings["recipe"] | {"steps": 10}
    small = settings | {"recipe": recipe, "held_out_tokens": 65, "random_orders": 1, "windows": 2}
    values = EXPERIMENT.measure(Cell("trained-1", small), lambda fraction: None)
    assert len(values["single"]) == 12
    assert {len(curve) for curve in values["curves"].values()} == {13}
    everything = {curve[-1] for curve in [*values["curves"].values(), *values["random_curves"]]}
    assert len(everything) == 1
    assert values["curves"]["oracle"][1] == min(values["single"])
    measured = [Measured(cells["trained-1"], values, 1.0)]
    assert len(EXPERIMENT.table(measured)) == 12
    assert set(EXPERIMENT.draw(measured, ())) == {name for name, _ in EXPERIMENT.figures}


def test_correlations_are_bounded_and_areas_are_not():
    """So that the interval of the one stays within [-1, 1]."""
    found = [
        e for f in EXPERIMENT.conclude(models(lambda overlap, size: overlap + size))
        for e in f.estimates
    ]  # fmt: skip
    assert {e.bounds for e in found if "ρ" in e.name} == {(-1.0, 1.0)}
    assert {e.bounds for e in found if "ρ" not in e.name} == {None}
