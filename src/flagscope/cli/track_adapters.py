"""LoRA adapters of a series on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flagscope.cli.console import Output
    from flagscope.records.series import SeriesRecord


def print_adapters(out: Output, record: SeriesRecord) -> None:
    """What stands out among the modules, and medians over them."""
    from flagscope.cli.console import grid
    from flagscope.report.series import adapter_lines, adapter_summaries, nothing_stands_out
    from flagscope.report.wording import counted, measured

    out.paragraph(f"adapters: {counted(len(record.adapters), 'module')}, from their factors")
    lines = adapter_lines(record)
    for line in lines or [nothing_stands_out(record)]:
        out.paragraph(line, bullet="• ")
    rows = [
        (one.title, measured(one.first), measured(one.last), measured(one.largest), one.label)
        for one in adapter_summaries(record)
    ]
    titles = (("number", "left"), ("first step", "right"), ("last step", "right"),
              ("largest, last step", "right"), ("label", "left"))  # fmt: skip
    out.table(grid(titles, rows))
    out.paragraph(
        "Medians over modules. Functional numbers are those of the change itself, gauge ones "
        "depend on how it is split into B and A. For every module and step: --csv F "
        "--csv-table adapters."
    )
