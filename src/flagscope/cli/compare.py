"""`flagscope compare`: what two sets of weights are to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.bar import progress_bar
from flagscope.cli.collection import collection_paused
from flagscope.cli.gate import (
    check_moved_looked_at,
    comparison_codes,
    comparison_gate,
    share,
    verdict_codes,
)
from flagscope.cli.interrupt import interruptible
from flagscope.cli.options import chosen, memory_option, workers_option
from flagscope.cli.outputs import (
    check_outputs,
    check_title,
    output_options,
    texts_of,
    write_outputs,
)

if TYPE_CHECKING:
    from flagscope.api.comparison_report import ComparisonReport

PARTS = ("content", "change", "diagnostics")


def _parts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return chosen(value, PARTS)


def _codes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    return comparison_codes(value)


def _expected(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    return verdict_codes(value)


def _share(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    return share(value)


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.option(
    "--adapter",
    metavar="X",
    help="A LoRA adapter: is B the model A with this adapter merged, and at which strength?",
)
@click.option(
    "--parent",
    "parents",
    metavar="P",
    multiple=True,
    help="A model that B may be a merge of, with A or without it; may be given several times.",
)
@output_options(
    json="Write everything as JSON; - for stdout.",
    tables=("tensors", "maps", "heads"),
    table="Table that --csv writes.",
    quiet="Print errors only.",
)
@click.option(
    "--only",
    metavar="PARTS",
    default=",".join(PARTS),
    callback=_parts,
    show_default=True,
    help="Parts to compute, separated by commas: content is which tensors are the same; change is "
    "what moved, map by map and head by head; diagnostics scans both.",
)
@click.option("--family", metavar="NAME|FILE.toml|none", help="Model family of both.")
@click.option("--config", metavar="F", help="Path or URL of the config.json of both.")
@click.option("--heads", metavar="N", type=click.IntRange(1), help="Number of attention heads.")
@click.option("--revision-a", metavar="R", help="Branch, tag or commit of A on the hub.")
@click.option("--revision-b", metavar="R", help="Branch, tag or commit of B on the hub.")
@workers_option
@memory_option("Memory for the tasks, in addition to the program itself.", default="2GB")
@click.option(
    "--fail-on",
    metavar="CODES",
    callback=_codes,
    help="Exit with 4 if the verdict or a finding has one of these codes, separated by commas: "
    "identical, fine-tuned, adapter-not-applied, … (`code` of the verdict and of each finding in "
    "the JSON), or strong, notable, warning for all findings of that severity.",
)
@click.option(
    "--expect",
    "expected",
    metavar="CODES",
    callback=_expected,
    help="Exit with 4 if the verdict is none of these codes, separated by commas.",
)
@click.option(
    "--max-moved",
    "most",
    metavar="X%",
    callback=_share,
    help="Exit with 4 if a map moved by more than this share of its norm in A, or could not be "
    "measured. Embeddings, norms and biases are not maps.",
)
def compare_command(
    a: str,
    b: str,
    json_: str | None,
    html: str | None,
    title: str | None,
    csv: str | None,
    csv_table: str,
    paths: bool,
    quiet: bool,
    fail_on: tuple[str, ...],
    expected: tuple[str, ...],
    most: float | None,
    **options: Any,
) -> int:
    """Compare two models, a model and an adapter, or two adapters.

    The first line is a verdict: identical, the same up to rounding, fine-tuned, an adapter merged
    into it, a merge, layers cut, unrelated … Then come the evidence, what stays open, and what
    moved.
    """
    outputs = {"json": json_, "html": html, "csv": csv}
    more = [options["adapter"]] if options["adapter"] else []
    check_outputs(outputs, a, b, *more, *options["parents"])
    check_title(title, html)
    check_moved_looked_at(most, options["only"])

    with progress_bar(quiet=quiet) as step:

        def compared() -> ComparisonReport:
            with collection_paused():
                from flagscope.api.compare import compare

            return compare(a, b, progress=step, **options)

        report = interruptible(compared)

    texts = texts_of(report, table=csv_table, title=title, paths=paths)
    if not write_outputs(outputs, texts, quiet=quiet) and not quiet:
        from flagscope.cli.comparison_text import print_comparison

        print_comparison(report.result)
    return comparison_gate(report.result, fail_on, expected=expected, most=most)
