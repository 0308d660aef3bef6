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
