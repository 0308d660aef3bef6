"""Writes the laboratory's pages of the documentation from results.json alone.

    python -m flagscope.lab.pages lab-results docs/lab

writes docs/lab/NAME.md for every experiment in lab-results, copies its figures, its table and its
results without the measurements of single cells to docs/lab/NAME/, and updates the table of
verdicts in docs/lab/index.md. With docs/lab in place of lab-results too, it renews the layout of
the existing pages, and measures nothing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from flagscope.errors import CorruptFileError, InputError
from flagscope.lab.page_layout import BEGIN, END, page_text, renewed_index
from flagscope.lab.results import SCHEMA
from flagscope.writing import write_whole

__all__ = ["BEGIN", "END", "page_text", "renewed_index", "write_pages"]

# Tables of more bytes are compressed, and left out if they are still larger: then only a run of the
# experiment gives the table.
_LARGEST_TABLE = 500_000


def write_pages(results: str | Path, docs: str | Path) -> list[Path]:
    """Write a page for every experiment in a folder of results.

    Parameters
    ----------
    results
        A folder written by `run_lab`, or that of the pages.
    docs
        The folder of the pages. If it holds an index.md with the two markers, the tables of
        verdicts between them are updated; experiments not in `results` keep their rows.

    Returns
    -------
    list of Path
        The pages.

    Raises
    ------
    InputError
        If a folder has no results, or results have failed cells.
    """
    results, docs = Path(results), Path(docs)
    contents = [_read(path) for path in sorted(results.glob("*/results.json"))]
    if not contents:
        raise InputError(f"{results} holds no results", hint="run `flagscope lab` first")
    pages = []
    for content in contents:
        source, target = results / content["name"], docs / content["name"]
        if source.resolve() != target.resolve():
            _copy_files(content, source, target)
        page = docs / f"{content['name']}.md"
        text = page_text(content, table=_table_of(target))
        write_whole(page, text)
        pages.append(page)
    index = docs / "index.md"
    if index.is_file():
        text = index.read_text(encoding="utf-8")
        write_whole(index, renewed_index(text, contents))
    return pages


def _copy_files(content: Mapping[str, Any], source: Path, target: Path) -> None:
    """Copy figures, table and results next to the page."""
    target.mkdir(parents=True, exist_ok=True)
    for figure in content["figures"]:
        write_whole(target / f"{figure}.png", (source / f"{figure}.png").read_bytes())
    _copy_table(source / "table.csv", target)
    # Measurements of cells are in the table.
    cells = [{"name": cell["name"], "settings": cell["settings"]} for cell in content["cells"]]
    text = json.dumps({**content, "cells": cells}, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(target / "results.json", text + "\n")


def _copy_table(table: Path, target: Path) -> None:
    """Copy the table next to the page: compressed if large, not at all if too large."""
    for old in target.glob("table.csv*"):
        old.unlink()
    raw = table.read_bytes()
    if len(raw) <= _LARGEST_TABLE:
        write_whole(target / "table.csv", raw)
        return
    # No time in the file, so that the same table gives the same bytes.
    packed = gzip.compress(raw, mtime=0)
    if len(packed) <= _LARGEST_TABLE:
        write_whole(target / "table.csv.gz", packed)


def _table_of(folder: Path) -> str | None:
    """Name of the table next to a page; None if it was too large."""
    return next((path.name for path in sorted(folder.glob("table.csv*"))), None)


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


@click.command()
@click.argument("results", type=click.Path(exists=True, file_okay=False))
@click.argument("docs", type=click.Path(exists=True, file_okay=False))
def _main(results: str, docs: str) -> None:
    """Write the pages of the experiments found in RESULTS to the folder DOCS."""
    for page in write_pages(results, docs):
        click.echo(page)


if __name__ == "__main__":
    _main()
