"""`flagscope scan` and `flagscope demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.bar import progress_bar
from flagscope.cli.collection import collection_paused
from flagscope.cli.gate import check_looked_at, fail_on_option, gate
from flagscope.cli.interrupt import interruptible
from flagscope.cli.options import device_option, model_options, run_options
from flagscope.cli.outputs import (
    check_outputs,
    check_title,
    output_options,
    texts_of,
    write_outputs,
)
from flagscope.cli.text import log

if TYPE_CHECKING:
    from flagscope.api.report import Report

_EPILOG = (
    "The JSON follows the schema flagscope.scan/2, installed as "
    "flagscope/schema/flagscope.scan-2.json; `python -m flagscope.schema` prints it. The "
    "environment variable FLAGSCOPE_TIMEOUT sets how many seconds to wait for a silent server "
    "(default: 10)."
)


_output_options = output_options(
    json="Write the scan as JSON; - for stdout.",
    tables=("pairs", "heads", "edges"),
    table="Table that --csv writes, with all its columns; edges are the links between heads.",
    quiet="Print errors only, no progress and no table.",
)


@click.command("scan", epilog=_EPILOG)
@click.argument("source")
@_output_options
@model_options
@click.option(
    "--rank",
    metavar="RULE",
    default="signal",
    show_default=True,
    help="Rule for the dimension of the dominant spaces: signal, participation, numerical, "
    "energy:0.9 or fixed:8.",
)
@click.option(
    "--fdr",
    metavar="X",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Error rate of the whole report: false-discovery rate of its counts, family-wise rate of "
    "its findings.",
)
@click.option(
    "--fold-norms",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Norms to fold into the maps next to them. auto folds BatchNorm and the norms of the "
    "residual stream; all also folds pre-norms into the head spaces.",
)
@device_option
@run_options
@click.option(
    "--executor",
    metavar="NAME",
    default="local",
    show_default=True,
    help="Where the tasks run: local, or on the workers of the Dask scheduler at dask:ADDRESS.",
)
@click.option(
    "--store",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Keep the result of each task in DIR. If a scan is killed, the same command resumes it.",
)
@click.option(
    "--seed", metavar="N", default=0, show_default=True, help="Seed of the few random draws."
)
@fail_on_option()
def scan_command(
    source: str,
    json_: str | None,
    html: str | None,
    title: str | None,
    csv: str | None,
    csv_table: str,
    paths: bool,
    quiet: bool,
    fail_on: tuple[str, ...],
    **options: Any,
) -> int:
    """Scan a checkpoint: a file, a folder, a hub name or a URL (s3://, https://, …).

    The scan reads only the weights: it needs no data and does not run the model. It prints the
    health of the weights, the main findings and a table. --html writes a page with every number,
    its null model and its meaning.
    """
    outputs = {"json": json_, "html": html, "csv": csv}
    check_outputs(outputs, source)
    check_title(title, html)
    check_looked_at(fail_on, options["only"])
    report = _scan(source, quiet, **options)
    code = _deliver(report, outputs, quiet, csv_table, paths, title)
    if code and options["store"]:
        log(f"hint: what succeeded is kept in {options['store']}; run again to try the rest alone")
    # A finding that was asked for outranks tasks that failed.
    return (gate(report.findings, fail_on) if fail_on else 0) or code


@click.command("demo")
@_output_options
def demo_command(
    json_: str | None,
    html: str | None,
    title: str | None,
    csv: str | None,
    csv_table: str,
    paths: bool,
    quiet: bool,
) -> int:
    """Scan the small language model that ships with flagscope."""
    from flagscope.demo import final

    outputs = {"json": json_, "html": html, "csv": csv}
    check_outputs(outputs)
    check_title(title, html)
    return _deliver(_scan(str(final()), quiet), outputs, quiet, csv_table, paths, title)


def _scan(source: str, quiet: bool, **options: Any) -> Report:
    with progress_bar(quiet=quiet) as step:

        def scanned() -> Report:
            with collection_paused():
                from flagscope.api.scan import scan

            return scan(source, progress=step, **options)

        return interruptible(scanned)


def _deliver(
    report: Report,
    outputs: dict[str, str | None],
    quiet: bool,
    csv_table: str,
    paths: bool,
    title: str | None,
) -> int:
    # Every column: what a file holds need not fit a screen.
    whole = {"pairs": "pairs_all", "heads": "heads_all"}.get(csv_table, csv_table)
    texts = texts_of(report, table=whole, title=title, paths=paths)
    taken = write_outputs(outputs, texts, quiet=quiet)
    if not quiet and not taken:
        from flagscope.cli.table import print_report

        print_report(report)
        if outputs["html"] is None:
            log("for figures, every number and what it means: add --html report.html")
    for failure in report.result.failures:
        log(f"failed: {failure.task}: {failure.error}")
        log(f"hint: {failure.hint or 'try --only to leave this part out'}")
    return 1 if report.result.failures else 0
