"""Findings on the gauge come last, and stand folded wherever something else is claimed."""

from __future__ import annotations

import re

import pytest

from flagscope.records import Finding, Label, ScanResult, Severity
from flagscope.report import findings, folded, render_page, render_summary
from report import synthetic


def _finding(severity: Severity, label: Label | None, effect: float | None = 1.0) -> Finding:
    return Finding(
        code="aligned", severity=severity, topic="pairs", plain="Plain.", text="Text.",
        label=label, effect=effect,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "count"),
    [
        ([("strong", "functional"), ("notable", "gauge")], 1),
        ([("notable", "gauge"), ("info", "functional")], 0),
        ([("notable", "gauge"), ("warning", None)], 0),
        ([("notable", None), ("info", "gauge"), ("notable", "gauge")], 2),
        ([("info", None)], 0),
    ],
)
def test_the_gauge_is_folded_only_next_to_another_claim(
    claims: list[tuple[Severity, Label | None]], count: int
) -> None:
    every = [_finding(severity, label) for severity, label in claims]
    shown, gauge = folded(every)
    assert len(gauge) == count
    assert sorted(map(id, (*shown, *gauge))) == sorted(map(id, every))
    assert all(finding.label == "gauge" for finding in gauge)


def test_no_finding_on_the_gauge_outranks_another(any_result: ScanResult) -> None:
    labels = [finding.label == "gauge" for finding in findings(any_result)]
    assert labels == sorted(labels)


def test_a_larger_effect_does_not_lift_the_gauge(transformer: ScanResult) -> None:
    told = findings(transformer)
    last = max(f.effect or 0 for f in told if f.label == "gauge")
    others = [f.effect for f in told if f.label == "functional" and f.effect is not None]
    assert last > min(others)
    assert told[-1].label == "gauge"


def _between(page: str, start: str, end: str) -> str:
    at = page.index(start)
    return page[at : page.index(end, at)]


def test_the_page_closes_the_gauge_and_links_the_members(transformer: ScanResult) -> None:
    page = render_page(transformer)
    section = _between(page, '<section id="findings"', "</section>")
    shown, gauge = folded(findings(transformer))
    head, _, tail = section.partition('<details class="more gauge">')
    assert f"{len(gauge)} findings about numbers that depend on the choice of basis" in tail
    assert (head.count('<li class="finding'), tail.count('<li class="finding')) == (
        len(shown), len(gauge),
    )  # fmt: skip
    assert not re.search(r'<details class="more[^>]* open', section)
    for finding in (*shown, *gauge):
        for item in finding.items:
            target = item.target
            assert target is not None
            assert target.startswith(("heads/", "pair/", "link/"))
            assert f'data-target="{target}">{item.text}</a>' in section.replace("&#39;", "'")


def test_the_page_says_what_to_check_next_as_itself(transformer: ScanResult) -> None:
    section = _between(render_page(transformer), '<section id="findings"', "</section>")
    assert "<code>flagscope compare START MODEL</code>" in section
    assert "<code>flagscope heads MODEL --spaces v</code>" in section
    assert "--html F" not in section
    assert "`" not in section
    assert re.search(r"Open \S+ below", section)


def test_targets_of_members_are_there(any_result: ScanResult) -> None:
    links = {f"link/{e.stack}/{e.source}/{e.target}": f"{e.source} → {e.target}"
             for e in any_result.edges}  # fmt: skip
    for finding in findings(any_result):
        for item in finding.items:
            assert item.target is not None
            kind, index, *heads = item.target.split("/")
            if kind == "link":
                assert item.text.startswith(f"{links[item.target]}: ")
                continue
            assert str(int(index)) == index
            if kind == "pair":
                assert item.text.startswith(f"{any_result.pairs[int(index)].name}: ")
            else:
                group = any_result.heads[int(index)]
                assert f"layer {group.layer}" in item.text
                assert all(int(head) < group.count for part in heads for head in part.split("-"))


def test_a_notebook_says_each_plainly_and_counts_the_gauge(transformer: ScanResult) -> None:
    text = render_summary(transformer)
    shown, gauge = folded(findings(transformer))
    for finding in shown[:5]:
        assert f"<li>{finding.plain}" in text
    assert f"and {len(shown) - 5} more" in text
    assert f"and {len(gauge)} findings about numbers that depend on the choice of basis" in text


def test_items_and_plain_sentences_are_in_the_json() -> None:
    finding = findings(synthetic.transformer(layers=2, heads=4, rank=8, d=32, planted=False))[0]
    assert Finding.model_validate_json(finding.model_dump_json()) == finding
