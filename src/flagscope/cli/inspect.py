"""`flagscope inspect`: what a scan would measure, from the header alone."""

from __future__ import annotations

from typing import Any

import click

from flagscope.cli.options import model_options


@click.command("inspect")
@click.argument("source")
@model_options
@click.option("--all", "everything", is_flag=True, help="Every task, not the first forty.")
def inspect_command(source: str, everything: bool, **options: Any) -> None:
    """List maps, pairs, heads and cost of a checkpoint. Reads no tensor."""
    from rich.console import Console
    from rich.table import Table

    from flagscope.api import inspect

    found = inspect(source, **options)
    console = Console()
    pairs = sum(len(group.members) for group in found.graph.pairs)
    console.print(
        f"[bold]{found.source}[/]  family {found.graph.family}, {found.parameters:,} parameters, "
        f"{pairs} pairs, {len(found.graph.heads)} head groups"
    )
    table = Table("task", "pairs", "between", "head spaces", "GFLOP", "MB read", "MB peak")
    for column in table.columns[4:]:
        column.justify = "right"
    shown = found.tasks if everything else found.tasks[:40]
    for task in shown:
        table.add_row(
            task.name,
            ", ".join(f"{len(group.members)} {group.kind}" for group in task.pairs),
            ", ".join(sorted({group.between for group in task.pairs})),
            " ".join(f"{group.space}:{group.count}" for group in task.heads),
            f"{task.flops / 1e9:.2f}",
            f"{task.bytes_read / 1e6:.1f}",
            f"{task.bytes_peak / 1e6:.1f}",
        )
    console.print(table)
    if len(shown) < len(found.tasks):
        console.print(f"… and {len(found.tasks) - len(shown)} more tasks (--all)")
    total = sum(task.flops for task in found.tasks)
    read = sum(task.bytes_read for task in found.tasks)
    peak = max((task.bytes_peak for task in found.tasks), default=0)
    console.print(
        f"in all {total / 1e9:.1f} GFLOP, {read / 1e6:.1f} MB read, "
        f"about {peak / 1e6:.0f} MB at the largest task"
    )
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    if found.graph.unmapped:
        names = found.graph.unmapped
        console.print(
            f"not mapped: {len(names)} matrices, such as {', '.join(names[:5])}", markup=False
        )
