"""NaN and infinity in the weights are the first thing that the findings say, and counted."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

import flagscope
from engine.models import decoder
from flagscope.api.report import Report
from flagscope.cli.table import print_report
from flagscope.demo import final
from flagscope.records import Coverage, NotFinite

AT = "model.layers."


def scanned(*names: str, value: float = math.nan, heads: int = 2) -> Report:
    """A decoder of three layers, the first number of these tensors replaced."""
    state, config = decoder()
    for name in names:
        state[f"{AT}{name}.weight"].view(-1)[0] = value
    for layer in range(3):
        for part in ("k", "v"):
            name = f"{AT}{layer}.self_attn.{part}_proj.weight"
            state[name] = state[name][: 8 * heads].clone()
    return flagscope.scan(
        state, config=config | {"num_key_value_heads": heads}, workers=1, fold_norms="all"
    )


def coverage(report: Report) -> Coverage:
    assert report.result.coverage is not None
    return report.result.coverage


def lost(report: Report) -> NotFinite:
    found = coverage(report).not_finite
    assert found is not None
    return found


# Of 44 pairs, 12 head groups and 24 links.
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("name", "pairs", "groups", "links"),
    [
        # No pair has the gain in front of the first layer; its queries, keys and values do.
        ("0.input_layernorm", 0, 3, 12),
        ("2.input_layernorm", 6, 3, 12),
        ("1.post_attention_layernorm", 6, 0, 0),
        ("0.self_attn.v_proj", 1, 1, 6),
        ("2.self_attn.q_proj", 3, 1, 4),
        ("1.mlp.up_proj", 4, 0, 0),
    ],
)
def test_what_one_number_takes_is_named_and_counted(
    name: str, pairs: int, groups: int, links: int, value: float
) -> None:
    report = scanned(name, value=value)
    found = lost(report)
    assert (found.tensors, found.names) == (1, [f"{AT}{name}.weight"])
    assert (found.pairs, found.head_groups, found.links) == (pairs, groups, links)
    assert found.balanced == 0
    assert report.result.edge_tests == 24 - links
    blank = [record for record in report.result.pairs if record.status != "ok"]
    assert len(blank) == pairs
    counts = {one.what: one.count for one in coverage(report).without_numbers}
    known = {"pairs": pairs, "head groups": groups, "links": links}
    assert counts == {what: count for what, count in known.items() if count}
    first = report.findings[0]
    assert (first.severity, first.target) == ("warning", "section/health")
    assert first.text.startswith(f"1 tensor holds NaN or infinity: {AT}{name}.weight. ")
    for count, of in ((pairs, "44 pairs"), (groups, "12 head groups"), (links, "24 links")):
        assert (f"{count} of {of}" in first.text) == bool(count)


def test_pairs_next_to_a_broken_head_are_counted_apart() -> None:
    report = scanned("0.self_attn.q_proj", heads=1)
    found = lost(report)
    assert (found.pairs, found.balanced) == (1, 1)
    assert report.findings[0].text.endswith(
        ", and the numbers after balancing of 1 pair that shares a map with one of them."
    )


def test_a_sound_model_has_no_such_finding() -> None:
    report = scanned()
    assert coverage(report).not_finite is None
    assert not any("NaN" in finding.text for finding in report.findings)


def test_many_names_are_patterns_and_a_count() -> None:
    parts = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
    report = scanned(*(f"{layer}.{part}" for layer in range(3) for part in parts))
    found = lost(report)
    assert (found.tensors, found.unlisted) == (12, 0)
    assert found.names == [
        f"{AT}{{0-2}}.self_attn.{{q_proj,v_proj}}.weight",
        f"{AT}{{0-2}}.mlp.{{down_proj,up_proj}}.weight",
    ]


def test_zeros_and_what_is_not_finite_are_told_apart_among_the_links() -> None:
    state, config = decoder()
    state[f"{AT}0.self_attn.v_proj.weight"][0, 0] = math.nan
    state[f"{AT}1.self_attn.o_proj.weight"][:, :8] = 0
    report = flagscope.scan(state, config=config, workers=1)
    reasons = {
        one.reason: one.count for one in coverage(report).without_numbers if one.what == "links"
    }
    assert reasons == {
        "heads whose weights are not finite (NaN or infinity)": 6,
        "heads whose weights are all zero, or below their storage noise": 6,
    }
    assert lost(report).links == 6


def test_terminal_page_notebook_and_json_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    report = scanned("2.input_layernorm", "0.self_attn.v_proj")
    text = report.findings[0].text
    print_report(report)
    shown = capsys.readouterr().out.splitlines()
    bullets = [line for line in shown if line.startswith("• ")]
    plain = report.findings[0].plain
    assert bullets[0] == f"• warning: {plain}"
    assert shown[shown.index(bullets[0]) + 1] == f"    {text}"
    page = report.to_html()
    start = page.index('<ol class="findings">')
    card = re.sub(r"<[^>]*>", "", page[start : page.index("</li>", start)])
    assert 0 < card.index(plain) < card.index(text)
    assert report._repr_html_().index(plain) < report._repr_html_().index("</li>")
    written = json.loads(report.to_json(tmp_path / "scan.json"))
    assert written["coverage"]["not_finite"] == lost(report).model_dump()
    assert Report.from_json(tmp_path / "scan.json").findings[0].text == text


def test_it_stands_before_the_strongest_finding() -> None:
    state = load_file(final())
    usual = flagscope.scan(state, workers=1, config=final().with_name("config.json"))
    assert usual.findings[0].severity == "strong"
    name = max(name for name in state if name.endswith("ln_1.weight"))
    state[name][0] = math.nan
    report = flagscope.scan(state, workers=1, config=final().with_name("config.json"))
    assert name in report.findings[0].text
    assert "strong" in {finding.severity for finding in report.findings}


def test_a_store_remembers_what_was_not_finite(tmp_path: Path) -> None:
    state, config = decoder()
    state[f"{AT}2.input_layernorm.weight"][3] = math.nan
    one, two = (
        flagscope.scan(state, config=config, workers=1, store=tmp_path / "store") for _ in range(2)
    )
    assert two.result.run.tasks_from_store == two.result.run.tasks
    assert lost(one) == lost(two)
    assert one.findings[0].text == two.findings[0].text
