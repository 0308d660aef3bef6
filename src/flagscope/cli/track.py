"""`flagscope track`: a series of checkpoints of one training, or of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.bar import progress_bar
from flagscope.cli.collection import collection_paused
from flagscope.cli.gate import series_codes, series_gate
from flagscope.cli.interrupt import interruptible
from flagscope.cli.options import KINDS, memory_option, only_option, pair_kinds, workers_option
from flagscope.cli.outputs import (
    check_outputs,
    check_title,
    output_options,
    texts_of,
    write_outputs,
)
from flagscope.cli.series_text import print_series

if TYPE_CHECKING:
    from flagscope.api.series_report import SeriesReport


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


def _decay(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | dict[str, float] | None:
    """A number, or pairs NAMES:NUMBER with commas between them."""
    if value is None:
        return None
    try:
        if ":" not in value:
            return float(value)
        named = [part.rsplit(":", 1) for part in value.split(",")]
        return {names: float(number) for names, number in named}
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor NAMES:NUMBER,…") from None


@click.command("track")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCES...")
@click.option(
    "--verify",
    is_flag=True,
    help="Look at integrity alone: headers and samples of less than 1 % of the bytes.",
)
@output_options(
    json="Write everything as JSON; - for stdout.",
    tables=(
        "steps",
        "curves",
        "onsets",
        "change_points",
        "motion",
        "rates",
        "adapters",
        "runs",
        "relations",
        "bands",
    ),
    table="Table that --csv writes.",
    quiet="Print errors only.",
)
@only_option("health,pairs,heads")
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
    "--weight-decay",
    metavar="NUMBER|NAMES:NUMBER,…",
    callback=_decay,
    help="Its weight decay: one number, or one for each pattern of names of tensors, where groups "
    "of parameters have their own.",
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
    "its new steps, and a stopped run resumes.",
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
    html: str | None,
    title: str | None,
    csv: str | None,
    csv_table: str,
    paths: bool,
    quiet: bool,
    fail_on: tuple[str, ...],
    **options: Any,
) -> int:
    """Read checkpoints of a training, or of several: what is wrong with them, and their curves.

    SOURCES are a folder of checkpoints (checkpoint-500, step_500.safetensors), patterns, URLs of
    these (s3://bucket/runs/a), hub names with a pattern of revisions (org/name@step*), or single
    checkpoints. They are read in the order of the numbers in their names. Steps of one number in
    several folders are of several trainings (runs/*): each is looked at by itself, and then next to
    the others.
    """
    outputs = {"json": json_, "html": html, "csv": csv}
    check_outputs(outputs, *sources)
    check_title(title, html)

    with progress_bar(quiet=quiet) as step:

        def tracked() -> SeriesReport:
            with collection_paused():
                from flagscope.api.track import track

            return track(list(sources), progress=step, **options)

        report = interruptible(tracked)

    texts = texts_of(report, table=csv_table, title=title, paths=paths)
    if not write_outputs(outputs, texts, quiet=quiet) and not quiet:
        print_series(report.result)
    return series_gate(report.faults, fail_on)
