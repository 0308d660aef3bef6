"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

PARTS = ("health", "pairs", "heads", "residual")
KINDS = ("qk", "ov", "mlp", "sequential", "conv", "residual", "latent")


def parts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """The comma-separated parts of --only."""
    return chosen(value, PARTS)


def pair_kinds(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """The comma-separated kinds of --kinds."""
    return None if value is None else chosen(value, KINDS)


def chosen(value: str, among: tuple[str, ...]) -> tuple[str, ...]:
    """The comma-separated words of an option.

    Raises
    ------
    click.BadParameter
        If one is not among those there are.
    """
    words = tuple(part.strip() for part in value.split(",") if part.strip())
    wrong = [word for word in words if word not in among]
    if wrong or not words:
        raise click.BadParameter(
            f"{', '.join(map(repr, wrong)) or 'nothing'} is not among {', '.join(among)}"
        )
    return words


def numbers(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Whole numbers and ranges with both ends, such as 0,8-11."""
    if value is None:
        return None
    chosen: list[int] = []
    for part in value.split(","):
        ends = re.fullmatch(r" *(\d{1,5})(?: *- *(\d{1,5}))? *", part)
        if ends is None or int(ends[1]) > int(ends[2] or ends[1]):
            raise click.BadParameter(f"{part!r} is not a number or a range such as 8-11")
        chosen += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return tuple(dict.fromkeys(chosen))


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


def memory_option(help: str, *, default: str = "3GB") -> Decorator:
    """--memory, a size in bytes, of what is held at once."""
    return click.option(
        "--memory", metavar="SIZE", callback=in_bytes, default=default, show_default=True, help=help
    )


def only_option(default: str) -> Decorator:
    """--only, parts of a scan."""
    return click.option(
        "--only",
        metavar="PARTS",
        default=default,
        callback=parts,
        show_default=True,
        help=f"Parts to compute, separated by commas, of {', '.join(PARTS)}.",
    )


workers_option = click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1),
    help="Number of tasks at once. The default is one per core, at most four.",
)
device_option = click.option(
    "--device",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Device to compute on: auto, cpu, cuda, cuda:1, …",
)

source_options = together(
    click.option(
        "--family",
        metavar="NAME|FILE.toml|none",
        help="Model family (see `flagscope families`) or your own family file. With none, only "
        "tensor names and shapes are used.",
    ),
    click.option(
        "--config",
        metavar="F",
        help="Path or URL of the model's config.json, if there is none next to the weights.",
    ),
    click.option("--heads", metavar="N", type=click.IntRange(1), help="Number of attention heads."),
    click.option("--base", metavar="SOURCE", help="Base model of a PEFT adapter."),
    click.option(
        "--tensors",
        metavar="GROUP",
        help="Group of tensors to read, if a file holds several models.",
    ),
    click.option("--revision", metavar="R", help="Branch, tag or commit of a hub repository."),
)
"""Options that say what the source is."""

model_options = together(
    source_options,
    only_option(",".join(PARTS)),
    click.option(
        "--layers",
        metavar="N,N-N",
        callback=numbers,
        help="Layers to look at, such as 0,8-11, counted from 0; all by default.",
    ),
    click.option(
        "--kinds",
        metavar="KINDS",
        callback=pair_kinds,
        help=f"Kinds of pairs to look at, of {', '.join(KINDS)}; all by default.",
    ),
    click.option(
        "--window",
        metavar="N",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="How many layers a reader may come after its writer, in residual pairs and links: 1 "
        "is the same layer and the next. With 0 there are no residual pairs and no links.",
    ),
    click.option(
        "--edges",
        metavar="N",
        type=click.IntRange(0),
        default=200,
        show_default=True,
        help="Number of links between heads to list; 0 for none.",
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
        help="Arithmetic. mixed uses float32 for large maps and float64 where it matters.",
    ),
    workers_option,
    memory_option(
        "Memory for the tasks, in addition to the program itself. A task that needs more runs "
        "alone."
    ),
)
"""Options of how a scan is carried out that its time and memory depend on."""
