"""`flagscope lab`: the experiments that test the theory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from flagscope.cli.interrupt import interruptible
from flagscope.cli.text import log

if TYPE_CHECKING:
    from flagscope.cli.console import Output
    from flagscope.lab import Finding, LabResult
    from flagscope.lab.run import Progress

_EPILOG = (
    "Every run writes results.json, table.csv and figures to DIR/NAME (see --out). If an earlier "
    "run was interrupted, a new run resumes it. A refuted claim is a result, not an error: the "
    "exit code is 0."
)


@click.command("lab", epilog=_EPILOG)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--list", "listing", is_flag=True, help="List the experiments.")
@click.option("--all", "everything", is_flag=True, help="Run all experiments.")
@click.option(
    "--seeds", metavar="N", type=click.IntRange(1), help="Number of seeds for each experiment."
)
@click.option(
    "--out",
    metavar="DIR",
    help="Folder for the results.  [default: lab-results; with --quick, lab-results-quick]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Run a small version of each experiment: less than half a minute on one core.",
)
@click.option(
    "--data",
    metavar="SOURCE",
    help="Data to train on: digits, FILE.npz in the format of MNIST's, a folder of idx files, "
    "FILE.txt, or pydoc.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1),
    help="Number of processes. The default is one per core.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def lab_command(
    names: tuple[str, ...],
    listing: bool,
    everything: bool,
    seeds: int | None,
    out: str | None,
    quick: bool,
    data: str | None,
    workers: int | None,
    quiet: bool,
) -> int:
    """Test a claim of the theory by experiment.

    NAME is an experiment listed by `flagscope lab --list`, or a Python file that defines one.
    """
    from flagscope.lab import Options, experiment_names, run_lab

    if listing:
        _print_list()
        return 0
    if everything == bool(names):
        raise click.UsageError("give the name of an experiment, --all or --list")
    chosen = experiment_names() if everything else tuple(dict.fromkeys(names))
    out = out or ("lab-results-quick" if quick else "lab-results")
    with _shown(quiet) as progress:
        results = interruptible(
            lambda: run_lab(
                chosen,
                Options(seeds=seeds, quick=quick, data=data),
                out=out,
                workers=workers,
                progress=progress,
            )
        )
    _print_results(results, quiet)
    return 1 if any(result.failures for result in results) else 0


def _print_list() -> None:
    from flagscope.cli.console import Output, grid
    from flagscope.lab import experiment_names, load_experiment

    known = [load_experiment(name) for name in experiment_names()]
    rows = [(e.name, f"{e.budget_minutes:g} min", e.data_kind, e.title) for e in known]
    columns = [
        ("experiment", "left"),
        ("cost", "right"),
        ("data", "left"),
        ("what", "left"),
    ]
    Output().table(grid(columns, rows))
    total = sum(e.budget_minutes for e in known)
    log(f"all together {total:g} core-minutes; --quick takes less than half a minute of each")


@contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on a terminal, a line for every cell elsewhere, nothing if quiet."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield None
        return
    if not console.is_terminal:
        yield _log_progress
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        work = bar.add_task("", total=1.0)

        def show(now: Progress) -> None:
            cells = f"{now.cells_done} of {now.cells} cells"
            bar.update(work, completed=now.fraction, description=cells)

        yield show


def _log_progress(now: Progress) -> None:
    if now.finished:
        log(f"{now.finished} ({now.cells_done} of {now.cells} cells, {now.fraction:.0%})")


def _print_results(results: Sequence[LabResult], quiet: bool) -> None:
    from flagscope.cli.console import Output

    out = Output()
    for result in results:
        out.paragraph(f"{result.name}: {result.title}", style="bold")
        for finding in result.findings:
            _print_finding(finding, out)
        for failure in result.failures:
            log(f"failed: {result.name}: {failure.cell}: {failure.error}")
            if failure.hint:
                log(f"hint: {failure.hint}")
        if not quiet:
            known = f", {result.reused} found on disk" if result.reused else ""
            log(
                f"{result.measured} cells measured{known}, {result.seconds:.0f} core-seconds "
                f"(a full run may take {result.budget_minutes:g} core-minutes); "
                f"wrote {result.folder}"
            )


def _print_finding(finding: Finding, out: Output) -> None:
    from flagscope.lab.digits import interval_text

    further = " (beyond the paper)" if finding.beyond else ""
    out.paragraph(f"{finding.verdict}{further}: {finding.claim}", bullet="• ")
    out.paragraph(f"predicted: {finding.prediction.text}", bullet="    ")
    for e in finding.estimates:
        numbers = interval_text(e.value, e.low, e.high)
        out.paragraph(f"{e.name}: {numbers} (n = {e.n})", bullet="    ")
    out.paragraph(finding.words, bullet="    ")
