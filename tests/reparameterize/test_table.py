"""The command behind the invariance table finds every label right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flagscope

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]


def test_the_labels_hold_on_trained_networks():
    command = [sys.executable, "scripts/invariance_table.py", "--steps", "20", "--resnet", "none"]
    package = Path(flagscope.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(package)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| `")]
    written = (ROOT / "docs/invariance.md").read_text(encoding="utf-8")
    for line in table:  # the page has the same rows
        assert line.split("|")[1] in written
    # gate → down, seen from the scaling of up: gate itself stays, so only what down reads moves
    cells = {row.split("|")[1].strip(): row.split("|")[-2].strip() for row in table}
    assert (cells["`effective_rank_write`"], cells["`rank_write`"]) == ("0", "0")


def test_a_page_keeps_its_columns(tmp_path):
    command = [sys.executable, "scripts/invariance_table.py", "--resnet", "none"]
    page = tmp_path / "page.md"
    page.write_text("as it was")
    environment = os.environ | {"PYTHONPATH": str(Path(flagscope.__file__).parents[1])}
    done = subprocess.run([*command, "--update", str(page)], cwd=ROOT, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2
    assert "--resnet" in done.stderr
    assert page.read_text() == "as it was"
