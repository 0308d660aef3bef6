"""Output of results: files and stdout, checked before the work and written after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flagscope.cli.interrupt import interrupts_raised
from flagscope.cli.options import Decorator, together
from flagscope.cli.text import log
from flagscope.errors import InputError
from flagscope.writing import write_whole

if TYPE_CHECKING:
    from flagscope.api.comparison_report import ComparisonReport
    from flagscope.api.head_overlaps import HeadOverlaps
    from flagscope.api.report import Report
    from flagscope.api.series_report import SeriesReport

STDOUT = "-"
_SETTINGS = ("config.json", "adapter_config.json")

paths_option = click.option(
    "--paths",
    is_flag=True,
    help="Keep absolute paths in the output. By default they are shortened to their last part.",
)
"""Whether reports say where on this machine things lie."""

title_option = click.option(
    "--title",
    metavar="TEXT",
    help="Heading of the page that --html writes. The default is the name of the source.",
)
"""What a page calls itself, and the files that are saved from it."""


def output_options(*, json: str, tables: Sequence[str], table: str, quiet: str) -> Decorator:
    """Where the results of a command go that makes tables and a page.

    Parameters
    ----------
    json, table, quiet
        What --help says of --json, --csv-table and --quiet.
    tables
        Those that --csv-table takes, the default first.
    """
    return together(
        click.option("--json", "json_", metavar="F", help=json),
        click.option("--html", metavar="F", help="Write the report as an HTML page; - for stdout."),
        title_option,
        click.option("--csv", metavar="F", help="Write a table as CSV; - for stdout."),
        click.option(
            "--csv-table",
            type=click.Choice(tables),
            default=tables[0],
            show_default=True,
            help=table,
        ),
        paths_option,
        click.option("--quiet", is_flag=True, help=quiet),
    )


def check_title(title: str | None, html: str | None) -> None:
    """Refuse a heading without a page that has it.

    Raises
    ------
    InputError
        If there is a title and no --html, or the title is empty.
    """
    if title is None:
        return
    if html is None:
        raise InputError("--title needs --html", hint="add --html report.html")
    if not title.strip():
        raise InputError("--title is empty", hint="give the page a name, or leave --title out")


def check_outputs(outputs: Mapping[str, str | None], *sources: str) -> None:
    """Refuse what could not be written, or would be lost, before the work is done.

    Raises
    ------
    InputError
        If two outputs go to one place, one would overwrite the source, or one cannot be written.
    """
    targets = {kind: target for kind, target in outputs.items() if target is not None}
    if sum(target == STDOUT for target in targets.values()) > 1:
        raise InputError(
            "only one of --json, --html and --csv can go to stdout",
            hint="give the others a file name",
        )
    files = {kind: Path(target) for kind, target in targets.items() if target != STDOUT}
    for kind, path in files.items():
        _check_file(kind, path)
        if path.is_file() and any(_is_of(path, source) for source in sources):
            raise InputError(
                f"--{kind} {path} would overwrite the source", hint="give another file name"
            )
    places = [path.absolute() for path in files.values()]
    if len(set(places)) < len(places):
        raise InputError("two outputs go to the same file", hint="give each a name of its own")


def texts_of(
    found: Report | ComparisonReport | HeadOverlaps | SeriesReport,
    *,
    table: str,
    title: str | None,
    paths: bool,
) -> dict[str, Callable[[], str]]:
    """What `write_outputs` writes of a result; a table by the name of its attribute."""

    def csv() -> str:
        from flagscope.report import csv_text

        return csv_text(getattr(found, table))

    return {
        "json": partial(found.to_json, paths=paths),
        "html": partial(found.to_html, title=title, paths=paths),
        "csv": csv,
    }


def write_outputs(
    outputs: Mapping[str, str | None], texts: Mapping[str, Callable[[], str]], *, quiet: bool
) -> bool:
    """Write what was asked for; whether stdout was taken by it.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    taken = False
    for kind, target in outputs.items():
        if target is None:
            continue
        text = texts[kind]()
        if target == STDOUT:
            _to_stdout(text)
            taken = True
            continue
        try:
            with interrupts_raised():  # so that what was begun is cleared away
                write_whole(target, text)
        except OSError as error:
            raise _unwritable(kind, Path(target), error) from error
        if not quiet:
            log(f"wrote {target}")
    return taken


def _check_file(kind: str, path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(f"--{kind} {path} is a folder", hint="give the name of a file in it")
        if not path.absolute().parent.is_dir():
            raise InputError(
                f"--{kind} {path}: there is no folder {path.absolute().parent}",
                hint="make the folder first, or give another name",
            )
        existed = path.exists()
        if existed and not path.is_file():
            return  # a device or a pipe: opening it would be felt at its other end
        # Only opening it is a certain test: permissions, read-only file systems, odd names.
        path.open("ab").close()
        if not existed:
            path.resolve().unlink()  # not the link that led there
    except OSError as error:
        raise _unwritable(kind, path, error) from error


def _unwritable(kind: str, path: Path, error: OSError) -> InputError:
    return InputError(
        f"--{kind} {path} cannot be written: {error.strerror or error}",
        hint="give another name, or - for stdout",
    )


def _is_of(path: Path, source: str) -> bool:
    """Whether a file is a source, or one of the files of a source's folder that are read."""
    try:
        if Path(source).is_dir() and path.resolve().is_relative_to(Path(source).resolve()):
            from flagscope.checkpoint import SUFFIXES  # not at the start of every command

            read = path.name.endswith((*SUFFIXES, ".index.json"))
            return read or path.name in _SETTINGS
        return path.samefile(source)
    except (OSError, ValueError):  # a hub name
        return False


def _to_stdout(text: str) -> None:
    """UTF-8 whatever the terminal's encoding, since that is what the files say they are."""
    sys.stdout.flush()
    raw = getattr(sys.stdout, "buffer", None)
    ending = "" if text.endswith("\n") else "\n"
    if raw is None:  # replaced by a text stream, as under a test
        sys.stdout.write(text + ending)
        return
    raw.write((text + ending).encode())
    raw.flush()
