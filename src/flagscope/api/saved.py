"""Results read from the JSON that they were written as, and texts written to files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from flagscope.errors import InputError
from flagscope.records import Record
from flagscope.writing import write_whole

R = TypeVar("R", bound=Record)


def saved_record(source: str | os.PathLike[str], record: type[R], *, what: str, hint: str) -> R:
    """A record from the JSON file that holds it.

    Parameters
    ----------
    source
        Path of the file.
    record
        Its class.
    what, hint
        What it should be, in words, and what to do if it is something else.

    Raises
    ------
    InputError
        If the file cannot be read or is something else.
    """
    from pydantic import ValidationError

    try:
        if Path(source).exists() and not Path(source).is_file():
            raise OSError("not a file")  # reading a pipe may never end
        return record.model_validate_json(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{os.fspath(source)} is not {what}: {first}", hint=hint) from error


def written(text: str, path: str | os.PathLike[str] | None) -> str:
    """A text, also written to a file if one is given."""
    if path is not None:
        write_whole(path, text)
    return text
