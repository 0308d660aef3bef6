"""The pages of the documentation: verdicts follow from the intervals, these from the data."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flagscope.lab import Estimate, experiment_names, load_experiment, overall_verdict
from flagscope.lab.claim import Claim
from flagscope.lab.experiment import Finding, Prediction
from flagscope.lab.experiments.lm_checkpoints.claims import CLAIMS as LM_CLAIMS
from flagscope.lab.experiments.merge_prediction.claims import CLAIMS as MERGE_CLAIMS
from flagscope.lab.experiments.pruning.claims import CLAIMS as PRUNING_CLAIMS
from flagscope.lab.intervals import mean_interval
from flagscope.lab.page_layout import renewed_index
from flagscope.lab.pages import page_text

LAB = Path(__file__).parents[2] / "docs/lab"
# Beside these bounds an interval is the page's own affair.
_MEASURES = {
    "share": (0, 1), "flagged": (0, 1), "ρ,": (-1, 1), "level": (0, 1), "NC4": (0, 1),
    "largest sine": (0, 1), "sine at the end": (0, 1), "sine, digits": (0, 1),
    "sine, targets zero": (0, 1),
}  # fmt: skip


@cache
def page(name: str) -> str:
    return (LAB / f"{name}.md").read_text(encoding="utf-8")


@cache
def results(name: str) -> dict[str, Any]:
    return json.loads((LAB / name / "results.json").read_text(encoding="utf-8"))


def parts(name: str) -> dict[str, dict[str, Any]]:
    """The findings that the page was written from, by what they claim."""
    return {finding["claim"]: finding for finding in results(name)["findings"]}


def estimates(finding: dict[str, Any]) -> list[Estimate]:
    """The estimates of a finding, before the page rounds them."""
    found = []
    for one in finding["estimates"]:
        bounds = one.get("bounds") and tuple(one["bounds"])
        found.append(Estimate(**{**one, "bounds": bounds}))
    return found


@pytest.mark.parametrize("name", experiment_names())
def test_a_page_is_written_from_its_results(name):
    (table,) = (LAB / name).glob("table.csv*")
    assert page(name) == page_text(results(name), table=table.name)
    index = (LAB / "index.md").read_text(encoding="utf-8")
    assert renewed_index(index, [results(name)]) == index
    for target in re.findall(r"\]\(([^)#:]*)\)", page(name)):
        assert (LAB / target).is_file(), target


@pytest.mark.parametrize("name", experiment_names())
def test_results_are_those_of_the_experiment(name):
    """Texts, cells and rule of the code that stands; the verdict on the paper by its own parts."""
    found, experiment = results(name), load_experiment(name)
    for field in ("title", "claim", "source", "rank_rule"):
        assert found[field] == getattr(experiment, field)
    assert found["figures"] == dict(experiment.figures)
    assert not found["failures"]
    assert not any("values" in cell for cell in found["cells"])
    findings = [
        Finding(**{**finding, "prediction": Prediction(**finding["prediction"])})
        for finding in found["findings"]
    ]
    assert found["verdict"] == overall_verdict(findings)


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("lm-checkpoints", LM_CLAIMS),
        ("merge-prediction", MERGE_CLAIMS),
        ("pruning", PRUNING_CLAIMS),
    ],
)
def test_verdicts_follow_from_the_intervals(name, claims):
    found = parts(name)
    assert list(found) == [claim.text for claim in claims]
    for claim, finding in zip(claims, found.values(), strict=True):
        bare = Claim(claim.text, claim.prediction, claim.source, list, claim.low, claim.high)
        expected = bare.judge(estimates(finding))
        assert finding["verdict"] == expected.verdict, claim.text
        assert finding["words"] == expected.words, claim.text
        assert finding["beyond"] == claim.beyond, claim.text


@pytest.mark.parametrize("name", experiment_names())
def test_intervals_stay_within_what_is_possible(name):
    """Known by name here, so that a quantity that has lost its bounds in the code is seen."""
    for finding in parts(name).values():
        for e in estimates(finding):
            if e.low is None or e.high is None:
                continue
            assert e.low <= e.value <= e.high, e
            for measure, (least, greatest) in _MEASURES.items():
                if e.name.startswith(measure):
                    assert least <= e.low <= e.high <= greatest, e


def test_what_the_paper_claims_is_told_from_what_goes_beyond():
    """The parts that the verdict on the paper rests on, by experiment."""
    counts = {
        name: sum(not finding["beyond"] for finding in parts(name).values())
        for name in experiment_names()
    }
    assert counts == {
        "adamw-rotation": 0, "alignment-without-ridge": 0, "attention-laws": 0, "attractor": 2,
        "collapse": 8,
        "invariance": 2, "invariant-ring": 2, "kernel-vs-read": 1, "lead-lag": 0,
        "lm-checkpoints": 7,
        "merge-prediction": 0,
        "obstruction": 3, "obstruction-scale": 3, "pruning": 0, "published-checkpoints": 5,
        "ridge-rate": 2, "strata": 4,
    }  # fmt: skip
    verdicts = {name: results(name)["verdict"] for name in counts}
    assert verdicts["lm-checkpoints"] == verdicts["obstruction"] == "confirmed"
    none = ("adamw-rotation", "alignment-without-ridge", "attention-laws", "merge-prediction")
    none = (*none, "lead-lag", "pruning")
    assert all(verdicts[name] is None for name in none)
    # By "polystable" the paper means a closed orbit; the standard meaning is not its claim.
    assert verdicts["strata"] == "confirmed"


def test_the_index_counts_what_the_pages_hold():
    """Parts, experiments and core-minutes are numbers in a text that nothing writes."""
    index = " ".join((LAB / "index.md").read_text(encoding="utf-8").split())
    found = [results(name) for name in experiment_names()]
    beyond = [part["beyond"] for content in found for part in content["findings"]]
    papers = beyond.count(False)
    assert f"number of parts, {len(beyond)} in all, {papers} of them the paper's" in index
    took = sum(content["run"]["core_seconds"] for content in found) / 60
    budgets = sum(content["run"]["budget_minutes"] for content in found)
    assert (
        f"the {len(found)} experiments took {took:.0f} core-minutes, of budgets that add up to "
        f"{budgets:.0f}" in index
    )
    readme = (LAB.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"`flagscope lab`: {len(found)} experiments" in readme


@pytest.mark.parametrize("name", experiment_names())
def test_the_data_stand_beside_the_page(name):
    (table,) = (LAB / name).glob("table.csv*")
    assert len(pd.read_csv(table)) > 100
    assert table.stat().st_size <= 500_000


def agrees(printed: Estimate, values) -> None:
    computed = mean_interval("", values, bounds=printed.bounds)
    for one in ("value", "low", "high", "n"):
        assert getattr(printed, one) == pytest.approx(getattr(computed, one), rel=2e-5, abs=1e-6)


def test_rates_are_those_of_the_table():
    table = pd.read_csv(LAB / "ridge-rate/table.csv.gz")
    rates = table[table.cell.str.startswith("rate-") & (table.quantity == "ratio")]
    (text,) = [t for claim, t in parts("ridge-rate").items() if claim.startswith("Under full-b")]
    assert len(estimates(text)) == rates.decay.nunique() == 4
    for printed, (decay, chosen) in zip(estimates(text), rates.groupby("decay"), strict=True):
        assert printed.name.endswith(f"λ = {decay:g}")
        by_cell = chosen.groupby(["seed", "cell"]).value.mean()
        agrees(printed, by_cell.groupby("seed").mean())
        assert 0.99 < printed.low < printed.high < 1.01


def test_relative_imbalances_with_a_loss_and_without_are_those_of_the_table():
    table = pd.read_csv(LAB / "ridge-rate/table.csv.gz")
    wide = table[table.cell.str.startswith("control-")].pivot_table(
        index=["decay", "cell", "seed", "pair"], columns="quantity", values="value"
    )
    left = (wide["relative_end"] / wide["relative_start"]).reset_index(name="left")
    left["loss"] = left.cell.str.split("-").str[1]
    assert (left[left.loss == "none"].left - 1).abs().max() < 1e-7
    assert (left[left.loss == "signal"].left < 1e-3).all()
    assert (left[left.loss == "zero"].left > 0.99).all()
    (text,) = [t for claim, t in parts("ridge-rate").items() if "relative to the Grams" in claim]
    for printed, decay in zip(estimates(text)[2:], (5e-3, 1e-2), strict=True):
        chosen = left[(left.loss == "signal") & (left.decay == decay)]
        agrees(printed, chosen.groupby(["seed", "cell"]).left.mean().groupby("seed").mean())


def test_commutators_are_those_of_the_table():
    table = pd.read_csv(LAB / "obstruction/table.csv.gz")
    judged = table[(table.quantity == "C") & (table.ridge == 5e-3) & (table.step == 5000)]
    printed = {e.name: e for text in parts("obstruction").values() for e in estimates(text)
               if "at 2λt = 10" in text["prediction"]["text"]}  # fmt: skip
    for activation in ("linear", "relu", "tanh", "gelu"):
        values = judged[(judged.activation == activation) & (judged.pair == "1-2")].value
        agrees(printed[f"C, {activation}"], values)
        # Every seed, not the mean alone.
        assert (values < 1e-6).all() if activation == "linear" else (values > 0.05).all()


def test_commutators_over_the_scale_of_the_loss_are_those_of_the_table():
    (path,) = (LAB / "obstruction-scale").glob("table.csv*")
    table = pd.read_csv(path)
    last = table[table.time == table.groupby(["activation", "kind", "ratio"]).time.transform("max")]
    printed = {e.name: e for text in parts("obstruction-scale").values() for e in estimates(text)}
    grid = last[last.kind == "grid"]
    for (activation, ratio), chosen in grid.groupby(["activation", "ratio"]):
        name = f"C, {activation}, λ/c = {ratio:g}"
        if (chosen.explained >= 0.05).all():
            agrees(printed[name], chosen.C)
        else:
            assert name not in printed
    keys = ["activation", "ratio", "seed"]
    whole = grid.set_index(keys).C
    quarter = last[last.kind == "quarter"].set_index(keys).C
    assert len(quarter) == 20
    assert (quarter == whole[quarter.index]).all()


def test_alignment_without_ridge_is_that_of_the_table():
    (path,) = (LAB / "alignment-without-ridge").glob("table.csv*")
    table = pd.read_csv(path)
    ends = table[table.step == table.groupby("cell").step.transform("max")]
    starts = table[table.step == table.groupby("cell").step.transform("min")]
    assert (starts.step == 0).all()
    keys = ["cell", "pair", "seed"]
    left = (ends.set_index(keys).relative / starts.set_index(keys).relative).reset_index()
    (text,) = [t for c, t in parts("alignment-without-ridge").items() if c.startswith("Without r")]
    for printed, depth in zip(estimates(text), (2, 3, 4), strict=True):
        chosen = left[left.cell == f"logistic-depth{depth}"]
        agrees(printed, chosen.groupby("seed").relative.mean())
        # Of every pair and seed, and of none of the control's.
        assert (chosen.relative < 0.1).all()
        assert (left[left.cell == f"squared-depth{depth}"].relative > 0.5).all()


def test_correlations_are_those_of_the_table():
    table = pd.read_csv(LAB / "pruning/table.csv")
    text = parts("pruning")["Heads that overlap more with the others cost less to remove."]
    found = [
        float(np.asarray(stats.spearmanr(model.overlap, model.cost))[0])
        for _, model in table.groupby("model")
    ]
    agrees(estimates(text)[0], found)


def test_rises_are_those_of_the_table():
    table = pd.read_csv(LAB / "lm-checkpoints/table.csv")
    for space in "qkvo":
        text = parts("lm-checkpoints")[
            f"R of the {space.upper()} spaces rises above its own initialisation."
        ]
        for printed, decayed in zip(estimates(text), (True, False), strict=True):
            chosen = table[
                (table.optimizer == "adamw") & (table.task == "real") & (table.decayed == decayed)
            ].sort_values("step")
            by_seed = chosen.groupby("seed")[f"R_{space}"]
            agrees(printed, by_seed.last() - by_seed.first())


def test_exponents_are_those_of_the_table():
    table = pd.read_csv(LAB / "attention-laws/table.csv.gz")
    laws = table[(table.kind == "descent") & table.law & (table.network != "batchnorm-epsilon")]
    last = laws[laws.step == laws.groupby(["network", "step_size"]).step.transform("max")]
    (text,) = [t for claim, t in parts("attention-laws").items() if claim.startswith("All of them")]
    printed = {e.name: e for e in estimates(text)}
    for (network, quantity), chosen in last.groupby(["network", "quantity"]):
        small, large = sorted(chosen.step_size.unique())[:2]
        by_seed = chosen.set_index(["step_size", "seed"]).remainder
        exponents = np.log(by_seed[large] / by_seed[small]) / np.log(large / small)
        mean = printed.pop(f"exponent, {network}: {quantity}").value
        assert exponents.mean() == pytest.approx(mean, rel=1e-4)
    assert not printed
    # Round-off of every law, in every seed and at every step.
    assert laws.driven.max() < 1e-12


def test_shares_of_places_are_those_of_the_table():
    table = pd.read_csv(LAB / "published-checkpoints/table.csv")
    titles = {"all-MiniLM-L6-v2": "minilm", "AntiBERTy": "antiberty", "ResNet-20": "resnet20"}
    letters = {"R": "R", "ρ": "rho", "ν": "nu", "C": "C"}
    beyond_all, places = 0, 0
    for claim, text in parts("published-checkpoints").items():
        if " works on " not in claim:
            continue
        of_letter = table[table.quantity.str.startswith(f"{letters[claim[0]]}_")]
        for printed in estimates(text):
            title = printed.name.removeprefix("share of places, ")
            chosen = of_letter[of_letter.checkpoint == titles[title]]
            drawn = chosen[chosen.weights == "initial"].groupby(["quantity", "layer"]).value
            trained = chosen[chosen.weights == "trained"].set_index(["quantity", "layer"]).value
            trained = trained.sort_index()
            held = (trained < drawn.min()) | (trained > drawn.max())
            assert (len(held), held.mean()) == (printed.n, printed.value)
            beyond_all, places = beyond_all + int(held.sum()), places + len(held)
    index = " ".join((LAB / "index.md").read_text(encoding="utf-8").split())
    assert f"In {beyond_all} of {places} places" in index


def test_angles_of_adamw_are_those_of_the_table():
    table = pd.read_csv(LAB / "adamw-rotation/table.csv")
    one = table[(table.lag == 1) & (table.kind == "gpt") & table.cell.str.contains("real")]
    texts = parts("adamw-rotation").items()
    (text,) = [t for claim, t in texts if "(1-β1)/(1+β1)), after" in claim]
    printed = {e.name: e for e in estimates(text)}
    assert one.cell.nunique() == 5
    for cell, chosen in one.groupby("cell"):
        rate, decay, beta = re.findall(r"(?:rate|decay|beta)([0-9.]+)", cell)
        name = f"one step, η = {rate}, λ = {decay}, β1 = {beta}"
        agrees(printed[name], chosen.groupby("seed").angle_ratio.mean())
