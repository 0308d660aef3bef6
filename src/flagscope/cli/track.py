"""`flagscope track`: a series of checkpoints of one training."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.bar import progress_bar
from flagscope.cli.collection import collection_paused
from flagscope.cli.gate import series_codes, series_gate
from flagscope.cli.interrupt import interruptible
from flagscope.cli.options import KINDS, memory_option, pair_kinds, workers_option
from flagscope.cli.outputs import check_outputs, paths_option, write_outputs

if TYPE_CHECKING:
    from flagscope.api.series_report import SeriesReport
    from flagscope.cli.console import Output
    from flagscope.records.series import SeriesRecord

_STEPS = 40  # rows of steps on a terminal: the first and the last of more


def _codes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    return series_codes(value)


def _rate(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | dict[int, float] | None:
    """A number, or pairs STEP:RATE with commas between them."""
    if value is None:
        return None
    try:
        if ":" not in value:
            return float(value)
        logged = [part.split(":") for part in value.split(",")]
        return {int(step): float(rate) for step, rate in logged}
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor STEP:RATE,…") from None


@click.command("track")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCES...")
@click.option(
    "--verify",
    is_flag=True,
    help="Look at integrity alone: headers and samples of less than 1 % of the bytes.",
)
@click.option("--json", "json_", metavar="F", help="Write everything as JSON; - for stdout.")
@click.option("--csv", metavar="F", help="Write a table as CSV; - for stdout.")
@click.option(
    "--csv-table",
    type=click.Choice(["steps", "curves", "rates"]),
    default="steps",
    show_default=True,
    help="Table that --csv writes.",
)
@paths_option
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option(
    "--kinds",
    metavar="KINDS",
    callback=pair_kinds,
    help=f"Kinds of pairs to measure, of {', '.join(KINDS)}; all by default.",
)
@click.option("--family", metavar="NAME|FILE.toml|none", help="Model family of all steps.")
@click.option("--config", metavar="F", help="Path or URL of the config.json of all steps.")
@click.option("--heads", metavar="N", type=click.IntRange(1), help="Number of attention heads.")
@click.option(
    "--learning-rate",
    metavar="RATE|STEP:RATE,…",
    callback=_rate,
    help="Learning rate of the training, for rates: one number, or those logged at some steps. By "
    "default the schedule is read from what lies next to the checkpoints.",
)
@click.option(
    "--weight-decay", metavar="NUMBER", type=click.FloatRange(0), help="Its weight decay."
)
@click.option(
    "--optimiser", "--optimizer", type=click.Choice(["sgd", "adamw"]), help="Its optimiser."
)
@click.option(
    "--momentum",
    metavar="NUMBER",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Momentum of SGD.",
)
@click.option(
    "--store",
    metavar="DIR",
    help="Folder that keeps what was read and computed of each step: a longer series then costs "
    "its new steps, and a stopped run goes on.",
)
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=0.0,
    help="Wait for steps that are being written, at most so long, and read what is added.",
)
@workers_option
@memory_option("Memory for the tasks, in addition to the program itself.", default="2GB")
@click.option(
    "--fail-on",
    metavar="CODES",
    callback=_codes,
    help="Exit with 4 if there is a fault of one of these codes, separated by commas: equal, "
    "truncated, wrong-order, … (`code` of each fault in the JSON), or any.",
)
def track_command(
    sources: tuple[str, ...],
    json_: str | None,
    csv: str | None,
    csv_table: str,
    paths: bool,
    quiet: bool,
    fail_on: tuple[str, ...],
    **options: Any,
) -> int:
    """Read a series of checkpoints of one training: what is wrong with it, and its curves.

    SOURCES are a folder of checkpoints (checkpoint-500, step_500.safetensors), patterns, hub names
    with a pattern of revisions (org/name@step*), or single checkpoints. They are read in the order
    of the numbers in their names.
    """
    outputs = {"json": json_, "csv": csv}
    check_outputs(outputs, *sources)

    with progress_bar(quiet=quiet) as step:

        def tracked() -> SeriesReport:
            with collection_paused():
                from flagscope.api.track import track

            return track(list(sources), progress=step, **options)

        report = interruptible(tracked)

    texts = {
        "json": partial(report.to_json, paths=paths),
        "csv": partial(_csv, report, csv_table),
    }
    if not write_outputs(outputs, texts, quiet=quiet) and not quiet:
        from flagscope.cli.console import Output

        _print(Output(), report.result)
    return series_gate(report.faults, fail_on)


def _csv(report: SeriesReport, table: str) -> str:
    from flagscope.report import csv_text

    return csv_text(getattr(report, table))


def _print(out: Output, record: SeriesRecord) -> None:
    from flagscope.report.series import rates_lines, series_headline

    integrity = record.integrity
    out.paragraph(", ".join(record.sources), style="bold")
    out.paragraph(series_headline(record))
    for fault in integrity.faults:
        out.paragraph(f"{fault.code}: {fault.plain}", bullet="• ")
        out.paragraph(fault.evidence, bullet="    ")
    if integrity.samples:
        frozen = f"; {integrity.frozen_total:,} never change" if integrity.frozen_total else ""
        out.paragraph(
            f"compared: {integrity.samples:,} numbers of {integrity.tensors_compared:,} tensors in "
            f"each step{frozen}"
        )
    for line in integrity.not_looked_at:
        out.paragraph(line, bullet="not looked at: ")
    out.print()
    _print_steps(out, record)
    if record.curves:
        out.print()
        _print_curves(out, record)
    if record.rates is not None:
        out.print()
        for place, line in enumerate(rates_lines(record.rates)):
            out.paragraph(line, bullet="" if place == 0 else "  - ")
        for note in record.rates.notes:
            out.paragraph(note, bullet="note: ")
    for note in record.notes:
        out.paragraph(note, bullet="note: ")


def _print_steps(out: Output, record: SeriesRecord) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.wording import measured

    steps = record.steps
    shown = steps if len(steps) <= _STEPS else [*steps[: _STEPS // 2], *steps[-_STEPS // 2 :]]
    rows = [
        (
            step.name,
            step.status,
            step.dtype or "",
            measured(step.distance),
            measured(step.distance_first),
            measured(step.correlation_first),
        )
        for step in shown
    ]
    titles = (("", "left"), ("status", "left"), ("type", "left"), ("from the step before", "right"),
              ("from the first", "right"), ("correlation with the first", "right"))  # fmt: skip
    out.table(grid(titles, rows))
    left = len(steps) - len(shown)
    more = f" {left:,} steps between are left out here." if left else ""
    out.paragraph(f"Distances of samples, 1 for each tensor's median step.{more}")


def _print_curves(out: Output, record: SeriesRecord) -> None:
    from flagscope.cli.console import grid
    from flagscope.observables import EXPLANATIONS
    from flagscope.report.series import curve_summaries
    from flagscope.report.wording import measured

    rows = [
        (
            one.kind,
            EXPLANATIONS[one.observable].title
            if one.observable in EXPLANATIONS
            else one.observable,
            f"{one.pairs:,}",
            measured(one.first),
            measured(one.last),
            measured(one.chance),
            one.label or "",
        )
        for one in curve_summaries(record)
    ]
    titles = (("", "left"), ("number", "left"), ("pairs", "right"), ("first step", "right"),
              ("last step", "right"), ("chance", "right"), ("label", "left"))  # fmt: skip
    out.table(grid(titles, rows))
    out.paragraph(
        "Medians over pairs; – where fewer than half have a number. For every pair and step: "
        "--csv F --csv-table curves."
    )
