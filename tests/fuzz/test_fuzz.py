"""A short form of the fuzz, and what its verdict would find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.child import Ran
from fuzz.seeds import SEEDS
from fuzz.verdict import faults, unforeseen

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="forks, and reads what Linux counts"
)


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: this one has threads, which no fork keeps.
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_three_cases_of_each_format_are_stood() -> None:
    for package in ("onnx", "gguf", "h5py", "msgpack", "transformers"):
        pytest.importorskip(package)
    ran = fuzz("--cases", str(3 * len(SEEDS)), "--seed", "0")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{3 * len(SEEDS)} cases of seed 0, 0 bad" in ran.stdout


def test_a_case_is_made_again_from_its_name(tmp_path: Path) -> None:
    made = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        ran = fuzz("--case", "3:safetensors:7", "--keep", str(folder))
        assert ran.stdout.startswith("case 3:safetensors:7: good")
        source = folder / "3-safetensors-7" / "source"
        made.append({path.name: path.read_bytes() for path in source.iterdir()})
    assert made[0] == made[1]


GOOD = Ran(2, False, b"out\n", b"error: a\nhint: b\n", "", 0.5, 300.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hung": True, "code": -9}, "hangs"),
        ({"code": 3}, "exit code 3"),
        ({"code": -11}, "exit code -11"),
        ({"err": b"Traceback (most\nerror: a\nhint: b\n"}, "a traceback"),
        ({"err": b"x.py:3: RuntimeWarning: y\nerror: a\nhint: b\n"}, "a warning"),
        ({"err": b"error: a\n"}, "no hint"),
        ({"err": b"error: a\nb\nhint: c\n"}, "no hint"),
        ({"code": 1, "err": b""}, "neither"),
        ({"code": 0}, "an error and exit code 0"),
        ({"out": b"\x1b[31m"}, "control character"),
        ({"err": "error: \u202e\nhint: b\n".encode()}, "control character"),
        ({"out": b"\xff"}, "no UTF-8"),
        ({"err": b"error: " + b"a" * 4000 + b"\nhint: b\n"}, "fits no screen"),
        ({"megabytes": 1500.0}, "MB above"),
        ({"deeds": "socket.connect 1\n"}, "socket.connect"),
    ],
)
def test_the_verdict_finds_each_fault(tmp_path: Path, changes: dict, says: str) -> None:
    assert faults(GOOD, tmp_path, baseline=300.0) == []
    found = faults(Ran(**{**vars(GOOD), **changes}), tmp_path, baseline=300.0)
    assert any(says in one for one in found), found


def test_the_verdict_looks_at_what_a_run_leaves(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"a": float("nan")}))
    (tmp_path / "canary").touch()
    found = faults(GOOD, tmp_path, baseline=300.0)
    assert found == ["ran pickled code", "the report is no JSON: NaN"]
    guarded = Ran(2, False, b"", b"error: reading x failed: TypeError: y\nhint: z\n", "", 0.1, 1.0)
    assert unforeseen(guarded)
    assert unforeseen(GOOD) is None


CHILD = """
import os, socket, subprocess, sys
from pathlib import Path
from fuzz.child import run
import flagscope.cli
outside = Path(sys.argv[2]).parent / "outside"
def main(arguments):
    what = arguments[0]
    if what == "write": outside.open("w")
    if what == "remove": outside.exists() or os.remove(outside)
    if what == "connect": socket.socket().connect(("127.0.0.1", 9))
    if what == "start": subprocess.run(["true"])
    if what == "unpickle": __import__("pickle").loads(b"cos\\nsystem\\n.")
    if what == "hang": __import__("time").sleep(60)
    if what == "within": Path("here").write_text("x")
    sys.exit(0)
flagscope.cli.main = main
ran = run([sys.argv[1]], Path(sys.argv[2]), hang=2)
print(ran.code, ran.hung, ran.deeds)
"""


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("write", "open "), ("remove", "os.remove"), ("connect", "socket.connect"),
        ("start", "subprocess.Popen"), ("unpickle", "pickle.find_class"), ("hang", "-9 True"),
        ("within", "0 False \n"), ("nothing", "0 False \n"),
    ],
)  # fmt: skip
def test_a_child_is_watched(tmp_path: Path, what: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, what, str(tmp_path / "folder")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert says in ran.stdout, ran.stderr
