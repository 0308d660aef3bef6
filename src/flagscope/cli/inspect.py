"""`flagscope inspect`: what a scan would measure, from the header alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.collection import collection_paused
from flagscope.cli.options import model_options, run_options
from flagscope.cli.outputs import check_outputs, paths_option, write_outputs

if TYPE_CHECKING:
    from flagscope.api.inspection import Inspection
    from flagscope.arch import LinearMap
    from flagscope.cli.console import Output
    from flagscope.engine import Estimate, Task

_FIRST = 40

Columns = Sequence[tuple[str, str]]
Rows = Sequence[Sequence[str]]

_TASK_COLUMNS = (
    ("task", "left"),
    ("pairs", "left"),
    ("between", "left"),
    ("heads", "left"),
)
_MAP_COLUMNS = (
    ("tensor", "left"),
    ("role", "left"),
    ("maps", "right"),
    ("out × in", "left"),
    ("layout", "left"),
)


@click.command("inspect")
@click.argument("source")
@model_options
@click.option(
    "--maps", is_flag=True, help="List the maps: which tensor holds each map, and how it is stored."
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help=f"Print every line; by default a terminal shows the first {_FIRST}.",
)
@click.option(
    "--estimate/--no-estimate",
    default=True,
    show_default=True,
    help="Estimate the time and memory of a scan with these options. For this, matrix products, "
    "eigenproblems and the disk are timed for about a second.",
)
@run_options
@click.option(
    "--draft-family",
    metavar="F",
    help="Write the mapping as a draft of a family file, for you to correct; - for stdout.",
)
@click.option("--json", "json_", metavar="F", help="Write the full result as JSON; - for stdout.")
@paths_option
def inspect_command(
    source: str,
    maps: bool,
    everything: bool,
    json_: str | None,
    draft_family: str | None,
    paths: bool,
    **options: Any,
) -> None:
    """List the maps, pairs, heads and cost of a checkpoint, from its header alone.

    A map is a weight matrix or a part of one. A pair is two maps that share a space.
    """
    with collection_paused():
        from flagscope.api.inspection import inspect
        from flagscope.arch import family_draft
        from flagscope.cli.console import Output, grid
        from flagscope.cli.table import print_coverage
        from flagscope.report.wording import counted, duration, size

    outputs = {"json": json_, "draft-family": draft_family}
    check_outputs(outputs, source)
    found = inspect(source, **options)
    texts = {
        "json": partial(found.to_json, paths=paths),
        "draft-family": partial(family_draft, found.graph),
    }
    if write_outputs(outputs, texts, quiet=False):
        return
    out = Output()
    pairs = sum(len(group.members) for group in found.graph.pairs)
    out.paragraph(found.source, style="bold")
    out.paragraph(
        f"family {found.graph.family}, {found.parameters:,} parameters; "
        f"{counted(pairs, 'pair')}, {counted(len(found.graph.heads), 'head group')}"
    )
    print_coverage(out, found.coverage, ahead=True)
    columns, rows = _map_table(found) if maps else _task_table(found.tasks)
    if rows:
        shown = rows if everything or not out.is_terminal else rows[:_FIRST]
        out.print()
        out.table(grid(columns, shown))
        if len(shown) < len(rows):
            out.paragraph(f"… and {len(rows) - len(shown)} more (--all)")
    out.print()
    flops = sum(task.flops for task in found.tasks)
    peak = max((task.bytes_peak for task in found.tasks), default=0)
    out.paragraph(
        f"in all {counted(len(found.tasks), 'task')}, {size(flops, 'FLOP')}, "
        f"{size(found.bytes_read, 'B')} to read, about {size(peak, 'B')} of memory for the "
        "largest task"
    )
    if found.estimate is not None:
        _print_estimate(out, found.estimate)
    if found.estimate_full is not None:
        out.paragraph(
            "this scan is sharp where maps are large; with --depth full: about "
            f"{duration(found.estimate_full.seconds)}, and "
            f"{size(found.estimate_full.bytes_memory, 'B')} of memory"
        )
    for note in found.notes:
        out.paragraph(note, bullet="note: ")


def _print_estimate(out: Output, estimate: Estimate) -> None:
    from flagscope.report.wording import duration, size

    out.paragraph(
        f"a scan on this machine: about {duration(estimate.seconds)}, and "
        f"{size(estimate.bytes_memory, 'B')} of memory beyond the program's own"
    )
    for text in estimate.assumptions:
        out.paragraph(text, bullet="assumed: ")


def _task_table(tasks: Sequence[Task]) -> tuple[Columns, Rows]:
    """One row a task, with its cost in the unit that suits the largest."""
    from flagscope.report.wording import number

    work = _unit(max((task.flops for task in tasks), default=0), "FLOP")
    data = _unit(max((task.bytes_read for task in tasks), default=0), "B")
    rows = [
        (
            task.name,
            _kinds(task),
            ", ".join(dict.fromkeys(group.between for group in task.pairs)),
            _spaces(task),
            number(task.flops / work[0]),
            number(task.bytes_read / data[0]),
        )
        for task in tasks
    ]
    return (*_TASK_COLUMNS, (work[1], "right"), (data[1], "right")), rows


def _kinds(task: Task) -> str:
    """Pairs by kind: "64 qk, 64 ov", "514 mlp" (a block of experts has hundreds of groups)."""
    kinds: Counter[str] = Counter()
    for group in task.pairs:
        kinds[group.kind] += len(group.members)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _spaces(task: Task) -> str:
    """Head spaces by their number of heads: "12 q k v o", "32 q o, 8 k v"."""
    spaces: dict[int, list[str]] = {}
    for group in task.heads:
        spaces.setdefault(group.count, []).append(group.space)
    return ", ".join(f"{count} {' '.join(names)}" for count, names in spaces.items())


def _unit(largest: float, unit: str) -> tuple[float, str]:
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if largest >= factor:
            return factor, prefix + unit
    return 1e3, "k" + unit


def _map_table(found: Inspection) -> tuple[Columns, Rows]:
    """One row a map, or batch of maps over heads, in the order in which tasks use them."""
    maps: dict[str, LinearMap] = {}
    for task in found.tasks:
        sides = [side.map for pair in task.pairs for side in (pair.write, pair.read)]
        for one in (*sides, *(group.map for group in task.heads)):
            maps.setdefault(repr((one.tensor, one.role, one.select)), one)
    return _MAP_COLUMNS, [_map_row(one) for one in maps.values()]


def _map_row(one: LinearMap) -> tuple[str, ...]:
    chosen = "".join(f", {axis} = {index}" for axis, index in one.select.items())
    return (
        one.tensor,
        one.role,
        str(one.count),
        f"{one.outputs} × {one.inputs}",
        f"{one.layout}{chosen}",
    )
