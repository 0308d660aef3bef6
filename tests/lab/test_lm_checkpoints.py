"""The checkpoint experiment measures what a scan says, and its verdicts follow their rules."""

import math

import pytest
import torch
from scipy import stats

import flagscope
from flagscope.lab.experiment import Cell, Measured, Options
from flagscope.lab.experiments.lm_checkpoints.claims import CLAIMS, flagged
from flagscope.lab.experiments.lm_checkpoints.experiment import ARMS, EXPERIMENT
from flagscope.lab.experiments.lm_checkpoints.runs import Arm, ArmRuns, at_loss, layer_mean, rise
from flagscope.lab.gpt import GPTShape, initial_state
from flagscope.lab.gpt_alignment import alignment
from flagscope.lab.gpt_training import TrainingRecipe
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.null import mean_overlap_significance

STEPS = [0, 10, 100]
QUICK = Options(quick=True)


def planted(ends, *, seeds=3, starts=1.0):
    """Runs of every arm whose observables go from a start to `ends(arm, name)`, two layers each.

    Seeds and layers differ by amounts that cancel in paired differences and layer means.
    """
    names = [f"{letter}_{kind}" for letter in ("C", "nu") for kind in ("qk", "ov", "mlp")]
    names += [f"{letter}_{space}" for letter in ("R", "log10_p") for space in "qkvo"]
    names += [f"{name}_{kind}" for name in ("product_rank", "conserved") for kind in ("qk", "ov")]
    cells = []
    for arm in ARMS:
        for seed in range(seeds):
            series = {}
            for name in names:
                end = ends(arm, name) * (1 + 0.001 * seed)
                values = (starts, (starts + end) / 2, end)
                series[name] = [[v - 0.01, v + 0.01] for v in values]
            recipe = {"optimizer": arm.optimizer, "steps": 100, "batch": 1, "learning_rate": 0.1}
            recipe["decay"] = 1.0 if arm.decayed else 0.0
            settings = {"arm": vars(arm), "seed": seed, "recipe": recipe}
            values = {"steps": STEPS, "loss": [4.0, 3.0, 2.0], "series": series}
            cells.append(Measured(Cell(f"{arm.label()}-{seed}", settings), values, 1.0))
    return cells


def as_predicted(arm, name):
    """End values for which the theory and the prototypes would be right in every respect."""
    letter, _, which = name.rpartition("_")
    if letter in ("C", "nu"):
        if which == "mlp":
            return 3.0
        return 0.6 - 0.2 * arm.decayed - 0.2 * (arm.optimizer == "sgd")
    if letter == "R":
        return 1.2 + 0.3 * (arm.task == "real") + 0.2 * arm.decayed
    if letter == "log10_p":
        return -5.0
    if letter == "product_rank":
        return 0.5 - 0.3 * (arm.task == "real") - 0.1 * arm.decayed
    decay = 1.0 if arm.decayed else 0.0
    [law] = TrainingRecipe(arm.optimizer, 100, 1, 0.1, decay).law([100])
    return law if arm.optimizer == "sgd" else 5 * law


def test_p_values_are_those_of_the_haar_null_alone():
    """Scales of the stream's coordinates make heads overlap: Haar rejects, a scan allows for it."""
    shape = GPTShape(vocab_size=7, n_layer=1, n_head=4, n_embd=32, n_positions=8)
    state = initial_state(shape, torch.Generator().manual_seed(0))
    scales = torch.exp(1.5 * torch.randn(32, generator=torch.Generator().manual_seed(1)))
    state["transformer.h.0.attn.c_attn.weight"] *= scales[:, None]
    found = alignment(state, shape)
    records = flagscope.scan(
        state, config=shape.config(), only="heads", rank=LAB_RULE, device="cpu", workers=1
    ).result.heads
    for record in records:
        haar = mean_overlap_significance(record.overlap_ratio, [8] * 4, 32).log10_p
        assert found[f"log10_p_{record.space}"] == [pytest.approx(haar, rel=1e-5)]
    assert found["log10_p_q"][0] < -50
    assert records[0].log10_p > -1


def verdicts(measured):
    return {finding.claim: finding.verdict for finding in EXPERIMENT.conclude(measured)}


def test_planted_confirmations_are_confirmed():
    # Five seeds: fewer cannot show that no more than a tenth is flagged at the start.
    found = verdicts(planted(as_predicted, seeds=5))
    assert len(found) == len(CLAIMS) == 27
    assert {claim for claim, verdict in found.items() if verdict != "confirmed"} == set()


@pytest.mark.parametrize(
    ("change", "claims"),
    [
        (lambda arm, name: 0.1 if name == "C_mlp" else None, 1),
        (lambda arm, name: 0.1 if name == "nu_mlp" else None, 1),
        (lambda arm, name: 1.1 if name == "C_ov" and arm.optimizer == "adamw" else None, 1),
        (lambda arm, name: 0.5 if name == "R_k" and arm == Arm() else None, 3),
        (lambda arm, name: 9.0 if name == "R_v" and arm.task == "random" else None, 1),
        (lambda arm, name: 0.0 if name.startswith("log10") and arm.task == "random" else None, 1),
        (lambda arm, name: 9.0 if name == "product_rank_ov" and arm == Arm() else None, 3),
        (lambda arm, name: 1.0 if name == "conserved_qk" and arm == Arm("sgd") else None, 1),
        (lambda arm, name: 2.0 if name == "conserved_qk" and arm.slow else None, 1),
        (lambda arm, name: 0.01 if name == "conserved_ov" and arm == Arm() else None, 1),
    ],
)
def test_planted_contradictions_are_refuted(change, claims):
    def ends(arm, name):
        changed = change(arm, name)
        return as_predicted(arm, name) if changed is None else changed

    found = list(verdicts(planted(ends)).values())
    assert found.count("refuted") == claims


def test_one_seed_leaves_every_verdict_open():
    assert set(verdicts(planted(as_predicted, seeds=1)).values()) == {"open"}


def test_runs_are_paired_by_seed():
    # Seeds differ much, the pairs of arms hardly: only paired differences have short intervals.
    def measured(arm, seed, value):
        recipe = {"optimizer": "adamw", "steps": 1, "batch": 1, "learning_rate": 1.0, "decay": 0.0}
        settings = {"arm": vars(arm), "seed": seed, "recipe": recipe}
        values = {"steps": [0], "loss": [1.0], "series": {"R_q": [[value]]}}
        return Measured(Cell(f"{arm.label()}-{seed}", settings), values, 1.0)

    free = Arm(decayed=False)
    cells = [measured(Arm(), seed, 10.0 * seed + 0.5) for seed in (0, 1, 2)]
    cells += [measured(free, seed, 10.0 * seed) for seed in (2, 1, 0, 7)]
    [one] = ArmRuns(cells).difference("d", Arm(), free, lambda v: layer_mean(v, "R_q", -1))
    assert (one.value, one.low, one.high, one.n) == (0.5, 0.5, 0.5, 3)


def test_an_observable_is_read_where_the_loss_is_equal():
    values = {
        "steps": STEPS,
        "loss": [4.0, 3.0, 2.0],
        "series": {"C_qk": [[1.0], [0.8], [0.2]], "C_ov": [[1.0], [None], [0.2]]},
    }
    assert at_loss(values, "C_qk", 2.5) == pytest.approx(0.5)
    assert at_loss(values, "C_qk", 3.0) == pytest.approx(0.8)
    assert at_loss(values, "C_qk", 1.9) is None
    assert at_loss(values, "C_qk", 4.0) is None
    assert at_loss(values, "C_ov", 2.5) is None


def test_flagged_is_the_fraction_below_the_level():
    tests = {f"log10_p_{space}": [[-3.0, None, math.log10(0.06)]] for space in "qkv"}
    values = {"series": tests | {"log10_p_o": [[-2.0, -1.0, -1.31]]}}
    assert flagged(values, 0) == 5 / 9


def test_every_group_counts_at_the_start():
    """One group of 48 is flagged: its share is known by 48 trials, not by the spread of seeds."""
    measured = planted(as_predicted, seeds=6)
    measured[0].values["series"]["log10_p_v"][0][1] = -2.0
    [finding] = [f for f in EXPERIMENT.conclude(measured) if "calibrated" in f.claim]
    [estimate] = finding.estimates
    assert (estimate.value, estimate.n) == (1 / 48, 48)
    expected = stats.binomtest(1, 48).proportion_ci(0.95)
    assert (estimate.low, estimate.high) == (expected.low, expected.high)
    assert finding.verdict == "open"


def test_alignment_is_that_of_the_scan():
    shape = GPTShape(vocab_size=7, n_layer=2, n_head=3, n_embd=12, n_positions=8)
    state = initial_state(shape, torch.Generator().manual_seed(0))
    # Heads 0 and 1 of layer 1 read values alike: their overlap ratio is d/r = 3.
    attention = state["transformer.h.1.attn.c_attn.weight"]
    attention[:, 28:32] = attention[:, 24:28] @ torch.randn(4, 4)
    found = alignment(state, shape)
    result = flagscope.scan(
        state, config=shape.config(), only=("pairs", "heads"), rank=LAB_RULE
    ).result
    [values] = [r for r in result.heads if (r.layer, r.space) == (1, "v")]
    assert values.max_pair_ratio == pytest.approx(3)
    assert found["R_v"][1] == pytest.approx(values.overlap_ratio, rel=1e-5)
    assert found["R_v"][1] > found["R_v"][0] + 0.3
    middle = sorted(p.commutator_ratio for p in result.pairs if p.kind == "qk" and p.layer == 0)[1]
    assert found["C_qk"][0] == pytest.approx(middle, rel=1e-5)
    assert {len(one) for one in found.values()} == {2}


def test_a_cell_is_measured_from_its_initialisation_on():
    cells = {cell.name: cell for cell in EXPERIMENT.cells(QUICK)}
    assert len(cells) == 2 * len(ARMS)
    told = []
    values = EXPERIMENT.measure(cells["adamw-real-decay-1"], told.append)
    assert values["steps"] == [0, 1, 80]
    assert values["loss"][0] > values["unigram_loss"] > values["loss"][-1] > 1
    chosen = cells["adamw-real-decay-1"].settings
    shape = GPTShape(**chosen["shape"])
    start = alignment(initial_state(shape, torch.Generator().manual_seed(1)), shape)
    assert {name: one[0] for name, one in values["series"].items()} == start
    assert rise("R_k")(values) > 0.05
    assert told == sorted(told)
    assert 0.8 < told[-1] <= 1


def test_a_full_run_has_the_promised_arms_and_seeds():
    cells = EXPERIMENT.cells(Options())
    arms = {cell.name.rpartition("-")[0] for cell in cells}
    assert {
        f"adamw-{t}-{d}" for t in ("real", "shuffled", "random") for d in ("decay", "free")
    } <= arms
    assert {"sgd-real-decay", "sgd-real-free"} <= arms
    assert len(cells) >= 3 * len(arms)


def test_the_table_and_figures_hold_every_run():
    measured = planted(as_predicted)
    table = EXPERIMENT.table(measured)
    assert len(table) == len(measured) * len(STEPS)
    assert not table.duplicated(["optimizer", "task", "decayed", "slow", "seed", "step"]).any()
    last = table[(table.step == 100) & (table.seed == 0)]
    assert last.R_q.tolist() == pytest.approx([as_predicted(arm, "R_q") for arm in ARMS])
    figures = EXPERIMENT.draw(measured, ())
    assert set(figures) == {name for name, _ in EXPERIMENT.figures}
