"""stdout is data, stderr is log; what cannot be written is refused before the work."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import jsonschema
import pytest

import flagscope
from cli.conftest import Run
from cli.test_wrong_use import complaint
from flagscope.schema import SCHEMA_FILE


def test_json_on_stdout_follows_the_published_schema(run: Run, mlp: Path) -> None:
    answer = run("scan", mlp, "--json", "-")
    assert answer.code == 0
    assert answer.err == ""
    jsonschema.validate(json.loads(answer.out), json.loads(SCHEMA_FILE.read_text("utf-8")))
    assert answer.out.endswith("}\n")


def test_csv_on_stdout_has_a_line_a_pair(run: Run, mlp: Path) -> None:
    answer = run("scan", mlp, "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [row["name"] for row in rows] == ["0-2", "2-4"]
    assert float(rows[0]["commutator_ratio"]) > 0


def test_csv_of_heads_and_of_links(run: Run, mlp: Path) -> None:
    heads = run("scan", mlp, "--csv", "-", "--csv-table", "heads").out.splitlines()
    edges = run("scan", mlp, "--csv", "-", "--csv-table", "edges").out.splitlines()
    assert len(heads) == len(edges) == 1  # the names of the columns: an MLP has neither
    assert {"near_copies_count", "shared_threshold"} <= set(heads[0].split(","))
    pairs = run("scan", mlp, "--csv", "-").out.splitlines()
    assert {"name", "write_tensor", "null_largest_cosine"} <= set(pairs[0].split(","))
    assert edges[0].startswith("from,to,stack,layer_from")
    error, _ = complaint(run("scan", mlp, "--csv", "-", "--csv-table", "links"))
    assert "edges" in error


def test_html_on_stdout(run: Run, mlp: Path) -> None:
    answer = run("scan", mlp, "--html", "-")
    assert answer.out.startswith("<!doctype html>")
    assert answer.out.endswith("</html>\n")


def test_files_beside_the_table(run: Run, mlp: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"ρ.{kind}" for kind in ("json", "html", "csv")}
    answer = run("scan", mlp, *(f"--{kind}={path}" for kind, path in files.items()))
    assert answer.code == 0
    assert "overlap" in answer.out
    assert answer.err.splitlines() == [f"wrote {path}" for path in files.values()]
    assert flagscope.Report.from_json(files["json"]).pairs["name"].tolist() == ["0-2", "2-4"]
    assert files["html"].read_text("utf-8").startswith("<!doctype html>")
    assert files["csv"].read_bytes().count(b"\n") == 3
    assert b"\r" not in files["csv"].read_bytes()


def test_without_a_page_the_log_says_how_to_get_it(run: Run, mlp: Path) -> None:
    assert "--html report.html" in run("scan", mlp).err


def test_quiet_is_silent(run: Run, mlp: Path, tmp_path: Path) -> None:
    answer = run("scan", mlp, "--quiet", "--json", tmp_path / "a.json")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert (tmp_path / "a.json").is_file()


def test_names_from_files_are_shown_and_not_obeyed(run: Run, mlp: Path) -> None:
    folder = mlp.parent / "[bold]x["
    folder.mkdir()
    path = mlp.rename(folder / "]:smile:\n\x1b[31m.safetensors")
    shown = f"{folder}/]:smile:\\n\\x1b[31m.safetensors"
    for command in ("scan", "inspect"):
        assert run(command, path).out.splitlines()[0] == shown
    assert json.loads(run("scan", path, "--json", "-").out)["source"] == path.name
    whole = run("scan", path, "--json", "-", "--paths").out
    assert json.loads(whole)["source"] == str(path)
    assert shown.replace("safetensors", "pt") in run("scan", path.with_suffix(".pt")).err.replace(
        "\\\\", "\\"
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_path_that_is_no_text(run: Run, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.npz", **{f"{i}.weight": np.eye(3) for i in (0, 2)})
    path = (tmp_path / "a.npz").rename(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.npz"))
    answer = run("scan", path, "--json", "-")
    assert answer.code == 0
    assert json.loads(answer.out)["source"].startswith("a?")
    assert run("scan", path).code == 0


def unwritable(folder: Path) -> list[tuple[str, str]]:
    (folder / "file").touch()
    return [
        (str(folder), "is a folder"),
        (str(folder / "no" / "x.json"), "there is no folder"),
        (str(folder / "file" / "x.json"), "there is no folder"),
        (str(folder / ("x" * 300)), "cannot be written"),
        ("", "is a folder"),
    ]


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("kind", ["json", "html", "csv"])
def test_unwritable_files_are_refused_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, case: int
) -> None:
    monkeypatch.setattr("flagscope.cli.scan._scan", None)
    target, said = unwritable(tmp_path)[case]
    for command in (["scan", "some/model"], ["demo"]):
        error, _ = complaint(run(*command, f"--{kind}", target))
        assert said in error
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def test_trying_a_file_neither_leaves_nor_harms_one(run: Run, tmp_path: Path, mlp: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("mine")
    for path in (old, new):
        assert run("scan", tmp_path / "nowhere.pt", "--json", path).code == 2
    assert old.read_text() == "mine"
    assert not new.exists()


@pytest.mark.parametrize("kind", ["json", "html", "csv"])
def test_the_source_is_never_overwritten(run: Run, mlp: Path, kind: str) -> None:
    before = mlp.read_bytes()
    error, _ = complaint(run("scan", mlp, f"--{kind}", mlp.parent / "." / mlp.name))
    assert "overwrite" in error
    assert mlp.read_bytes() == before


def test_a_disk_that_fills_up_meanwhile(
    run: Run, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    earlier = tmp_path / "a.json"
    earlier.write_text("of last week")
    monkeypatch.setattr("flagscope.writing.os.fsync", full)
    error, _ = complaint(run("scan", mlp, "--json", earlier))
    assert "No space left on device" in error
    assert earlier.read_text() == "of last week"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", mlp.name]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_no_file_of_a_folder_that_is_read_is_overwritten(
    run: Run, mlp: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(mlp.read_bytes())
    (folder / "config.json").write_text("{}")
    before = (folder / name).read_bytes()
    answer = run("scan", folder, "--json", folder / name)
    assert answer.code == 2
    assert "would overwrite the source" in answer.err
    assert (folder / name).read_bytes() == before
    assert run("scan", folder, "--json", folder / "scan.json").code == 0
    assert run("scan", folder, "--json", folder / "scan.json").code == 0
