"""What a series of checkpoints prints: its faults, steps, curves and what they show together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flagscope.cli.motion_text import print_motion

if TYPE_CHECKING:
    from flagscope.cli.console import Output
    from flagscope.records.series import SeriesRecord
    from flagscope.records.series_rates import SeriesRates
    from flagscope.records.series_runs import RunsRecord
    from flagscope.report.series import CurveSummary

_STEPS = 40  # rows of steps on a terminal: the first and the last of more


def print_series(record: SeriesRecord) -> None:
    """Print what is wrong with a series, its steps and its curves."""
    from flagscope.cli.console import Output
    from flagscope.cli.track_adapters import print_adapters
    from flagscope.report.series import change_points_in_words, series_headline

    out = Output()
    integrity = record.integrity
    out.paragraph(", ".join(record.sources), style="bold")
    out.paragraph(series_headline(record))
    for fault in integrity.faults:
        out.paragraph(f"{fault.code}: {fault.plain}", bullet="• ")
        out.paragraph(fault.evidence, bullet="    ")
    if integrity.samples:
        frozen = (
            f"; no sample of {integrity.frozen_total:,} changes" if integrity.frozen_total else ""
        )
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
    if record.adapters:
        out.print()
        print_adapters(out, record)
    if record.motion:
        out.print()
        print_motion(out, record)
    for rates in record.rates:
        if rates.rates:
            out.print()
            _print_rates(out, rates)
    for note in record.notes:
        out.paragraph(note, bullet="note: ")


def _print_rates(out: Output, rates: SeriesRates) -> None:
    from flagscope.report.series import rates_lines

    for place, line in enumerate(rates_lines(rates)):
        out.paragraph(line, bullet="" if place == 0 else "  - ")
    # Without a schedule there is one answer for all pairs, and nothing else to say of them.
    if any(one.answer != "unknown-schedule" for one in rates.rates):
        for note in rates.notes:
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


def _interval(low: float | None, high: float | None) -> str:
    from flagscope.report.wording import MISSING, number, span

    if low is None or high is None:
        return MISSING
    return number(low) if low == high else span((low, high), 2)


def _print_curves(out: Output, record: SeriesRecord) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.series import curve_summaries, dead_lines

    summaries = curve_summaries(record)
    pairs = [one for one in summaries if one.part == "pairs"]
    others = [one for one in summaries if one.part != "pairs"]
    if pairs:
        out.table(grid(_titles("pairs"), [_row(one, one.kind) for one in pairs]))
        out.paragraph(
            "Medians over pairs; – where fewer than half have a number; chance is the range of "
            "95 % of values of one pair at the last step. For every pair and step: "
            "--csv F --csv-table curves."
        )
    if others:
        out.print()
        out.table(grid(_titles("of"), [_row(one, _of(one)) for one in others]))
        out.paragraph(
            "Heads: medians over layers. – under chance: no random model says it. For every layer, "
            "and blocks with dead neurons or heads: --csv F --csv-table curves."
        )
        for line in dead_lines(record):
            out.paragraph(line, bullet="dead: ")


def _titles(count: str) -> tuple[tuple[str, str], ...]:
    return (
        ("", "left"), ("number", "left"), (count, "right"), ("first step", "right"),
        ("last step", "right"), ("chance then", "right"), ("label", "left"),
    )  # fmt: skip


def _row(one: CurveSummary, name: str) -> tuple[str, ...]:
    from flagscope.observables import SERIES_EXPLANATIONS
    from flagscope.report.series import value_in_words

    words = SERIES_EXPLANATIONS.get(one.observable)
    return (
        name,
        words.title if words else one.observable,
        f"{one.pairs:,}" if one.part == "pairs" else _count(one),
        value_in_words(one, one.first),
        value_in_words(one, one.last),
        _interval(one.low, one.high),
        one.label or "",
    )


def _of(one: CurveSummary) -> str:
    from flagscope.report.wording import CURVE_WORDS

    return CURVE_WORDS[one.kind].lower()


def _count(one: CurveSummary) -> str:
    from flagscope.report.wording import counted

    return counted(one.pairs, "layer") if one.part == "heads" else ""


def _print_runs(out: Output, record: RunsRecord) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.series import relations_in_words
    from flagscope.report.series.runs import START_WORDS
    from flagscope.report.wording import measured

    rows = [
        (
            run.name,
            f"{run.steps:,}",
            f"{run.faults:,}",
            START_WORDS[run.start_answer].format(run.start_of),
            measured(run.path_length),
            measured(run.displacement),
        )
        for run in record.runs
    ]
    titles = (("", "left"), ("steps", "right"), ("faults", "right"), ("descends from its start",
              "left"), ("length of the way", "right"), ("first to last", "right"))  # fmt: skip
    out.table(grid(titles, rows))
    out.paragraph(
        f"Steps in all runs: {len(record.common):,}. Distances of samples, 1 for each tensor's "
        "median step in its run. For every step: --csv F."
    )
    for line in relations_in_words(record):
        out.paragraph(line, bullet="• ")


def _print_onsets(out: Output, record: SeriesRecord) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.series import later_in_words, onset_summaries
    from flagscope.report.series.onsets import WORDS
    from flagscope.report.wording import CURVE_WORDS

    rows = [
        (
            one.kind if one.of != "near_copies" else CURVE_WORDS[one.kind].lower(),
            WORDS[one.of],
            f"{one.pairs:,}",
            f"{one.from_the_first:,}",
            later_in_words(one),
            f"{one.not_at_last:,}"
            if not one.open
            else f"{one.not_at_last:,}; open in {one.open:,}",
        )
        for one in onset_summaries(record)
        if one.pairs
    ]
    titles = (
        ("", "left"), ("reached, and kept until the end", "left"), ("pairs", "right"),
        ("from the first step", "right"), ("later", "left"), ("not at the last", "right"),
    )  # fmt: skip
    out.table(grid(titles, rows))
    heads = any(one.of == "near_copies" for one in record.onsets)
    two = ", or two heads; of heads, those that are near-copies at some step" if heads else ""
    out.paragraph(
        "It was reached between the step before and the one named; what lies between is not known. "
        f"At most one {'run' if record.runs else 'series'} in 20 has a pair that is said to stand "
        f"beyond chance where it does not{two}. For every pair: --csv F --csv-table onsets."
    )
