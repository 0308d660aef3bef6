"""The pages of the documentation: verdicts follow from the intervals, these from the data."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flagscope.lab import Estimate, experiment_names, load_experiment
from flagscope.lab.claim import Claim
from flagscope.lab.intervals import mean_interval
from flagscope.lab.lm_claims import CLAIMS as LM_CLAIMS
from flagscope.lab.pages import _text
from flagscope.lab.pruning_claims import CLAIMS as PRUNING_CLAIMS

LAB = Path(__file__).parents[2] / "docs/lab"
_ROW = re.compile(r"^\| (.*) \| (\S+) \| (.*) \| (\d+) \|$", re.MULTILINE)


@cache
def page(name: str) -> str:
    return (LAB / f"{name}.md").read_text(encoding="utf-8")


def parts(name: str) -> dict[str, str]:
    """What stands under the heading of each finding."""
    findings = page(name).partition("\n## Findings\n")[2].partition("\n## Figures\n")[0]
    found = re.split(r"^### (.*)$", findings, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def estimates(text: str) -> list[Estimate]:
    """The rows of a finding, as the page rounds them."""
    found = []
    for label, value, ends, n in _ROW.findall(text):
        low, high = map(float, ends.split(" … "))
        found.append(Estimate(label, float(value), low, high, int(n)))
    return found


def verdict(text: str) -> str:
    (found,) = re.findall(r"^\*\*(Confirmed|Refuted|Open)\.\*\*", text, re.MULTILINE)
    return found.lower()


@pytest.mark.parametrize(
    ("name", "claims"), [("lm-checkpoints", LM_CLAIMS), ("pruning", PRUNING_CLAIMS)]
)
def test_verdicts_follow_from_the_printed_intervals(name, claims):
    found = parts(name)
    assert list(found) == [_text(claim.text) for claim in claims]
    for claim, text in zip(claims, found.values(), strict=True):
        printed = estimates(text)
        bare = Claim(claim.text, claim.prediction, claim.source, list, claim.low, claim.high)
        expected = bare.judge(printed)
        assert verdict(text) == expected.verdict, claim.text
        assert expected.words in text, claim.text


@pytest.mark.parametrize("name", experiment_names())
def test_a_page_agrees_with_itself_and_with_the_index(name):
    verdicts = [verdict(text) for text in parts(name).values()]
    tally = re.findall(r"^\| .* \| (confirmed|refuted|open) \|$", page(name), re.MULTILINE)
    assert tally == verdicts
    counts = [f"{verdicts.count(v)} {v}" for v in ("confirmed", "refuted", "open") if v in verdicts]
    overall = "refuted" if "refuted" in verdicts else "open" if "open" in verdicts else "confirmed"
    title = load_experiment(name).title
    row = f"| [{name}]({name}.md) | {title} | {overall} | {', '.join(counts)} |"
    assert row in (LAB / "index.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]*)\)", page(name)):
        assert (LAB / target).is_file(), target


@pytest.mark.parametrize("name", experiment_names())
def test_the_data_stand_beside_the_page(name):
    (table,) = (LAB / name).glob("table.csv*")
    assert len(pd.read_csv(table)) > 100
    assert table.stat().st_size <= 500_000


def agrees(printed: Estimate, values) -> None:
    computed = mean_interval("", values)
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
               if "at 2λt = 10" in text}  # fmt: skip
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
