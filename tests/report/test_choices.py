"""What was not asked for is not missing: scans with --only, --layers, --kinds give no warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import flagscope
from engine.models import decoder
from flagscope.api.report import Report
from flagscope.report.payload import core


def scanned(**choice: Any) -> Report:
    state, config = decoder()
    return flagscope.scan(state, config=config, workers=1, **choice)


@pytest.mark.parametrize(
    "choice",
    [{"only": ("heads",)}, {"only": ("pairs",)}, {"only": ("residual",)}, {"layers": (0,)},
     {"kinds": ("mlp",)}, {"kinds": ("conv",)}, {"window": 0}, {"edges": 0}, {"edges": 2}],
    ids=str,
)  # fmt: skip
def test_a_choice_gives_no_warning(choice: dict[str, Any], tmp_path: Path) -> None:
    report = scanned(**choice)
    assert not [finding for finding in report.findings if finding.severity == "warning"]
    # Nor does a file of a release that wrote no coverage.
    document = json.loads(report.to_json(tmp_path / "scan.json"))
    document["coverage"] = None
    if "pairs" not in document["settings"]["only"]:
        document["unmapped"] = ["lm_head.weight", "embed_tokens.weight"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = Report.from_json(tmp_path / "old.json")
    assert not [finding for finding in old.findings if finding.severity == "warning"]


@pytest.mark.parametrize("choice", [{"only": ("heads",)}, {"kinds": ("qk",)}], ids=str)
def test_what_was_asked_for_and_is_not_there_is_said(choice: dict[str, Any]) -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    (finding,) = flagscope.scan(net, workers=1, **choice).findings
    assert finding.code == "nothing"
    assert finding.text.startswith("No pair, head or link of what was asked for (--only, --layers")


def test_links_of_which_none_is_beyond_chance_have_no_lower_bound() -> None:
    report = scanned(edges=2)
    assert report.result.edge_tests > len(report.result.edges) == 2
    quiet = {"p_adjusted": 1.0, "p_familywise": 1.0, "composition_p_adjusted": 1.0}
    edges = [edge.model_copy(update=quiet) for edge in report.result.edges]
    result = report.result.model_copy(update={"edges": edges})
    row = flagscope.report.summary_table(result).rows[-1]
    assert row[3] == "none of 2 kept"
    remarks = [graph["remark"] for graph in core(result)["links"]]
    assert remarks == [
        f"No link is drawn: none is beyond chance by {measure}, of the 2 kept of "
        f"{result.edge_tests} tested, those furthest from chance."
        for measure in ("overlap", "composition")
    ]
    for page in (Report(result).to_html(), Report(result)._repr_html_()):
        assert "0+ of" not in page
        assert "at least 0 of" not in page
