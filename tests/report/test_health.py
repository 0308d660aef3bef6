"""The health of the weights stands first, in the terminal, on the page and in the JSON."""

from __future__ import annotations

import html
import json
import math
import re
from typing import Any

import pytest
import torch

import flagscope
from engine.models import decoder
from flagscope.api.report import Report
from flagscope.cli.table import print_report
from flagscope.records import FaultyBlock, Health, ScanResult, UnitFaults
from flagscope.report import findings
from flagscope.report.health import health_text
from flagscope.report.health_findings import health_findings
from report import synthetic

AT = "model.layers."
HALF = "Layer 1's MLP: 12 of 24 neurons are dead"
CODES = ("not-finite", "missing-layers", "dead-neurons", "dead-heads", "constant-tensors",
         "zero-rows", "duplicate-neurons", "duplicate-heads", "duplicate-rows")  # fmt: skip


def _copy_head(state: dict[str, torch.Tensor], layer: int) -> None:
    """Give head 1 of two the weights of head 0."""
    for name in "qkv":
        weight = state[f"{AT}{layer}.self_attn.{name}_proj.weight"]
        weight[8:16] = weight[:8].clone()
    weight = state[f"{AT}{layer}.self_attn.o_proj.weight"]
    weight[:, 8:16] = weight[:, :8].clone()


def half_dead(**options: Any) -> Report:
    """A decoder of which half of an MLP's neurons are zero."""
    state, config = decoder()
    state[f"{AT}1.mlp.down_proj.weight"][:, ::2] = 0
    return flagscope.scan(state, config=config, workers=1, **options)


@pytest.fixture(scope="module")
def ill() -> Report:
    return half_dead()


@pytest.fixture(scope="module")
def sound() -> Report:
    state, config = decoder()
    return flagscope.scan(state, config=config, workers=1)


def printed(report: Report, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        print_report(report)
    return capsys.readouterr().out.splitlines()


def text_of(page: str) -> str:
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_half_of_the_neurons_of_an_mlp_are_the_first_finding(ill: Report):
    first = ill.findings[0]
    assert (first.code, first.severity, first.target) == (
        "dead-neurons", "warning", "section/health"
    )  # fmt: skip
    assert first.plain == f"{HALF}: their outgoing weights are all zero."
    assert first.text == f"{HALF}: 12 by outgoing weights that are all zero."
    assert "0, 2, …, 22 of 24" in first.evidence[0]


def test_the_terminal_says_it_before_any_number(ill: Report, capsys):
    lines = printed(ill, capsys)
    assert lines[2].startswith("health: 1 thing wrong in 30 tensors looked at")
    assert lines[3].startswith(f"  wrong: {HALF}")
    assert next(i for i, line in enumerate(lines) if line.startswith("measured")) > 3
    said = next(line for line in lines if line.startswith("• "))
    assert HALF in said


def test_nothing_wrong_is_said_with_how_much_was_looked_at(sound: Report, capsys):
    line = printed(sound, capsys)[2]
    assert line.startswith("health: nothing wrong in 30 tensors looked at (")
    assert "none of 72 neurons and none of 6 heads is dead by its weights (whether a neuron" in line
    assert not [one for one in sound.findings if one.code in CODES]


def test_the_page_begins_with_it(ill: Report, sound: Report):
    page = ill.to_html()
    assert page.index('id="health"') < page.index('id="coverage"') < page.index('id="findings"')
    assert '<a href="#health">Health</a>' in page
    text = text_of(page)
    assert "1 thing wrong in 30 tensors looked at" in text
    assert f"{HALF}: their outgoing weights are all zero." in text
    assert "Nothing wrong in 30 tensors looked at" in text_of(sound.to_html())


def test_a_notebook_has_a_line_of_it(ill: Report):
    assert "health: 1 thing wrong in 30 tensors" in text_of(ill._repr_html_())


def test_the_json_has_it_and_gives_it_back(ill: Report, tmp_path):
    text = ill.to_json(tmp_path / "scan.json")
    document = json.loads(text)
    neurons = document["health"]["units"][0]
    assert (neurons["check"], neurons["dead"], neurons["units"]) == ("neurons", 12, 72)
    assert neurons["listed"][0]["layer"] == 1
    assert document["findings"][0]["code"] == "dead-neurons"
    assert document["findings"][0]["plain"].startswith(HALF)
    again = Report.from_json(tmp_path / "scan.json")
    assert again.result.health == ill.result.health
    assert again.findings == ill.findings


def test_a_file_of_an_older_release_says_that_nobody_looked(ill: Report, tmp_path, capsys):
    document = json.loads(ill.to_json())
    del document["health"]
    document["settings"]["only"] = ["pairs", "heads", "residual"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = Report.from_json(tmp_path / "old.json")
    assert old.result.health is None
    assert printed(old, capsys)[2] == "health: not looked at in this scan"
    assert "Not looked at in this scan" in text_of(old.to_html())
    assert not [one for one in old.findings if one.code in CODES]


def test_other_parts_alone_say_that_health_was_not_looked_at(capsys):
    report = half_dead(only="heads")
    assert report.result.health is None
    assert "health: not looked at in this scan" in printed(report, capsys)


def test_health_alone_is_a_report_of_its_own(capsys):
    report = half_dead(only="health")
    assert report.result.pairs == []
    assert report.result.heads == []
    lines = printed(report, capsys)
    assert any(HALF in line for line in lines)
    assert [one.code for one in report.findings] == ["dead-neurons", "nothing"]
    assert report.findings[1].text.startswith("Only the health of the weights was looked at")
    assert HALF in text_of(report.to_html())


def test_layers_are_said(capsys):
    report = half_dead(only="health", layers=(0, 1))
    assert ", of layers 0–1 alone" in printed(report, capsys)[2]


def test_each_code_has_a_plain_sentence_and_stands_before_the_rest():
    state, config = decoder(layers=5)
    state[f"{AT}1.mlp.down_proj.weight"][:, ::2] = 0
    state[f"{AT}0.self_attn.o_proj.weight"][:, :8] = 0
    state[f"{AT}2.self_attn.q_proj.weight"][:8] = 0
    state[f"{AT}3.self_attn.k_proj.weight"][:8] = 0
    state[f"{AT}4.self_attn.v_proj.weight"][:] = 0.5
    state[f"{AT}3.mlp.down_proj.weight"][3] = 0
    state[f"{AT}0.self_attn.k_proj.weight"][3] = state[f"{AT}0.self_attn.k_proj.weight"][4].clone()
    for name in ("up", "gate"):
        weight = state[f"{AT}4.mlp.{name}_proj.weight"]
        weight[3] = weight[9].clone()
    _copy_head(state, 1)
    state["lm_head.weight"][0, 0] = math.nan
    state["model.embed_tokens.weight"][2] = 0
    del state[f"{AT}2.mlp.gate_proj.weight"]
    report = flagscope.scan(state, config=config, workers=1)
    every = report.findings
    ill = [one for one in every if one.code in CODES and one.severity == "warning"]
    assert every[: len(ill)] == ill
    assert [*dict.fromkeys(one.code for one in ill)] == list(CODES)
    for one in ill:
        assert one.plain
        assert one.plain.endswith(".")
        assert one.means
        assert one.next_step
        assert one.target == "section/health"
    remarks = [one for one in every if one.code in CODES and one.severity == "info"]
    assert [(one.code, "embed_tokens" in one.text) for one in remarks] == [("zero-rows", True)]
    heads = [one.plain for one in ill if one.code == "dead-heads"]
    assert heads == [
        "Layer 0, head 0 is dead: its output weights are all zero.",
        "Layer 2, head 0 attends evenly: its query weights are all zero.",
        "Layer 3, head 0 attends evenly: its key weights are all zero.",
    ]


def test_nan_outside_of_every_pair_is_the_first_line(capsys):
    state, config = decoder()
    state["model.embed_tokens.weight"][1, :3] = math.nan
    state["model.embed_tokens.weight"][1, 3] = math.inf
    report = flagscope.scan(state, config=config, workers=1)
    first = report.findings[0]
    assert first.code == "not-finite"
    assert first.text.startswith("1 tensor holds NaN or infinity: model.embed_tokens.weight. ")
    assert "3 of 128 numbers are NaN and 1 of 128 numbers is infinite" in first.text
    assert "No pair, head group or link reads them." in first.text
    assert "wrong: 1 tensor holds numbers that are not finite" in printed(report, capsys)[3]


def test_pruned_models_are_said_in_one_line(capsys):
    state, config = decoder(layers=5)
    for layer in range(5):
        for name in ("gate", "up"):
            state[f"{AT}{layer}.mlp.{name}_proj.weight"][: 4 + layer] = 0
        state[f"{AT}{layer}.mlp.down_proj.weight"][:, : 4 + layer] = 0
    report = flagscope.scan(state, config=config, workers=1, only="health")
    (only, _) = report.findings
    assert only.plain.startswith(
        "30 of 120 neurons, in 5 of 5 blocks, most in layer 4's MLP (8 of 24), are dead: "
    )
    assert any("sparse: " in line and "exactly zero" in line for line in printed(report, capsys))


def with_health(**fields: Any) -> ScanResult:
    health = {"tensors": 3, "entries": 10, "zeros": 0, "not_looked_at": [], "faults": [],
              "units": [], "missing": []}  # fmt: skip
    return synthetic.perceptron().model_copy(update={"health": Health(**{**health, **fields})})


def test_several_stacks_are_told_apart():
    block = FaultyBlock(
        name="encoder.layer.3.mlp", stack="encoder", kind="mlp", attention=None, layer=3, write="a",
        read="b", units=8, dead=8, no_output=8, no_input=0, where="0-7",
    )  # fmt: skip
    units = UnitFaults(
        check="neurons", blocks=4, units=32, stacks=["encoder", "decoder"], faulty_blocks=1,
        dead=8, no_output=8, no_input=0, listed=[block],
    )  # fmt: skip
    (found,) = health_findings(with_health(units=[units]))
    assert found.plain.startswith("Encoder layer 3's MLP: all 8 neurons are dead: ")
    units = units.model_copy(update={"listed": [block.model_copy(update={"expert": 5})]})
    (found,) = health_findings(with_health(units=[units]))
    assert found.plain.startswith("Encoder layer 3's MLP, expert 5: all 8 neurons are dead: ")


def test_tensors_that_are_not_listed_are_not_counted_short():
    # Names of different depth, which no pattern joins.
    state = {f"{'m.' * depth}part": torch.randn(20, 20) for depth in range(10)}
    for matrix in state.values():
        matrix[3] = 0
    report = flagscope.scan(state, workers=1, only="health")
    (found,) = (one for one in report.findings if one.code == "zero-rows")
    assert found.text.startswith("10 rows of weights are all zero: ")
    assert " and others. " in found.text


def test_what_could_not_be_read_is_wrong_and_what_was_not_asked_for_is_not():
    left = [{"reason": r, "tensors": 2, "entries": 5, "expected": e, "names": ["a.{0-1}"]}
            for r, e in (("could not be read: gone", False), ("buffers", True))]  # fmt: skip
    text = health_text(with_health(not_looked_at=left))
    assert text.wrong == ["2 tensors not looked at: could not be read: gone [a.{0-1}]"]
    assert text.left == ["2 tensors not looked at: buffers [a.{0-1}]"]


@pytest.mark.parametrize("name", ["a" * 5000, "<b>x</b>", "ｗ.\u202eweight", "\n• strong: fine"])
def test_names_of_a_hostile_file_break_neither_page_nor_terminal(name: str, capsys):
    state = {name: torch.zeros(20, 20), "0.weight": torch.randn(20, 20)}
    state["0.weight"][:, 3] = math.nan
    report = flagscope.scan(state, workers=1)
    page = report.to_html()
    assert "<b>x</b>" not in page
    assert "a" * 1000 not in page
    assert not any(line.startswith("• strong: fine") for line in printed(report, capsys))


def test_a_synthetic_result_without_health_has_no_such_finding():
    assert not [one for one in findings(synthetic.transformer()) if one.code in CODES]
