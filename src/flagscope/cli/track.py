"""`flagscope track`: a series of checkpoints of one training, or of several."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.bar import progress_bar
from flagscope.cli.collection import collection_paused
from flagscope.cli.gate import series_codes, series_gate
from flagscope.cli.interrupt import interruptible
from flagscope.cli.options import chosen, memory_option
from flagscope.cli.outputs import check_outputs, paths_option, write_outputs

if TYPE_CHECKING:
    from flagscope.api.series_report import SeriesReport
    from flagscope.cli.console import Output
    from flagscope.records.series import SeriesRecord
    from flagscope.records.series_runs import RunsRecord

_STEPS = 40  # rows of steps on a terminal: the first and the last of more


def _codes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    return series_codes(value)


def _kinds(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    kinds = ("qk", "ov", "mlp", "sequential", "conv", "residual", "latent")
    return None if value is None else chosen(value, kinds)


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
    type=click.Choice(["steps", "curves", "onsets", "change_points", "runs", "relations", "bands"]),
    default="steps",
    show_default=True,
    help="Table that --csv writes.",
)
@paths_option
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option(
    "--kinds",
    metavar="KINDS",
    callback=_kinds,
    help="Kinds of pairs to measure, separated by commas: qk, ov, mlp, sequential, conv, residual, "
    "latent. The default is all.",
)
@click.option("--family", metavar="NAME|FILE.toml|none", help="Model family of all steps.")
@click.option("--config", metavar="F", help="Path or URL of the config.json of all steps.")
@click.option("--heads", metavar="N", type=click.IntRange(1), help="Number of attention heads.")
@click.option(
    "--store",
    metavar="DIR",
    help="Folder that keeps what was read and computed of each step: a longer series then costs "
    "its new steps, and a stopped run goes on.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1),
    help="Number of tasks at once. The default is one per core, at most four.",
)
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
    """Read checkpoints of a training, or of several: what is wrong with them, and their curves.

    SOURCES are a folder of checkpoints (checkpoint-500, step_500.safetensors), patterns, hub names
    with a pattern of revisions (org/name@step*), or single checkpoints. They are read in the order
    of the numbers in their names. Steps of one number in several folders are of several trainings
    (runs/*): each is looked at by itself, and then next to the others.
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
    from flagscope.report.series import change_points_in_words, series_headline

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
    if record.runs is None:
        _print_steps(out, record)
    else:
        _print_runs(out, record.runs)
    if record.curves:
        out.print()
        _print_curves(out, record)
    if record.onsets:
        out.print()
        _print_onsets(out, record)
    for line in (line for one in record.change_points for line in change_points_in_words(one)):
        out.paragraph(line, bullet="jumps: ")
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


def _print_runs(out: Output, record: RunsRecord) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.series import relations_in_words
    from flagscope.report.wording import measured

    answers = {
        "own": "yes",
        "another-run": "no, from {}",
        "unknown": "not known",
        "not-compared": "not compared",
    }
    rows = [
        (
            run.name,
            f"{run.steps:,}",
            f"{run.faults:,}",
            answers[run.start_answer].format(run.start_of),
            measured(run.path_length),
            measured(run.displacement),
        )
        for run in record.runs
    ]
    titles = (("", "left"), ("steps", "right"), ("faults", "right"), ("descends from its start",
              "left"), ("length of the way", "right"), ("first to last", "right"))  # fmt: skip
    out.table(grid(titles, rows))
    out.paragraph(
        f"{len(record.common):,} steps are in all runs. Distances of samples, 1 for each tensor's "
        "median step in its run. For every step: --csv F."
    )
    for line in relations_in_words(record):
        out.paragraph(line, bullet="• ")


def _print_onsets(out: Output, record: SeriesRecord) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.series import later_in_words, onset_summaries
    from flagscope.report.series.onsets import WORDS

    rows = [
        (
            one.kind,
            WORDS[one.of],
            f"{one.pairs:,}",
            f"{one.from_the_first:,}",
            later_in_words(one),
            f"{one.never:,}" if not one.open else f"{one.never:,}; open in {one.open:,}",
        )
        for one in onset_summaries(record)
        if one.pairs
    ]
    titles = (("", "left"), ("reached, and kept until the end", "left"), ("pairs", "right"),
              ("from the first step", "right"), ("later", "left"), ("never", "right"))  # fmt: skip
    out.table(grid(titles, rows))
    out.paragraph(
        "It was reached between the step before and the one named; what lies between is not known. "
        "At most one series in 20 has a pair that is said to stand beyond chance where it does "
        "not. For every pair: --csv F --csv-table onsets."
    )
