"""`flagscope heads`: all heads of a model against each other, across layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.bar import progress_bar
from flagscope.cli.collection import collection_paused
from flagscope.cli.interrupt import interruptible
from flagscope.cli.options import device_option, memory_option, source_options
from flagscope.cli.outputs import (
    check_outputs,
    check_title,
    output_options,
    texts_of,
    write_outputs,
)
from flagscope.cli.text import log

if TYPE_CHECKING:
    from flagscope.api.head_overlaps import HeadOverlaps
    from flagscope.cli.console import Output
    from flagscope.records import HeadOverlapsRecord

_SPACES = "q,k,v,o"
_SHOWN = 3  # pairs of each space on a terminal that did not ask for more


@click.command("heads")
@click.argument("source")
@output_options(
    json="Write near-copies, means, pairs and heads as JSON; - for stdout.",
    tables=("pairs", "near_copies", "summary"),
    table="Table that --csv writes: the pairs furthest above chance, near-copies, or spaces.",
    quiet="Print errors only, no answer and no table.",
)
@source_options
@click.option(
    "--spaces",
    metavar="S",
    default=_SPACES,
    show_default=True,
    help="Spaces to compare: what the heads read (q, k, v) and what they write (o).",
)
@click.option(
    "--fold-norms",
    type=click.Choice(["all", "none"]),
    default="all",
    show_default=True,
    help="Whether to fold the gains of norms into the maps that read through them.",
)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Number of pairs of heads to list in each space; the terminal shows 3 unless it is given.",
)
@memory_option(
    "Memory for the heads held at once. With less memory, the checkpoint is read more often."
)
@device_option
@click.pass_context
def heads_command(
    context: click.Context,
    source: str,
    json_: str | None,
    html: str | None,
    csv: str | None,
    csv_table: str,
    paths: bool,
    quiet: bool,
    title: str | None,
    spaces: str,
    memory: int,
    **options: Any,
) -> None:
    """Compare all heads of a model with each other, across layers: which are near-copies?

    The first lines are the answer: the near-copies, or that there are none and which heads are
    closest, with what limits that. Then come a table of the spaces and the pairs furthest above
    chance. --html writes a page with a map of each space.
    """
    outputs = {"json": json_, "html": html, "csv": csv}
    check_outputs(outputs, source)
    check_title(title, html)

    with progress_bar(quiet=quiet) as step:

        def compared() -> HeadOverlaps:
            with collection_paused():
                from flagscope.api.head_overlaps import head_overlaps

            chosen: Any = [space.strip() for space in spaces.split(",")]  # checked there
            return head_overlaps(source, spaces=chosen, memory=memory, progress=step, **options)

        found = interruptible(compared)

    texts = texts_of(found, table=csv_table, title=title, paths=paths)
    if not write_outputs(outputs, texts, quiet=quiet) and not quiet:
        chosen = context.get_parameter_source("top") is not click.core.ParameterSource.DEFAULT
        _print(found, shown=None if chosen else _SHOWN)
        if html is None and found.spaces:
            log("for a map of each space: add --html heads.html")


def _print(found: HeadOverlaps, shown: int | None) -> None:
    from flagscope.cli.console import Output
    from flagscope.report.heads import space_name

    out, answer, record = Output(), found.answer, found.record()
    out.paragraph(found.source, style="bold")
    out.paragraph(answer.headline)
    for line in answer.lines:
        out.paragraph(line, bullet="  - ")
    if answer.definition:
        out.paragraph(answer.definition)
    for line in answer.caveats:
        out.paragraph(line, bullet="caution: ")
    if answer.not_meaning:
        out.paragraph(answer.not_meaning)
    for line in answer.not_compared:
        out.paragraph(line, bullet="not looked at: ")
    names = [space_name(record, space) for space in record.spaces]
    if names:
        out.print()
        _print_spaces(out, record, names)
    if any(space.pairs[:shown] for space in record.spaces):
        out.print()
        _print_pairs(out, record, names, shown)
    for note in found.notes:
        out.paragraph(note, bullet="note: ")


def _print_spaces(out: Output, record: HeadOverlapsRecord, names: list[str]) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.wording import measured

    rows = [
        (
            name,
            f"{space.heads_measured:,}",
            f"{space.pairs_tested:,}",
            f"{space.near_copies_total:,}",
            measured(space.overlap_ratio),
            measured(space.z),
            "" if space.status == "ok" else space.status,
        )
        for name, space in zip(names, record.spaces, strict=True)
    ]
    titles = (("", "left"), ("heads", "right"), ("pairs", "right"), ("near-copies", "right"),
              ("overlap (chance 1)", "right"), ("z", "right"), ("status", "left"))  # fmt: skip
    out.table(grid(titles, rows))


def _print_pairs(
    out: Output, record: HeadOverlapsRecord, names: list[str], shown: int | None
) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.heads import basis_words
    from flagscope.report.wording import measured

    out.paragraph(
        "Furthest above chance, which need not be near"
        + ("" if shown is None else f" ({shown} of each space; --top lists more)")
    )
    listed = [
        (name, pair)
        for name, space in zip(names, record.spaces, strict=True)
        for pair in space.pairs[:shown]
    ]
    lines = [
        (name, pair.first, pair.second, measured(pair.mean_squared_cosine),
         measured(pair.overlap_ratio), measured(pair.z), basis_words(pair))
        for name, pair in listed
    ]  # fmt: skip
    columns = (("", "left"), ("", "left"), ("", "left"), ("mean cos²", "right"),
               ("times chance", "right"), ("z", "right"), ("basis", "left"))  # fmt: skip
    if all(pair.common_basis for _, pair in listed):  # the column would say one thing
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    out.table(grid(columns, lines))
