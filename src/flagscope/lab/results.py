"""The files of a finished experiment: results.json, table.csv and the figures."""

from __future__ import annotations

import inspect
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flagscope.api.sharing import named_paths, shareable
from flagscope.errors import InputError
from flagscope.lab.experiment import (
    Experiment,
    Finding,
    Measured,
    Options,
    Verdict,
    overall_verdict,
)
from flagscope.lab.figures import save_figure
from flagscope.writing import write_whole

SCHEMA = "flagscope.lab/1"


@dataclass(frozen=True)
class CellFailure:
    """A cell that could not be measured."""

    cell: str
    error: str
    hint: str | None


@dataclass(frozen=True)
class LabResult:
    """Result of one experiment.

    Attributes
    ----------
    name, title
        Name and title of the experiment.
    folder
        Folder of its files.
    findings
        Empty if a cell failed.
    failures
        Cells that could not be measured.
    reused, measured
        Number of cells found on disk, and of cells measured in this run.
    seconds
        Time of all cells together, including cells measured in earlier runs.
    budget_minutes
        Core-minutes that a full run may take.
    """

    name: str
    title: str
    folder: Path
    findings: tuple[Finding, ...]
    failures: tuple[CellFailure, ...]
    reused: int
    measured: int
    seconds: float
    budget_minutes: float

    @property
    def verdict(self) -> Verdict | None:
        """Verdict on the paper's claim; None if no part tests the paper's claims."""
        return overall_verdict(self.findings)


def conclude_and_write(
    experiment: Experiment,
    options: Options,
    measured: Sequence[Measured],
    failures: Sequence[CellFailure],
    folder: Path,
    *,
    reused: int,
) -> LabResult:
    """Conclude with verdicts, and write all files, results.json last.

    If cells failed, there are no verdicts, table or figures.
    """
    findings = () if failures else experiment.conclude(measured)
    if not failures:
        _write_figures(experiment, measured, findings, folder)
        table = experiment.table(measured)
        write_whole(
            folder / "table.csv",
            table.to_csv(index=False, lineterminator="\n", float_format="%.8g"),
        )
    content = results_json(experiment, options, measured, findings, failures)
    write_whole(folder / "results.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return LabResult(
        name=experiment.name,
        title=experiment.title,
        folder=folder,
        findings=tuple(findings),
        failures=tuple(failures),
        reused=reused,
        measured=len(measured) - reused,
        seconds=sum(m.seconds for m in measured),
        budget_minutes=experiment.budget_minutes,
    )


def results_json(
    experiment: Experiment,
    options: Options,
    measured: Sequence[Measured],
    findings: Sequence[Finding],
    failures: Sequence[CellFailure],
) -> dict[str, Any]:
    """The content of results.json; two runs with the same settings differ only in `run`.

    Absolute paths of this machine are shortened, since the file may be published.
    """
    short = shareable(named_paths(options.data))
    return _shortened(
        short,
        {
            "schema": SCHEMA,
            "name": experiment.name,
            "title": experiment.title,
            "claim": experiment.claim,
            "source": experiment.source,
            "background": _background(experiment),
            "version": version("flagscope"),
            "experiment_version": experiment.version,
            "rank_rule": experiment.rank_rule,
            "settings": asdict(options),
            "verdict": overall_verdict(findings),
            "findings": [asdict(finding) for finding in findings],
            "failures": [asdict(failure) for failure in failures],
            "figures": dict(experiment.figures),
            "cells": [
                {"name": m.cell.name, "settings": m.cell.settings, "values": m.values}
                for m in measured
            ],
            "run": {
                "python": platform.python_version(),
                "torch": version("torch"),
                "budget_minutes": experiment.budget_minutes,
                "core_seconds": round(sum(m.seconds for m in measured), 1),
                "seconds_by_cell": {m.cell.name: round(m.seconds, 2) for m in measured},
            },
        },
    )


def _shortened(short: Callable[[str], str], content: dict[str, Any]) -> dict[str, Any]:
    """The content, with shortened paths in settings and failures."""

    def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {k: short(v) if isinstance(v, str) else v for k, v in settings.items()}

    return content | {
        "settings": plain(content["settings"]),
        "failures": [plain(failure) for failure in content["failures"]],
        "cells": [cell | {"settings": plain(cell["settings"])} for cell in content["cells"]],
    }


def _background(experiment: Experiment) -> str:
    """Docstring of the experiment's module, which holds the derivations."""
    module = sys.modules.get(type(experiment).__module__)
    return inspect.cleandoc((module and module.__doc__) or "")


def _write_figures(
    experiment: Experiment, measured: Sequence[Measured], findings: Sequence[Finding], folder: Path
) -> None:
    figures = experiment.draw(measured, findings)
    named = dict(experiment.figures)
    if set(figures) != set(named):
        raise InputError(
            f"{experiment.name} drew {sorted(figures)} and names {sorted(named)}",
            hint="give every figure that draw returns its caption in `figures`",
        )
    for name, figure in figures.items():
        save_figure(figure, folder, name)
