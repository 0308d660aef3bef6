"""Measures a cell in a worker, and stores its values on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flagscope.errors import InputError
from flagscope.lab.data import source_digest
from flagscope.lab.experiment import Cell, Experiment, Measured
from flagscope.lab.registry import load_experiment
from flagscope.writing import write_whole

# Seconds between writes of the fraction done.
_PATIENCE = 1.0


def measure_cell(reference: str, cell: Cell, note: str | None = None) -> Measured:
    """Measure one cell of the experiment that `reference` names; runs in a worker process.

    Parameters
    ----------
    reference
        Name or file of the experiment, so that only text and JSON are sent to the worker.
    cell
        The cell to measure.
    note
        File to which the fraction done is written, if any.

    Raises
    ------
    InputError
        If the measured values do not survive JSON.
    """
    experiment = load_experiment(reference)
    last = 0.0

    def report(fraction: float) -> None:
        nonlocal last
        if note is not None and time.monotonic() - last >= _PATIENCE:
            last = time.monotonic()
            Path(note).write_text(f"{fraction:.4f}", encoding="ascii")

    # CPU time, not wall time, so that the cost does not depend on other programs.
    start = time.thread_time()
    with _one_thread():
        values = experiment.measure(cell, report)
    return Measured(cell, through_json(values, cell.name), time.thread_time() - start)


def through_json(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Values after a round trip through JSON, so that resumed and fresh runs see the same."""
    try:
        return json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"what was measured in cell {name} cannot be written as JSON: {error}",
            hint="return numbers, strings, lists and dictionaries; None for what is undefined",
        ) from error


def identity(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    """Everything on which a measurement depends: cells of equal identity have equal values."""
    key = {
        "experiment": experiment.name,
        "experiment_version": experiment.version,
        "flagscope": version("flagscope"),
        "cell": cell.name,
        "settings": through_json(cell.settings, cell.name),
    }
    content = source_digest(cell.settings.get("data"))
    return key if content is None else key | {"data_sha256": content}


def cell_path(folder: Path, experiment: Experiment, cell: Cell) -> Path:
    """Path of a stored cell, with a digest of the settings, so that none overwrites another."""
    text = json.dumps(identity(experiment, cell), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return folder / f"{cell.name}-{digest}.json"


def write_cell(folder: Path, experiment: Experiment, measured: Measured) -> Path:
    """Store a measured cell atomically: a kill leaves the whole file or none."""
    path = cell_path(folder, experiment, measured.cell)
    content = identity(experiment, measured.cell) | {
        "seconds": measured.seconds,
        "sha256": _digest(measured.values),
        "values": measured.values,
    }
    write_whole(path, json.dumps(content, allow_nan=False))
    return path


def read_cell(folder: Path, experiment: Experiment, cell: Cell) -> Measured | None:
    """The stored cell, or None if it is missing, damaged or has other settings."""
    try:
        content = json.loads(cell_path(folder, experiment, cell).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    values, seconds, digest = (content.pop(key, None) for key in ("values", "seconds", "sha256"))
    if content != identity(experiment, cell):
        return None
    if not isinstance(values, dict) or not isinstance(seconds, float) or digest != _digest(values):
        return None
    return Measured(cell, values, seconds)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread: cells share the cores, and sums must not depend on threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
