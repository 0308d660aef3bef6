"""The laboratory's pages of the documentation, written from results.json alone.

    python -m flagscope.lab.pages lab-results docs/lab

writes docs/lab/NAME.md and the figures in docs/lab/NAME/ for every experiment found in
lab-results, and brings the table of verdicts in docs/lab/index.md up to date.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flagscope.errors import CorruptFileError, InputError
from flagscope.lab.results import SCHEMA

BEGIN, END = "<!-- verdicts: written by flagscope.lab.pages -->", "<!-- end of verdicts -->"
# Tables beyond this many bytes are compressed, and beyond it still left to whoever runs the
# experiment.
_LARGEST_TABLE = 500_000
_WORDS = {
    "confirmed": "Confirmed: the measurement agrees with the prediction.",
    "refuted": "Refuted, in part at least: see which below.",
    "open": "Open: the intervals do not decide.",
}


def write_pages(results: str | Path, docs: str | Path) -> list[Path]:
    """Write a page for every experiment in a folder of results.

    Parameters
    ----------
    results
        A folder that `run_lab` wrote to.
    docs
        The folder of the pages. Where it holds an index.md with the two markers, the table of
        verdicts between them is renewed; experiments not in `results` keep their rows.

    Returns
    -------
    list of Path
        The pages.

    Raises
    ------
    InputError
        A folder without results, or results with failed cells.
    """
    results, docs = Path(results), Path(docs)
    found = [_read(path) for path in sorted(results.glob("*/results.json"))]
    if not found:
        raise InputError(f"{results} holds no results", hint="run `flagscope lab` first")
    pages = []
    for content in found:
        source, target = results / content["name"], docs / content["name"]
        target.mkdir(parents=True, exist_ok=True)
        for figure in content["figures"]:
            shutil.copyfile(source / f"{figure}.png", target / f"{figure}.png")
        table = _copy_table(source / "table.csv", target)
        page = docs / f"{content['name']}.md"
        page.write_text(page_text(content, table=table), encoding="utf-8", newline="\n")
        pages.append(page)
    index = docs / "index.md"
    if index.is_file():
        text = index.read_text(encoding="utf-8")
        index.write_text(renewed_index(text, found), encoding="utf-8", newline="\n")
    return pages


def _copy_table(table: Path, target: Path) -> str | None:
    """Put the table beside the page, compressed if it is large; its name, or None if too large."""
    for old in target.glob("table.csv*"):
        old.unlink()
    raw = table.read_bytes()
    if len(raw) <= _LARGEST_TABLE:
        (target / "table.csv").write_bytes(raw)
        return "table.csv"
    # No time in the file: the same table gives the same bytes.
    packed = gzip.compress(raw, mtime=0)
    if len(packed) > _LARGEST_TABLE:
        return None
    (target / "table.csv.gz").write_bytes(packed)
    return "table.csv.gz"


def page_text(content: Mapping[str, Any], *, table: str | None) -> str:
    """The page of one experiment.

    Parameters
    ----------
    content
        What results.json holds.
    table
        Name of the table that stands beside the page, to be linked, if one does.
    """
    parts = [
        f"# {_text(content['title'])}",
        f"**Claim.** {_text(content['claim'])} ({_text(content['source'])})",
        f"**{_WORDS[content['verdict']]}**",
        _tally(content["findings"]),
        "## Findings",
        *(_finding(finding) for finding in content["findings"]),
        "## Figures",
        *(
            f"![{_text(caption)}]({content['name']}/{name}.png)\n\n*{_text(caption)}*"
            for name, caption in content["figures"].items()
        ),
    ]
    if content["background"]:
        parts += ["## Why", content["background"]]
    parts += ["## How it was measured", _method(content, table=table)]
    return "\n\n".join(parts) + "\n"


def renewed_index(text: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The index with its table of verdicts brought up to date.

    Examples
    --------
    >>> empty = f"# Lab\\n\\n{BEGIN}\\n{END}\\n"
    >>> content = {"name": "toy", "title": "A coin", "verdict": "open", "findings": []}
    >>> "[toy](toy.md)" in renewed_index(empty, [content])
    True
    """
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        return text
    rows = {line.split("](")[0].strip("| ["): line for line in old.splitlines() if "](" in line}
    for content in results:
        verdicts = [finding["verdict"] for finding in content["findings"]]
        counts = [f"{verdicts.count(v)} {v}" for v in _WORDS if v in verdicts]
        rows[content["name"]] = (
            f"| [{content['name']}]({content['name']}.md) | {_cell(content['title'])} | "
            f"{content['verdict']} | {', '.join(counts)} |"
        )
    head = ["| experiment | what | verdict | of its parts |", "|---|---|---|---|"]
    table = "\n".join([*head, *(rows[name] for name in sorted(rows))])
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFileError(f"{path} is not JSON") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise CorruptFileError(f"{path} does not follow the schema {SCHEMA}")
    if content["failures"]:
        raise InputError(
            f"{path} lists failed cells", hint="run the experiment again; good cells are kept"
        )
    return content


def _tally(findings: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| part of the claim | verdict |", "|---|---|"]
    lines += [f"| {_cell(f['claim'])} | {f['verdict']} |" for f in findings]
    return "\n".join(lines)


def _finding(finding: Mapping[str, Any]) -> str:
    predicted = finding["prediction"]
    source = f" ({_text(predicted['source'])})" if predicted["source"] else ""
    lines = [
        f"### {_text(finding['claim'])}",
        "",
        f"**{finding['verdict'].capitalize()}.** Predicted: {_text(predicted['text'])}{source}.",
        "",
    ]
    if finding["estimates"]:
        lines += ["| measured | value | 95 % interval | n |", "|---|---:|---:|---:|"]
        lines += [_estimate(estimate) for estimate in finding["estimates"]]
        lines.append("")
    return "\n".join([*lines, _text(finding["words"])])


def _estimate(e: Mapping[str, Any]) -> str:
    known = e["low"] is not None and e["high"] is not None
    ends = f"{e['low']:.6g} … {e['high']:.6g}" if known else "none"
    return f"| {_cell(e['name'])} | {e['value']:.6g} | {ends} | {e['n']} |"


def _method(content: Mapping[str, Any], *, table: str | None) -> str:
    settings = content["settings"]
    command = ["flagscope lab", content["name"]]
    if settings["seeds"] is not None:
        command.append(f"--seeds {settings['seeds']}")
    if settings["quick"]:
        command.append("--quick")
    if settings["data"] is not None:
        command.append(f"--data {Path(settings['data']).name}")
    run = content["run"]
    where = (
        f"Every number is in [{table}]({content['name']}/{table})."
        if table
        else "The command writes every number to table.csv."
    )
    return (
        f"```sh\n{' '.join(command)}\n```\n\n"
        f"{len(content['cells'])} cells, {run['core_seconds'] / 60:.1f} core-minutes of a budget "
        f"of {run['budget_minutes']:g}, flagscope {content['version']}{_made_with(run)}. "
        f"Prediction and rule of each verdict stand in the code of the experiment. {where}"
    )


def _made_with(run: Mapping[str, Any]) -> str:
    """Results of earlier versions do not say it."""
    return f", Python {run['python']}, PyTorch {run['torch']}" if "python" in run else ""


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in ("\\", "*", "`", "[", "]"):
        text = text.replace(character, f"\\{character}")
    return text.replace("<", "&lt;")


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


@click.command()
@click.argument("results", type=click.Path(exists=True, file_okay=False))
@click.argument("docs", type=click.Path(exists=True, file_okay=False))
def _main(results: str, docs: str) -> None:
    """Write the pages of the experiments found in RESULTS to the folder DOCS."""
    for page in write_pages(results, docs):
        click.echo(page)


if __name__ == "__main__":
    _main()
