"""`flagscope scan` and `flagscope demo`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.options import model_options

if TYPE_CHECKING:
    from flagscope.api import Report

_OUTPUT_OPTIONS = (
    click.option("--json", "json_", metavar="F", help="Write the JSON of the scan; - for stdout."),
    click.option("--html", metavar="F", help="Write the page; - for stdout."),
    click.option("--csv", metavar="F", help="Write the table of pairs; - for stdout."),
    click.option("--quiet", is_flag=True, help="No progress, no table."),
)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the results go."""
    for option in reversed(_OUTPUT_OPTIONS):
        command = option(command)
    return command


@click.command("scan")
@click.argument("source")
@output_options
@model_options
@click.option(
    "--rank",
    default="participation",
    show_default=True,
    help="Dimension of dominant spaces: participation, numerical, energy:0.9, fixed:8.",
)
@click.option("--fdr", default=0.05, show_default=True, help="False-discovery rate of findings.")
@click.option(
    "--fold-norms",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Fold the gains of norms into the maps beside them.",
)
@click.option(
    "--precision",
    type=click.Choice(["float64", "float32"]),
    default="float64",
    show_default=True,
    help="Arithmetic of the mathematics.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, …")
@click.option("--workers", type=click.IntRange(1), help="Tasks at once; by default up to four.")
@click.option("--seed", default=0, show_default=True, help="Of the few random draws.")
def scan_command(
    source: str, json_: str | None, html: str | None, csv: str | None, quiet: bool, **options: Any
) -> int:
    """Diagnose a checkpoint: a file, a folder or a hub name.

    Reads weights only, never data, and never runs the model. Prints a table; --html writes a page
    with every number, its null model and what it means.
    """
    outputs = {"json": json_, "html": html, "csv": csv}
    _check_outputs(outputs)
    return _deliver(_scan(source, quiet, **options), outputs, quiet)


@click.command("demo")
@output_options
def demo_command(json_: str | None, html: str | None, csv: str | None, quiet: bool) -> int:
    """Scan the small language model that ships with flagscope."""
    from flagscope.demo import final

    outputs = {"json": json_, "html": html, "csv": csv}
    _check_outputs(outputs)
    return _deliver(_scan(str(final()), quiet), outputs, quiet)


def _check_outputs(outputs: dict[str, str | None]) -> None:
    """Refuse what could not be written before the work is done."""
    if sum(target == "-" for target in outputs.values()) > 1:
        raise click.UsageError("only one of --json, --html and --csv can go to stdout")
    for kind, target in outputs.items():
        if target not in (None, "-") and not Path(target).absolute().parent.is_dir():
            raise click.UsageError(f"--{kind} {target}: there is no such folder")


def _scan(source: str, quiet: bool, **options: Any) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from flagscope.api import scan

    console = Console(stderr=True)
    if quiet:
        return scan(source, **options)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        work = bar.add_task("reading headers", total=None)

        def step(done: int, total: int, name: str) -> None:
            bar.update(work, completed=done, total=total, description=name)

        return scan(source, progress=step, **options)


def _deliver(report: Report, outputs: dict[str, str | None], quiet: bool) -> int:
    writers = {
        "json": report.to_json,
        "html": report.to_html,
        "csv": lambda: report.pairs.to_csv(index=False),
    }
    to_stdout = False
    for kind, target in outputs.items():
        if target is None:
            continue
        text = writers[kind]()
        if target == "-":
            sys.stdout.write(text)
            to_stdout = True
        else:
            Path(target).write_text(text, encoding="utf-8")
            click.echo(f"wrote {target}", err=True)
    if not quiet and not to_stdout:
        from flagscope.cli.table import print_report

        print_report(report)
    for failure in report.result.failures:
        click.echo(f"failed: {failure.task}: {failure.error}", err=True)
        click.echo(f"hint: {failure.hint}", err=True)
    return 1 if report.result.failures else 0
