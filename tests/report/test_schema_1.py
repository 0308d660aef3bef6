"""A file of the first schema is read: it shows its numbers, and claims nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flagscope.api.report import Report
from flagscope.records import ScanResult
from flagscope.report import render_summary
from report import synthetic

# What the second schema added, by record.
_NEW = {
    "scan": ["tests", "coverage"],
    "pairs": [
        "participation_write", "participation_read", "dominant", "commutator_p_adjusted",
        "commutator_p_familywise", "gram_correlation_p_adjusted", "gram_correlation_p_familywise",
        "p_familywise", "overlap_test", "intersection_status", "cosines_forced",
    ],
    "heads": [
        "log10_p_profile", "p_familywise", "shared_log10_p", "shared_p_adjusted",
        "shared_p_familywise", "cluster_tests",
    ],
    "near_copies": ["p_adjusted", "p_familywise"],
    "edges": ["p_familywise", "composition_p_adjusted", "composition_p_familywise"],
}  # fmt: skip


def _without(record: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _NEW[kind]}


@pytest.fixture
def report(stream: ScanResult, tmp_path: Path) -> Report:
    document = _without(json.loads(stream.model_dump_json(by_alias=True)), "scan")
    document["schema"] = "flagscope.scan/1"
    for kind in ("pairs", "heads", "edges"):
        document[kind] = [_without(record, kind) for record in document[kind]]
    for group in document["heads"]:
        group["near_copies"] = [_without(pair, "near_copies") for pair in group["near_copies"]]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return Report.from_json(path)


def test_it_claims_nothing_and_says_why(report: Report) -> None:
    (finding,) = report.findings
    assert finding.severity == "info"
    assert finding.text == (
        "This file was written with schema flagscope.scan/1, whose p-values were not held at one "
        "error rate: scan again to learn what lies beyond chance."
    )


def test_its_numbers_are_shown_and_what_it_lacks_is_missing(
    report: Report, stream: ScanResult
) -> None:
    old, new = report.pairs_all, Report(stream).pairs_all
    assert list(old.columns) == list(new.columns)
    assert old["overlap_ratio"].tolist() == new["overlap_ratio"].tolist()
    assert old["p_familywise"].isna().all()
    assert not report.edges["beyond_chance_overlap"].any()
    assert len(report.figures["links/overlap"].data) == 0
    page = report.to_html()
    assert "scan again to learn" in page
    assert "scan the model again" in render_summary(report.result)


def test_it_is_written_back_as_what_it_is(report: Report, tmp_path: Path) -> None:
    report.to_json(tmp_path / "again.json")
    assert Report.from_json(tmp_path / "again.json").result == report.result


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    document = json.loads(synthetic.empty().model_dump_json(by_alias=True))
    document["schema"] = "flagscope.scan/3"
    path = tmp_path / "later.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    from flagscope.errors import InputError

    with pytest.raises(InputError, match=r"not a scan of schema flagscope\.scan/2 or /1"):
        Report.from_json(path)


def test_a_file_as_the_first_release_wrote_it() -> None:
    """Of a random GPT-2 of width 8, one record of each kind left in it."""
    path = Path(__file__).with_name("scan-1.json")
    written = json.loads(path.read_text(encoding="utf-8"))
    report = Report.from_json(path)
    assert report.result.schema_ == "flagscope.scan/1"
    assert report.result.tests == {}
    (pair,), (group,), (edge,) = report.result.pairs, report.result.heads, report.result.edges
    old = written["pairs"][0]
    assert (pair.p, pair.log10_p, pair.p_adjusted) == (old["p"], old["log10_p"], old["p_adjusted"])
    assert (pair.overlap_ratio, pair.cosines) == (old["overlap_ratio"], old["cosines"])
    for name in _NEW["pairs"]:
        assert name not in old
        assert getattr(pair, name) is None
    assert pair.balanced is not None
    assert pair.balanced.effective_rank == old["balanced"]["effective_rank"]
    assert group.clusters == written["heads"][0]["clusters"]
    assert (group.p, group.cluster_tests, group.p_familywise) == (
        written["heads"][0]["p"], [], None,
    )  # fmt: skip
    assert (edge.source, edge.p_familywise) == (written["edges"][0]["from"], None)
    assert edge.composition_log10_p == written["edges"][0]["composition_log10_p"]
    assert [finding.severity for finding in report.findings] == ["info"]
    assert "scan the model again" in render_summary(report.result)
