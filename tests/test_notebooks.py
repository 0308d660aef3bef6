"""The notebooks run from the first cell to the last, and show what they say."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import flagscope

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs/notebooks"
NAMES = ("researcher", "engineer", "student", "training")
LARGEST = 300_000  # bytes of a stored notebook
# A first cell that the tests must not run: the package under test is the one at hand.
INSTALL = "install"


def stored(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each notebook has computed at its end, by the names of its variables."""
    return {name: executed(name, tmp_path_factory.mktemp(name)) for name in NAMES}


# What a notebook is asked for once it has run, as JSON.
ASKED = {
    "researcher": {
        "findings": "len(report.findings)",
        "links": "len(links)",
        "rows": "{k: list(v.values()) for k, v in changes.items()}",
        "steps": "training.index.tolist()",
        "first": "training.iloc[0].tolist()",
        "highest": "training.max().tolist()",
    },
    "engineer": {
        "verdicts": "{name: verdict.code for name, verdict in verdicts.items()}",
        "codes": "codes",
        "tuned": "comparison.verdict.code",
    },
    "student": {
        "accuracies": "[accuracy, cnn_accuracy]",
        "before": "before.findings[0].code",
        "codes": "[finding.code for finding in after.findings]",
        "rho": "after.pairs['gram_correlation'].tolist()",
        "chance": "before.pairs['gram_correlation'].tolist()",
    },
    "training": {
        "accuracy": "accuracy",
        "alerts": "[(alert.code, alert.step) for alert in broken.alerts]",
        "healthy": "[alert.code for alert in monitor.alerts]",
        "monitored": "monitor.latest.report.pairs['gram_correlation'].tolist()",
        "tracked": "curves.query('number == 600 and observable == \"gram_correlation\"')"
        "['value'].tolist()",
        "rho": "scalars['pairs/sequential/gram_correlation'].tolist()",
        "faults": "[(fault.code, fault.steps) for fault in mixed.faults]",
        "no_faults": "[fault.code for fault in report.faults]",
        "onsets": "report.onsets['answer'].tolist()",
        "ways": "[way.straightness for way in report.result.motion]",
    },
}


def executed(name: str, folder: Path) -> dict[str, Any]:
    notebook = stored(name)
    notebook.cells = [cell for cell in notebook.cells if mark(cell) != INSTALL]
    asked = ", ".join(f"{key!r}: {code}" for key, code in ASKED[name].items())
    printed = f"import json\nprint(json.dumps({{{asked}}}, default=float))"
    notebook.cells.append(nbformat.v4.new_code_cell(printed))
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(flagscope.__file__).parents[1])}
    client.execute(env=environment)
    text = "".join(output.text for output in notebook.cells[-1].outputs if "text" in output)
    return json.loads(text)


def mark(cell: Any) -> str | None:
    return cell.metadata.get("flagscope")


def test_these_are_all() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_notebook_is_small_and_reads_without_running(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert not re.search(r"/(home|root|tmp|Users|work)/", text)
    notebook = stored(name)
    nbformat.validate(notebook)
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(shown) >= 5
    assert "<svg" in text or name == "engineer"
    kinds = {kind for cell in shown for output in cell.outputs for kind in output.get("data", ())}
    assert kinds <= {"text/html", "text/plain"}  # what reads without a script
    assert not any(output.output_type == "error" for cell in shown for output in cell.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_it_installs_from_pypi_alone_and_opens_in_colab(name: str) -> None:
    notebook = stored(name)
    (install,) = [cell for cell in notebook.cells if mark(cell) == INSTALL]
    assert install is next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert re.fullmatch(r"%pip install -q flagscope( scikit-learn)?", install.source)
    badge = re.search(r"colab\.research\.google\.com/github/([\w-]+)/flagscope/blob/main/(\S+)\)",
                      notebook.cells[0].source)  # fmt: skip
    assert badge is not None
    assert badge[2] == f"docs/notebooks/{name}.ipynb"
    # Once the project says where it is, the badges lead there.
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    if "Repository" in urls:
        assert f"github.com/{badge[1]}/flagscope" in urls["Repository"]


@pytest.mark.slow
def test_the_researcher_sees_what_is_functional_and_what_training_did(values) -> None:
    found = values["researcher"]
    assert found["findings"] > 5
    assert found["links"] > 50
    rows = found["rows"]
    before, after = rows["before"], rows["after"]
    assert abs(before[0] - after[0]) > 0.1  # gauge
    assert before[2:] == pytest.approx(after[2:], rel=1e-4)  # functional
    assert found["steps"] == [0, 80, 400, 2000, 10000]
    assert found["first"] == pytest.approx([1, 1, 1, 1, 0, 0, 0, 0], abs=0.05)
    assert all(value > 1.4 for value in found["highest"][:4])


@pytest.mark.slow
def test_the_engineer_stops_wrong_merges(values) -> None:
    found = values["engineer"]
    assert found["tuned"] == "fine-tuned"
    assert found["verdicts"] == {
        "merged": "adapter-applied",
        "forgotten": "adapter-not-applied",
        "twice": "adapter-applied-twice",
        "partly": "adapter-partly",
    }
    assert found["codes"] == {"merged": 0, "forgotten": 4, "twice": 4, "partly": 4, "broken": 4}


@pytest.mark.slow
def test_the_student_sees_chance_before_and_alignment_after(values) -> None:
    found = values["student"]
    assert min(found["accuracies"]) > 0.8
    assert found["before"] == "nothing"
    assert "overlap-more" in found["codes"]
    assert max(map(abs, found["chance"])) < 0.1
    assert min(found["rho"]) > 0.5


@pytest.mark.slow
def test_who_trains_sees_a_fault_named_and_a_mixed_up_folder(values) -> None:
    found = values["training"]
    assert found["accuracy"] > 0.85
    assert found["healthy"] == found["no_faults"] == []
    assert found["alerts"] == [["dead-neurons", 350]]
    assert abs(found["rho"][0]) < 0.1 < 0.5 < min(found["rho"][1:])
    assert found["monitored"] == found["tracked"]
    assert found["faults"] == [
        ["equal", ["step_200.safetensors", "step_450.safetensors"]],
        ["foreign-initialisation", ["step_0.safetensors"]],
    ]
    assert "between" in found["onsets"]
    assert all(0.5 < straightness < 1 for straightness in found["ways"])
