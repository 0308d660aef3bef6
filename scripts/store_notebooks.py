"""Runs the notebooks of the docs and stores them with their outputs.

    python scripts/store_notebooks.py [NAME …]

What is stored reads without running: tables, texts and figures without script. The cell that
installs the package is not run, and outputs of cells that are marked as interactive are not kept.
Cells are marked by `"flagscope": "install"` or `"interactive"` in their metadata.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs/notebooks"
_KEPT = ("text/html", "text/plain")


def mark(cell: Any) -> str | None:
    """What a cell is marked as."""
    return cell.metadata.get("flagscope")


def stored(notebook: Any) -> None:
    """Run a notebook in an empty folder and keep what reads without a script, in place."""
    cells = notebook.cells
    notebook.cells = [cell for cell in cells if mark(cell) != "install"]
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    notebook.cells = cells
    count = 0
    for cell in cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code" or mark(cell) == "install":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [] if mark(cell) == "interactive" else _kept(cell.outputs, count)


def _kept(outputs: list[Any], count: int) -> list[Any]:
    kept = []
    for output in outputs:
        if "data" in output:
            output.data = {kind: text for kind, text in output.data.items() if kind in _KEPT}
            output.metadata = {}
            if not "".join(output.data.values()).strip() or output.data.get("text/html") == "":
                continue  # a bar of progress that is gone
        if "execution_count" in output:
            output.execution_count = count
        kept.append(output)
    return kept


def main(names: list[str]) -> None:
    """Run some notebooks, or all."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        notebook = nbformat.read(path, as_version=4)
        stored(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
