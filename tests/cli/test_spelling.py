"""What a terminal has no letter for is spelt out: bytes that a reader can tell apart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from flagscope.cli.spelling import spelt


def sent(encoding: str, *arguments: object, width: int = 200) -> bytes:
    """What the command writes to a stdout of this encoding."""
    environment = os.environ | {
        "PYTHONIOENCODING": encoding, "LANG": "C", "COLUMNS": str(width), "PYTHONUTF8": "0",
    }  # fmt: skip
    answer = subprocess.run(
        [sys.executable, "-m", "flagscope", *map(str, arguments)],
        env=environment, capture_output=True, check=True,
    )  # fmt: skip
    return answer.stdout


def test_rho_and_nu_differ_in_ascii(mlp: Path) -> None:
    text = sent("ascii", "scan", mlp).decode("ascii")
    assert "rho" in text
    assert "nu" in text
    assert "(chance ~ 1)" in text
    assert "?" not in text
    assert "\\u" not in text


def test_columns_stay_columns(mlp: Path) -> None:
    """Letters are spelt before the table is laid out: every number ends where its heading does."""
    lines = sent("ascii", "scan", mlp).decode("ascii").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Sequential"))
    row, below = lines[at], lines[at - 1]
    ends = [cell.end() for cell in re.finditer(r"\S+(?: \S+)*", row)][-2:]
    assert ends == [below.index("(chance 0)") + 10, below.index("(chance ~ 1)") + 12]


@pytest.mark.parametrize("command", ["scan", "heads"])
def test_nothing_is_lost_in_ascii(minilm: Path, command: str) -> None:
    text = sent("ascii", command, minilm, width=1000).decode("ascii")
    assert "?" not in text.replace("which are near-copies?", "")
    assert "\\x" not in text
    assert "\\u" not in text
    if command == "scan":
        assert "layers 0-5" in text
        assert "rho (chance 0)" in text
    else:
        assert "cos^2" in text


def test_latin_1_keeps_what_it_has(minilm: Path, mlp: Path) -> None:
    assert "cos²" in sent("latin-1", "heads", minilm, "--top", 1).decode("latin-1")
    assert "rho" in sent("latin-1", "scan", mlp).decode("latin-1")  # no ρ there


def test_utf_8_is_left_alone(mlp: Path) -> None:
    assert "ρ" in sent("utf-8", "scan", mlp).decode()


def test_stderr_is_spelt_too(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "flagscope", "scan", str(tmp_path / "ρν.pt")],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "LANG": "C.UTF-8", "PYTHONUTF8": "1"},
        capture_output=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 2
    assert b"rhonu.pt" in answer.stderr


def test_every_greek_letter_has_a_spelling_of_its_own() -> None:
    letters = [chr(i) for i in range(0x3B1, 0x3CA) if unicodedata.category(chr(i)) == "Ll"]
    words = [spelt(letter, "ascii") for letter in letters if letter != "ς"]
    assert len(set(words)) == len(words) == 24
    assert all(word.isalpha() for word in words)


def test_symbols_of_the_reports_are_told_apart() -> None:
    symbols = "ρνσλκμ≤≥≈≠±×√‖∩"
    words = [spelt(symbol, "ascii") for symbol in symbols]
    assert len(set(words)) == len(symbols)
    assert all(word.isascii() and "\\" not in word for word in words)
