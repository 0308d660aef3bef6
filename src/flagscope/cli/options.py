"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

PARTS = ("pairs", "heads", "residual")


def parts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """The comma-separated parts of --only."""
    chosen = tuple(part.strip() for part in value.split(",") if part.strip())
    wrong = [part for part in chosen if part not in PARTS]
    if wrong or not chosen:
        raise click.BadParameter(
            f"{', '.join(map(repr, wrong)) or 'nothing'} is not among {', '.join(PARTS)}"
        )
    return chosen


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def in_bytes(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Bytes of a size such as 3GB or 500MB."""
    told = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)b?", value.strip().lower())
    if told is None:
        raise click.BadParameter(f"{value!r} is no size such as 3GB or 500MB")
    return int(float(told[1]) * _UNITS[told[2]])


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one, in the order in which --help lists them."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def memory_option(help: str) -> Decorator:
    """--memory, a size in bytes, of what is held at once."""
    return click.option(
        "--memory", metavar="SIZE", callback=in_bytes, default="3GB", show_default=True, help=help
    )


device_option = click.option(
    "--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …"
)

source_options = together(
    click.option(
        "--family",
        metavar="NAME|FILE.toml|none",
        help="Model family (see `flagscope families`), a family file of your own, or none to go by "
        "names and shapes alone.",
    ),
    click.option(
        "--config",
        metavar="F",
        help="config.json of the model, a path or a URL, where none stands beside the weights.",
    ),
    click.option("--heads", metavar="N", type=click.IntRange(1), help="Number of attention heads."),
    click.option("--base", metavar="SOURCE", help="Model under a PEFT adapter."),
    click.option(
        "--tensors",
        metavar="GROUP",
        help="Which group of tensors to read, of a file with several models.",
    ),
    click.option("--revision", metavar="R", help="Branch, tag or commit of a hub repository."),
)
"""Options that say what the source is."""

model_options = together(
    source_options,
    click.option(
        "--only",
        metavar="PARTS",
        default=",".join(PARTS),
        callback=parts,
        show_default=True,
        help="Parts to compute.",
    ),
    click.option(
        "--window",
        metavar="N",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Blocks between the two ends of a residual pair or link; 0 for none of them.",
    ),
    click.option(
        "--edges",
        metavar="N",
        type=click.IntRange(0),
        default=200,
        show_default=True,
        help="Links from head to head to list; 0 for none.",
    ),
)
"""Options that say what the source is and what of it to look at."""

run_options = together(
    click.option(
        "--depth",
        type=click.Choice(["auto", "sharp", "full"]),
        default="auto",
        show_default=True,
        help="full computes every singular vector, sharp products and leading directions alone; "
        "auto is sharp for maps larger than 1,024.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["mixed", "float64", "float32"]),
        default="mixed",
        show_default=True,
        help="Arithmetic: float32 for large maps and float64 where it matters, or one throughout.",
    ),
    click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(1),
        help="Tasks at once; by default one for each core, at most four.",
    ),
    memory_option(
        "What tasks at once may take beyond the program's own; a larger task runs alone."
    ),
)
"""Options of how a scan is carried out that its time and memory depend on."""
