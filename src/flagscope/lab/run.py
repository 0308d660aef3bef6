"""Runs experiments: measures cells in worker processes, and resumes from stored cells."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread

from flagscope.errors import FlagscopeError, InputError
from flagscope.lab.data import kind_of_source
from flagscope.lab.experiment import Cell, Experiment, Measured, Options
from flagscope.lab.extra import check_lab_packages
from flagscope.lab.measurement import cell_path, measure_cell, read_cell, write_cell
from flagscope.lab.registry import load_experiment
from flagscope.lab.results import CellFailure, LabResult, conclude_and_write

# Seconds between reads of the fractions that running cells write.
_PATIENCE = 0.5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes
    ----------
    fraction
        Fraction of the work done, by the experiments' budgets.
    cells_done, cells
        Counts of cells.
    finished
        "experiment: cell" of the cell that has just finished, or None.
    """

    fraction: float
    cells_done: int
    cells: int
    finished: str | None = None


@dataclass
class _Job:
    """A cell to measure, and the file for its fraction done."""

    reference: str
    experiment: Experiment
    cell: Cell
    folder: Path
    minutes: float
    note: Path = field(init=False)

    def __post_init__(self) -> None:
        self.note = cell_path(self.folder, self.experiment, self.cell).with_suffix(".part")


@dataclass
class _Sheet:
    """State of one experiment of a run."""

    reference: str
    experiment: Experiment
    options: Options
    folder: Path
    cells: list[Cell]
    measured: dict[str, Measured]
    failures: list[CellFailure]
    reused: int


def run_lab(
    references: Sequence[str],
    options: Options | None = None,
    *,
    out: str | Path,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[LabResult]:
    """Run experiments, and write their files to `out`/NAME.

    Parameters
    ----------
    references
        Names of experiments, or Python files that define one.
    options
        Seeds, quickness and data, for all experiments. With several experiments, `data` applies to
        those that accept data of its kind.
    out
        A folder. Stored cells in it with the same settings and version are reused, so that an
        interrupted run resumes.
    workers
        Processes that measure at once, each with one thread; by default one per core.
    executor
        Any `concurrent.futures.Executor` instead.
    progress
        Called as cells proceed and finish.

    Returns
    -------
    list of LabResult
        In the order of `references`. A refuted claim is a result; failed cells are listed.

    Raises
    ------
    InputError
        If an experiment is unknown or cannot use the data, or the folder cannot be written.
    MissingExtraError
        If scikit-learn or matplotlib is not installed.

    Notes
    -----
    A script that calls this needs the guard ``if __name__ == "__main__":``, since worker
    processes import it.
    """
    options = options or Options()
    check_lab_packages()
    sheets = [_open_sheet(name, options, Path(out), len(references)) for name in references]
    jobs = [job for sheet in sheets for job in _missing(sheet)]
    # Costly cells first, so that no long one is left at the end.
    jobs.sort(key=lambda job: -job.minutes)
    tell = _teller(sheets, jobs, progress)
    by_folder = {sheet.folder: sheet for sheet in sheets}
    results: dict[Path, LabResult] = {}
    for sheet in sheets:
        _finish(sheet, results)
    if jobs:
        with _pool(executor, min(workers or os.cpu_count() or 1, len(jobs))) as pool:
            for job, outcome in _outcomes(jobs, pool, tell):
                sheet = by_folder[job.folder.parent]
                if isinstance(outcome, Measured):
                    write_cell(job.folder, job.experiment, outcome)
                    sheet.measured[job.cell.name] = outcome
                else:
                    sheet.failures.append(_failure(job.cell, outcome))
                _finish(sheet, results)
                tell(job)
    return [results[sheet.folder] for sheet in sheets]


def _open_sheet(reference: str, options: Options, out: Path, together: int) -> _Sheet:
    experiment = load_experiment(reference)
    if options.data is not None and kind_of_source(options.data) != experiment.data_kind:
        if together == 1:
            raise InputError(
                f"{experiment.name} works on {experiment.data_kind}, and {options.data} is "
                f"{kind_of_source(options.data)}",
                hint="leave --data out to use the experiment's own choice",
            )
        options = replace(options, data=None)
    cells = experiment.cells(options)
    _check_names(experiment, cells)
    folder = out / experiment.name
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror or error}",
            hint="give another folder with --out",
        ) from error
    stored = {cell.name: read_cell(folder / "cells", experiment, cell) for cell in cells}
    measured = {name: cell for name, cell in stored.items() if cell is not None}
    return _Sheet(reference, experiment, options, folder, cells, measured, [], len(measured))


def _check_names(experiment: Experiment, cells: Sequence[Cell]) -> None:
    names = [cell.name for cell in cells]
    wrong = [name for name in names if not _NAME.fullmatch(name) or names.count(name) > 1]
    if wrong or not names:
        raise InputError(
            f"{experiment.name} has cells of bad or equal names: {', '.join(wrong) or 'none'}",
            hint="use letters, digits, dots, hyphens and underscores, each name once",
        )


def _missing(sheet: _Sheet) -> list[_Job]:
    total = sum(cell.cost for cell in sheet.cells)
    return [
        _Job(
            sheet.reference,
            sheet.experiment,
            cell,
            sheet.folder / "cells",
            sheet.experiment.budget_minutes * cell.cost / total,
        )
        for cell in sheet.cells
        if cell.name not in sheet.measured
    ]


def _finish(sheet: _Sheet, results: dict[Path, LabResult]) -> None:
    """Conclude an experiment whose cells have all finished."""
    if len(sheet.measured) + len(sheet.failures) < len(sheet.cells):
        return
    results[sheet.folder] = conclude_and_write(
        sheet.experiment,
        sheet.options,
        [sheet.measured[cell.name] for cell in sheet.cells if cell.name in sheet.measured],
        sheet.failures,
        sheet.folder,
        reused=sheet.reused,
    )


def _outcomes(
    jobs: Sequence[_Job], pool: Executor, tell: Callable[[_Job | None], None]
) -> Iterator[tuple[_Job, Measured | Exception]]:
    """Yield each job with its outcome, as jobs finish."""
    running: dict[Future[Measured], _Job] = {}
    for job in jobs:
        running[pool.submit(measure_cell, job.reference, job.cell, str(job.note))] = job
    try:
        while running:
            ended, _ = wait(running, timeout=_PATIENCE, return_when=FIRST_COMPLETED)
            for future in ended:
                job = running.pop(future)
                job.note.unlink(missing_ok=True)
                try:
                    outcome: Measured | Exception = future.result()
                except Exception as error:  # other cells are not affected
                    outcome = error
                yield job, outcome
            tell(None)
    finally:
        for future in running:
            future.cancel()


def _failure(cell: Cell, error: Exception) -> CellFailure:
    if isinstance(error, BrokenExecutor):
        return CellFailure(
            cell.name, "its worker process was killed", "it may lack memory: try --workers 1"
        )
    hint = error.hint if isinstance(error, FlagscopeError) else None
    return CellFailure(cell.name, f"{type(error).__name__}: {error}", hint)


def _teller(
    sheets: Sequence[_Sheet], jobs: Sequence[_Job], progress: Callable[[Progress], None] | None
) -> Callable[[_Job | None], None]:
    """A function that reports progress, to be called with each finished job."""
    total = sum(sheet.experiment.budget_minutes for sheet in sheets)
    pending = {id(job): job for job in jobs}
    cells = sum(len(sheet.cells) for sheet in sheets)

    def tell(ended: _Job | None) -> None:
        if progress is None:
            return
        if ended is not None:
            del pending[id(ended)]
        left = sum(job.minutes * (1 - _noted(job.note)) for job in pending.values())
        name = f"{ended.experiment.name}: {ended.cell.name}" if ended else None
        progress(Progress(1 - left / total if total else 1.0, cells - len(pending), cells, name))

    return tell


def _noted(note: Path) -> float:
    with suppress(OSError, ValueError):
        return min(1.0, max(0.0, float(note.read_text(encoding="ascii"))))
    return 0.0


@contextmanager
def _pool(executor: Executor | None, workers: int) -> Iterator[Executor]:
    if executor is not None:
        yield executor
        return
    # Spawned, not forked: PyTorch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _die_with_parent() -> None:
    """End this worker when its parent process ends, even if that was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()
