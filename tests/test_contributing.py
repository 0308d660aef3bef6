"""What the pages for contributors show is carried out on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flagscope

PAGES = Path(__file__).parent.parent / "docs/contributing"
PACKAGE = Path(flagscope.__file__).parent

_SHOWN = """
import flagscope
from pathlib import Path
demo = Path(flagscope.__file__).parent / "demo"
source, config = demo / "step-010000.safetensors", demo / "config.json"
report = flagscope.scan(source, config=config, only="pairs", device="cpu")
assert all(0 <= pair.gram_cosine <= 1 for pair in report.result.pairs)
assert report.result.labels["gl"]["gram_cosine"] == "gauge"
assert report.pairs_all["gram_cosine"].notna().all()
assert "How alike are the two Grams" in report.to_html()
"""


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def changed_files(diff: str) -> list[str]:
    return re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    unwanted = shutil.ignore_patterns("__pycache__", "lab")
    shutil.copytree(PACKAGE, tmp_path / "src/flagscope", ignore=unwanted)
    return tmp_path


def apply(diff: str, folder: Path) -> None:
    # Not the repository's own index, wherever the copy lies.
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(
        ["git", "apply", "-"], input=diff, cwd=folder, env=alone, text=True, capture_output=True
    )
    assert not done.returncode, done.stderr


def run(arguments: list[str], folder: Path) -> None:
    paths = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=paths, text=True, capture_output=True
    )
    assert not done.returncode, done.stdout + done.stderr


def test_a_diagnostic_is_four_files_and_shown_everywhere(copy: Path) -> None:
    (diff,) = blocks("diagnostic.md", "diff")
    assert len(changed_files(diff)) <= 4
    apply(diff, copy)
    run(["-m", "flagscope.schema", "--write"], copy)
    run(["-c", _SHOWN], copy)


def test_a_reader_is_two_files_and_its_attacks(copy: Path) -> None:
    reader, tests = blocks("reader.md", "python")
    (diff,) = blocks("reader.md", "diff")
    assert changed_files(diff) == ["src/flagscope/checkpoint/formats.py"]
    apply(diff, copy)
    (copy / "src/flagscope/checkpoint/flat.py").write_text(reader, encoding="utf-8")
    (copy / "test_flat.py").write_text(tests, encoding="utf-8")
    run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_flat.py"], copy)
