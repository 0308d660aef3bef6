"""Merges against numpy, measures against closed forms, the interval against counted errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from flagscope.errors import InputError
from flagscope.lab import Options
from flagscope.lab.experiment import Cell, Measured
from flagscope.lab.experiments.merge_prediction.claims import CLAIMS
from flagscope.lab.experiments.merge_prediction.data_measures import data_measures, input_moments
from flagscope.lab.experiments.merge_prediction.experiment import EXPERIMENT
from flagscope.lab.experiments.merge_prediction.fine_tuning import (
    Recipe,
    fully_tuned,
    lora_tuned,
    with_update,
)
from flagscope.lab.experiments.merge_prediction.merges import (
    MERGES,
    average,
    isotropic,
    singular_vectors,
    ties,
    total,
)
from flagscope.lab.experiments.merge_prediction.predictors import FROM_WEIGHTS, PREDICTORS
from flagscope.lab.experiments.merge_prediction.task_interval import (
    difference_interval,
    task_interval,
)
from flagscope.lab.experiments.merge_prediction.tasks import (
    LENGTH,
    NAMES,
    PAIRS,
    SYMBOLS,
    batch,
    loss,
    performance,
    sequence_shape,
)
from flagscope.lab.experiments.merge_prediction.verdicts import merge_verdicts
from flagscope.lab.experiments.merge_prediction.weight_measures import (
    energy_cosine,
    leading,
    overlap_beyond_chance,
    sign_conflict,
    singular_task_interference,
    weight_measures,
)
from flagscope.lab.gpt import initial_state

ROOT = Path(__file__).parents[2]
SHAPE = sequence_shape(16, 1, 2)


def matrices(seed, *, count=2, shape=(9, 6), rank=None):
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        if rank is None:
            drawn.append(rng.standard_normal(shape))
        else:
            left, right = (
                rng.standard_normal((shape[0], rank)),
                rng.standard_normal((rank, shape[1])),
            )
            drawn.append(left @ right)
    return drawn


def updates(ws, biases=None):
    made = []
    for k, w in enumerate(ws):
        made.append({"w": torch.tensor(w)} | ({"b": torch.tensor(biases[k])} if biases else {}))
    return made


# Merges


def numpy_ties(vectors, density):
    """The three steps of the paper, one entry at a time."""
    kept = []
    for v in vectors:
        order = sorted(range(len(v)), key=lambda k: -abs(v[k]))
        keep = set(order[: round(density * len(v))])
        kept.append([x if k in keep else 0.0 for k, x in enumerate(v)])
    merged = []
    for entries in zip(*kept, strict=True):
        positive = sum(x for x in entries if x > 0)
        negative = -sum(x for x in entries if x < 0)
        agreeing = [x for x in entries if (x > 0 if positive > negative else x < 0)]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return np.array(merged)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("count", [2, 3])
def test_ties_is_that_of_its_paper(count, density):
    ws, biases = matrices(0, count=count), list(matrices(1, shape=(count, 5))[0])
    merged = ties(updates(ws, biases), density)
    flat = [np.concatenate([w.ravel(), b]) for w, b in zip(ws, biases, strict=True)]
    expected = numpy_ties(flat, density)
    found = np.concatenate([merged["w"].numpy().ravel(), merged["b"].numpy()])
    np.testing.assert_allclose(found, expected, atol=1e-14)


def numpy_tsv(ws):
    k = max(1, min(ws[0].shape) // len(ws))
    parts = [np.linalg.svd(w, full_matrices=False) for w in ws]
    u = np.hstack([p[0][:, :k] for p in parts])
    s = np.concatenate([p[1][:k] for p in parts])
    v = np.hstack([p[2][:k].T for p in parts])

    def white(x):
        values, vectors = np.linalg.eigh(x.T @ x)
        return x @ vectors @ np.diag(values**-0.5) @ vectors.T

    return white(u) @ np.diag(s) @ white(v).T


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (8, 8)])
def test_task_singular_vectors_are_whitened_as_in_the_paper(shape):
    ws = matrices(2, shape=shape)
    np.testing.assert_allclose(
        singular_vectors(updates(ws))["w"].numpy(), numpy_tsv(ws), atol=1e-10
    )


@pytest.mark.parametrize("rank", [None, 2])
def test_the_isotropic_merge_flattens_the_spectrum_of_the_sum(rank):
    ws = matrices(3, rank=rank)
    u, s, vt = np.linalg.svd(sum(ws), full_matrices=False)
    r = len(s) if rank is None else 2 * rank
    expected = s[:r].mean() * u[:, :r] @ vt[:r]
    found = isotropic(updates(ws))["w"]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(isotropic([{"w": found}])["w"].numpy(), expected, atol=1e-10)


def test_a_task_merged_with_itself_is_itself():
    (w,), (b,) = matrices(4, count=1), matrices(5, count=1, shape=(5,))
    same = updates([w, w], [b, b])
    for name, value in same[0].items():
        assert torch.allclose(average(same)[name], value, atol=1e-14)
        assert torch.allclose(ties(same, 1.0)[name], value, atol=1e-14)
        assert torch.allclose(total(same)[name], 2 * value, atol=1e-14)
        for merge in MERGES.values():
            assert merge(same)[name].shape == value.shape


def test_updates_in_orthogonal_spaces_do_not_interfere():
    axes = torch.eye(8, dtype=torch.float64)
    apart = [{"w": torch.outer(axes[k], axes[k])} for k in (0, 3)]
    both = apart[0]["w"] + apart[1]["w"]
    for merge in (total, singular_vectors, isotropic):
        assert torch.allclose(merge(apart)["w"], both, atol=1e-12)
    assert torch.allclose(ties(apart, 1 / 64)["w"], both, atol=1e-12)


@pytest.mark.parametrize("name", list(MERGES))
def test_merges_take_the_order_of_tasks_as_no_matter_and_zeros_as_they_are(name):
    first, second = updates(matrices(6))
    one, other = MERGES[name]([first, second])["w"], MERGES[name]([second, first])["w"]
    assert torch.allclose(one, other, atol=1e-12)
    zero = {"w": torch.zeros(9, 6, dtype=torch.float64)}
    assert not MERGES[name]([zero, zero])["w"].any()
    assert torch.isfinite(MERGES[name]([first, zero])["w"]).all()


# Measures


def test_interference_is_the_formula_of_its_paper():
    first, second = (leading(torch.tensor(w)) for w in matrices(7))
    parts = [np.linalg.svd(w, full_matrices=False) for w in matrices(7)]
    u = np.hstack([p[0][:, :3] for p in parts])
    v = np.hstack([p[2][:3].T for p in parts])
    s = np.concatenate([p[1][:3] for p in parts])
    crossed = (u.T @ u - np.eye(6)) @ np.diag(s) @ (v.T @ v - np.eye(6))
    expected = np.abs(crossed).sum() / s.sum()
    assert singular_task_interference(first, second) == pytest.approx(expected, rel=1e-10)


def test_overlap_is_measured_from_chance():
    """Its mean over random spaces is 0 within four standard errors."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(400):
        p, q = (
            torch.linalg.qr(torch.randn(12, r, generator=generator, dtype=torch.float64)).Q
            for r in (3, 5)
        )
        found.append(overlap_beyond_chance(p, q))
    assert abs(np.mean(found)) < 4 * np.std(found) / len(found) ** 0.5
    whole = torch.eye(12, dtype=torch.float64)
    assert overlap_beyond_chance(whole, whole[:, :3]) is None


def test_zero_updates_have_no_angle_and_no_conflict():
    zero, some = torch.zeros(4), torch.tensor([1.0, -1.0, 0.0, 2.0])
    assert energy_cosine({"w": zero}, {"w": some}) is None
    assert energy_cosine({"w": some}, {"w": -some}) == pytest.approx(-1)
    assert sign_conflict(zero, some) is None
    assert (sign_conflict(some, some), sign_conflict(some, -some)) == (0, 1)


def test_a_planted_common_direction_is_seen():
    base = initial_state(SHAPE, torch.Generator().manual_seed(0))
    tuned = [
        lora_tuned(base, task, SHAPE, Recipe(4, 8, 1e-2), seed=3, rank=2, alpha=4.0)
        for task in (0, 1)
    ]
    alike = weight_measures(base, [tuned[0], tuned[0]], [(0, 1)])
    for name in ("write_overlap", "read_overlap", "energy_cosine", "read_overlap_corrected"):
        assert alike[name] == [pytest.approx(1, abs=1e-8)], name
    assert alike["sign_conflict"] == [0]
    found = weight_measures(base, tuned, [(0, 1)])
    # Four steps barely move A: the common start is nearly all that the two read.
    assert found["read_overlap"][0] > 0.9
    assert found["read_overlap_corrected"][0] < found["read_overlap"][0]
    assert {p.name for p in FROM_WEIGHTS} == set(found)


# Training


def test_tasks_are_eight_functions_of_the_sequence():
    generator = torch.Generator().manual_seed(0)
    drawn = [batch([task], 50, torch.Generator().manual_seed(1)) for task in range(8)]
    answers = {tuple(d.answers.flatten().tolist()) for d in drawn}
    assert len(answers) == len(NAMES) == 8
    assert len(PAIRS) == 28
    for task, one in enumerate(drawn):
        assert one.tokens.shape == (50, 2 * LENGTH)
        assert set(one.tokens[:, 0].tolist()) == {SYMBOLS + task}
        assert torch.equal(one.tokens[:, LENGTH + 1 :], one.answers[:, :-1])
        assert 0 <= int(one.answers.min()) <= int(one.answers.max()) < SYMBOLS
    assert len(batch([2, 5], 3, generator).answers) == 6


def test_fine_tuning_gives_differences_from_the_base():
    base = initial_state(SHAPE, torch.Generator().manual_seed(0))
    kept = {name: weight.clone() for name, weight in base.items()}
    held = batch([3], 200, torch.Generator().manual_seed(9))
    recipe = Recipe(60, 32, 1e-2)
    for tuned in (
        fully_tuned(base, 3, SHAPE, recipe, seed=1),
        lora_tuned(base, 3, SHAPE, recipe, seed=1, rank=2, alpha=4.0),
    ):
        assert all(torch.equal(base[name], kept[name]) for name in base)
        after = with_update(base, tuned.update)
        assert loss(after, held, SHAPE) < loss(base, held, SHAPE)
    assert all(int(torch.linalg.matrix_rank(w)) <= 2 for w in tuned.update.values())
    again = lora_tuned(base, 3, SHAPE, recipe, seed=1, rank=2, alpha=4.0)
    assert all(torch.equal(again.update[name], w) for name, w in tuned.update.items())
    assert performance(base, held, SHAPE)[1] == pytest.approx(
        float(loss(base, held, SHAPE)), rel=1e-5
    )


def test_measures_of_data_are_what_they_say():
    base = initial_state(SHAPE, torch.Generator().manual_seed(0))
    batches = [batch([task], 16, torch.Generator().manual_seed(task)) for task in (0, 1)]
    tuned = [fully_tuned(base, t, SHAPE, Recipe(5, 8, 1e-2), seed=1) for t in (0, 1)]
    found = data_measures(base, tuned, batches, SHAPE, [(0, 1)])
    moments = input_moments(base, batches[0], SHAPE)
    x = torch.nn.functional.layer_norm(
        base["transformer.wte.weight"][batches[0].tokens] + base["transformer.wpe.weight"], (16,)
    ).flatten(0, 1).double()  # fmt: skip
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.allclose(moments[name], x.mT @ x / len(x), atol=1e-5)
    assert [int(m.shape[0]) for m in moments.values()] == [16, 16, 16, 64]
    w = tuned[1].update[name]
    share = float((x @ w).square().sum() / (w.square().sum() * x.square().sum()))
    direct = float(((moments[name] @ w) * w).sum() / (w.square().sum() * moments[name].trace()))
    assert direct == pytest.approx(share, rel=1e-4)
    rises = [
        performance(with_update(base, tuned[1 - i].update), batches[i], SHAPE)[1]
        - performance(base, batches[i], SHAPE)[1]
        for i in (0, 1)
    ]
    assert found["cross_loss"] == [pytest.approx(np.mean(rises))]
    alike = data_measures(base, [tuned[0]] * 2, [batches[0]] * 2, SHAPE, [(0, 1)])
    assert alike["gradient_cosine"] == [pytest.approx(1, abs=1e-5)]
    assert alike["activation_overlap"] == [pytest.approx(1, abs=1e-10)]


# The interval


def tables(rng, main, pair, noise, *, seeds=4):
    effect, own = rng.standard_normal(8), rng.standard_normal(28)
    mean = main * np.array([effect[i] + effect[j] for i, j in PAIRS]) + pair * own
    return [list(mean + noise * rng.standard_normal(28)) for _ in range(seeds)]


@pytest.mark.parametrize(("main", "pair", "noise"), [(0.5, 0.5, 0.5), (1.0, 0.0, 0.3)])
def test_unrelated_tables_are_rarely_called_related(main, pair, noise):
    """At most 2.5 % on each side, counted; what knows nothing of shared tasks errs far more."""
    rng = np.random.default_rng(0)
    above = naive = 0
    trials = 100
    for _ in range(trials):
        x, y = tables(rng, main, pair, noise), tables(rng, main, pair, noise)
        estimate = task_interval("ρ", x, y, PAIRS)
        above += estimate.low > 0 or estimate.high < 0
        naive += abs(estimate.value) > 1.96 / 28**0.5
    # 5 % of 100 trials and two standard errors.
    assert above <= 9
    if not pair:
        assert naive > 2 * above


def test_a_planted_relation_is_found_in_its_direction():
    rng = np.random.default_rng(1)
    x = tables(rng, 0.5, 1.0, 0.2)
    y = [list(-np.array(row) + 0.2 * rng.standard_normal(28)) for row in x]
    estimate = task_interval("ρ", x, y, PAIRS)
    assert -1 <= estimate.low < estimate.value < estimate.high < -0.6
    assert estimate.n == 8
    by_scipy = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert estimate.value == pytest.approx(np.mean(by_scipy), rel=1e-12)
    assert task_interval("ρ", x, y, PAIRS, specific=True).high < 0
    assert task_interval("ρ", x, y, PAIRS, sign=-1.0).low == pytest.approx(-estimate.high)
    blank = [[0.0] * 28 for _ in x]
    gain = difference_interval("more", (x, -1.0), (blank, 1.0), [y], PAIRS)
    assert gain.low > 0
    assert gain.value == pytest.approx(-estimate.value)


def test_undefined_numbers_leave_their_seed_out():
    rng = np.random.default_rng(2)
    x, y = tables(rng, 1, 1, 1), tables(rng, 1, 1, 1)
    holed = [[None, *x[0][1:]], *x[1:]]
    assert task_interval("ρ", holed, y, PAIRS) == task_interval("ρ", x[1:], y[1:], PAIRS)
    assert task_interval("ρ", x[:1], y[:1], PAIRS) is None
    flat = [[1.0] * 28 for _ in x]
    assert task_interval("ρ", flat, y, PAIRS).value == 0


# The experiment


def cells(drop):
    """Measured cells of which what is lost is a function of the predictors, with some noise."""
    made = []
    for tuning in ("full", "lora"):
        for seed in range(4):
            rng = np.random.default_rng(seed)
            names = [p.name for p in PREDICTORS if tuning in p.tunings]
            measures = {name: rng.standard_normal(28) for name in names}
            lost = drop(measures) + 0.05 * rng.standard_normal(28)
            values = {
                "measures": {name: list(map(float, v)) for name, v in measures.items()},
                "drops": {m: list(map(float, lost)) for m in MERGES},
                "loss_rises": {m: list(map(float, 2 * lost)) for m in MERGES},
            }
            made.append(Measured(Cell(f"{tuning}-{seed}", {"tuning": tuning}), values, 1.0))
    return made


def results(measured):
    findings = EXPERIMENT.conclude(measured)
    return {
        "name": EXPERIMENT.name,
        "settings": {"quick": False},
        "findings": [
            {"claim": f.claim, "estimates": [vars(e) for e in f.estimates]} for f in findings
        ],
    }, {f.claim: f.verdict for f in findings}


def test_where_only_the_gradient_counts_it_alone_predicts():
    content, verdicts = results(cells(lambda m: -m["gradient_cosine"]))
    passed = {v["predictor"] for v in merge_verdicts(content)["verdicts"] if v["predicts_jointly"]}
    assert passed == {"gradient_cosine"}
    assert verdicts["The gradient says more than each number from weights."] == "confirmed"
    assert verdicts["Accuracy and loss agree on which pairs lose."] == "confirmed"


def test_where_weights_tell_the_opposite_is_found():
    content, verdicts = results(cells(lambda m: m["write_overlap"]))
    verdict = merge_verdicts(content)
    passed = {v["predictor"] for v in verdict["verdicts"] if v["predicts_jointly"]}
    assert passed == {"write_overlap"}
    assert verdicts["From weights alone no conflict can be foretold."] == "refuted"
    assert verdicts["The gradient says more than each number from weights."] == "refuted"
    # Against the expected direction nothing passes.
    opposite = merge_verdicts(results(cells(lambda m: -m["write_overlap"]))[0])["verdicts"]
    assert not [v for v in opposite if v["predictor"] == "write_overlap" and v["predicts"]]
    for v in verdict["verdicts"]:
        assert v["joint_low"] <= v["low"] <= v["rho"] <= v["high"] <= v["joint_high"]


def test_results_of_another_experiment_give_no_verdicts():
    with pytest.raises(InputError, match="results of 'pruning'"):
        merge_verdicts({"name": "pruning"})
    with pytest.raises(InputError, match="lack write_overlap"):
        merge_verdicts({"name": "merge-prediction", "findings": []})


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_cell_is_measured(tuning):
    named = {cell.name: cell for cell in EXPERIMENT.cells(Options(quick=True))}
    assert set(named) == {"full-1", "full-2", "lora-1", "lora-2"}
    settings = named[f"{tuning}-1"].settings
    few = {"steps": 3, "batch": 8, "rate": 1e-2}
    small = settings | {"base": few, "recipe": few, "held_out": 10, "batch": 8}
    values = EXPERIMENT.measure(Cell(f"{tuning}-1", small), lambda fraction: None)
    json.dumps(values, allow_nan=False)
    assert set(values["measures"]) == {p.name for p in PREDICTORS if tuning in p.tunings}
    assert all(len(numbers) == 28 for numbers in values["measures"].values())
    assert {len(values[kind][m]) for kind in ("drops", "loss_rises") for m in MERGES} == {28}
    assert len(EXPERIMENT.table([Measured(named[f"{tuning}-1"], values, 1.0)])) == 28


def test_every_figure_is_drawn():
    measured = cells(lambda m: m["write_overlap"])
    assert set(EXPERIMENT.draw(measured, ())) == {name for name, _ in EXPERIMENT.figures}


def test_every_claim_goes_beyond_the_paper():
    assert all(claim.beyond for claim in CLAIMS)
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


def test_the_file_that_reports_quote_is_that_of_the_page():
    published = ROOT / "docs/lab/merge-prediction/results.json"
    quoted = ROOT / "src/flagscope/report/comparison/merge_predictors.json"
    content = merge_verdicts(json.loads(published.read_text(encoding="utf-8")))
    assert json.loads(quoted.read_text(encoding="utf-8")) == content


def test_what_the_index_says_of_the_verdicts_is_what_they_are():
    quoted = ROOT / "src/flagscope/report/comparison/merge_predictors.json"
    content = json.loads(quoted.read_text(encoding="utf-8"))
    from_weights = {p["name"] for p in content["predictors"] if not p["needs_data"]}
    found = [v for v in content["verdicts"] if v["predictor"] in from_weights]
    passed = [v for v in found if v["predicts"]]
    index = " ".join((ROOT / "docs/lab/index.md").read_text(encoding="utf-8").split())
    assert (
        f"Of {len(found)} intervals over 28 pairs of eight tasks {len(passed)} exclude 0" in index
    )
    assert {v["tuning"] for v in passed} == {"lora"}
    assert {v["predictor"].removesuffix("_corrected") for v in passed} == {
        "size", "energy_cosine", "sign_conflict",
    }  # fmt: skip
    assert not any(v["predicts_jointly"] for v in content["verdicts"])
    gradient = [v for v in content["verdicts"] if v["predictor"] == "gradient_cosine"]
    assert {v["merge"] for v in gradient if v["predicts"]} == {"average", "TIES"}
    assert content["quick"] is False


def test_correlations_are_those_of_the_table():
    table = pd.read_csv(ROOT / "docs/lab/merge-prediction/table.csv")
    published = json.loads((ROOT / "docs/lab/merge-prediction/results.json").read_text("utf-8"))
    printed = {f["claim"]: {e["name"]: e for e in f["estimates"]} for f in published["findings"]}
    for predictor in PREDICTORS:
        for tuning in predictor.tunings:
            chosen = table[table.cell.str.startswith(tuning)]
            for merge in MERGES:
                pairs = [
                    part[[predictor.name, f"drop {merge}"]] for _, part in chosen.groupby("cell")
                ]
                by_seed = [part.corr("spearman").iloc[0, 1] for part in pairs]
                assert len(by_seed) == 8
                value = printed[predictor.claim][f"ρ, {merge}, {tuning}"]["value"]
                assert value == pytest.approx(np.mean(by_seed), abs=1e-6)
