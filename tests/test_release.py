"""What a release states of itself agrees in all places."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [PROJECT["version"]]
    assert metadata("flagscope")["Version"] == PROJECT["version"]


def test_extra_all_has_every_extra_of_users():
    (joined,) = EXTRAS["all"]
    named = set(joined.removeprefix("flagscope[").removesuffix("]").split(","))
    # s3 is part of remote; the others are for those who work on flagscope.
    assert named == set(EXTRAS) - {"all", "s3", "test", "dev", "docs"}
    assert set(EXTRAS["s3"]) <= set(EXTRAS["remote"])


def test_every_extra_that_the_code_names_exists():
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "src/flagscope").rglob("*.py")
    )
    named = set(re.findall(r"flagscope\[(\w+)\]", code))
    assert {"gguf", "onnx", "dask"} <= named
    assert named <= set(EXTRAS)


def test_changelog_has_a_part_for_what_is_not_released():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.count("## Unreleased\n") == 1
