"""`flagscope heads`: all heads of a model against each other, across layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.collection import collection_paused
from flagscope.cli.interrupt import interruptible
from flagscope.cli.options import device_option, memory_option, source_options
from flagscope.cli.outputs import check_outputs, paths_option, write_outputs

if TYPE_CHECKING:
    from flagscope.api.head_overlaps import HeadOverlaps

_SPACES = "q,k,v,o"


@click.command("heads")
@click.argument("source")
@click.option(
    "--json", "json_", metavar="F", help="Write means, pairs and heads as JSON; - for stdout."
)
@click.option("--csv", metavar="F", help="Write the listed pairs as CSV; - for stdout.")
@paths_option
@click.option("--quiet", is_flag=True, help="Print errors only, no table.")
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
    help="Number of pairs of heads to list in each space.",
)
@memory_option(
    "Memory for the heads held at once. With less memory, the checkpoint is read more often."
)
@device_option
def heads_command(
    source: str,
    json_: str | None,
    csv: str | None,
    paths: bool,
    quiet: bool,
    spaces: str,
    memory: int,
    **options: Any,
) -> None:
    """Compare all heads of a model with each other, across layers: which are near-copies?

    For each space, the command prints the mean overlap of two heads, its value by chance, and the
    pairs of heads furthest above chance.
    """
    outputs = {"json": json_, "csv": csv}
    check_outputs(outputs, source)

    def compared() -> HeadOverlaps:
        with collection_paused():
            from flagscope.api.head_overlaps import head_overlaps

        chosen = [space.strip() for space in spaces.split(",")]
        return head_overlaps(source, spaces=chosen, memory=memory, **options)  # pyright: ignore[reportArgumentType] (checked there)

    found = interruptible(compared)

    def table() -> str:
        from flagscope.report import csv_text

        return csv_text(found.pairs)

    texts = {"json": partial(found.to_json, paths=paths), "csv": table}
    if not write_outputs(outputs, texts, quiet=quiet) and not quiet:
        _print(found)


def _print(found: HeadOverlaps) -> None:
    from flagscope.cli.console import Output, grid
    from flagscope.report.wording import counted, measured, p_value

    out = Output()
    out.paragraph(found.source, style="bold")
    rows = [
        (
            " ".join(filter(None, (space.stack, space.attention, space.space))),
            f"{len(space.measured):,}",
            f"{space.pairs_tested:,}",
            measured(space.overlap_ratio),
            measured(space.z),
            "" if space.clusters is None else f"{len(space.clusters)}",
            "" if space.status == "ok" else space.status,
        )
        for space in found.spaces
    ]
    titles = (("space", "left"), ("heads", "right"), ("pairs", "right"), ("overlap", "right"),
              ("z", "right"), ("clusters", "right"), ("status", "left"))  # fmt: skip
    out.table(grid(titles, rows))
    out.paragraph("mean Σcos² over chance (1), and how many standard deviations that is off")
    for space in found.spaces:
        if not space.pairs:
            continue
        out.print()
        listed = f"{counted(len(space.pairs), 'pair')} of {space.pairs_tested:,}"
        out.paragraph(f"{space.stack} {space.space}: {listed}, those furthest above chance")
        lines = [
            (pair.first, pair.second, measured(pair.overlap_ratio),
             f"{pair.mean_squared_cosine:.3f}", measured(pair.z), p_value(pair.log10_p))
            for pair in space.pairs
        ]  # fmt: skip
        columns = (("", "left"), ("", "left"), ("overlap", "right"), ("mean cos²", "right"),
                   ("z", "right"), ("p", "left"))  # fmt: skip
        out.table(grid(columns, lines))
    for note in found.notes:
        out.paragraph(note, bullet="note: ")
