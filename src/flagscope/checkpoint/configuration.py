"""The model's configuration, stored next to its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flagscope.checkpoint.files.checks import checked_bytes, refuse_broken_link
from flagscope.checkpoint.files.disguises import SEEN
from flagscope.checkpoint.files.placed import refuse_special
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import CorruptFileError, InputError, MissingFileError, SourceError

CONFIG_NAME = "config.json"
# The index of a model of 100,000 tensors takes 10 MB, a config some kilobytes. Objects that are
# parsed take up to twenty times the memory of their text.
_LARGEST = 2**25


def given_config(config: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """Configuration that the user gave, as a mapping or as the path of a JSON file.

    Raises
    ------
    InputError
        If it is neither.
    MissingFileError, CorruptFileError, SourceError
        If there is no such file, it holds no JSON object, or it cannot be read.
    """
    if isinstance(config, Mapping):
        return dict(config)
    if not isinstance(config, (str, os.PathLike)):
        raise InputError(
            f"config must be a mapping or a path, got {type(config).__name__}.",
            hint="pass model.config.to_dict() or the path of a config.json.",
        )
    if isinstance(config, str) and "://" in config:
        return json_object(RemotePath(config))
    path = Path(config).expanduser()
    return json_object(path / CONFIG_NAME if path.is_dir() else path)


def config_beside(weights: Path | RemotePath) -> dict[str, Any] | None:
    """Configuration in the folder of a file of weights, None if there is none."""
    path = weights.parent / CONFIG_NAME
    if isinstance(path, Path):
        refuse_broken_link(path)
        refuse_special(path)
    return json_object(path) if path.is_file() else None


def json_object(
    path: Path | RemotePath, *, kind: str = "index or configuration", largest: int = _LARGEST
) -> dict[str, Any]:
    """The JSON object that a file holds.

    Parameters
    ----------
    path
        Of the file.
    kind, largest
        What it is, and how many bytes a file of its kind has at most.

    Raises
    ------
    MissingFileError, CorruptFileError, SourceError
        If there is no such file, it holds no JSON object or is larger, or it cannot be read.
    """
    if isinstance(path, Path):
        refuse_special(path)
    try:
        content = _content(path, kind, largest)
        # A pointer of a repository, or a page in place of the file.
        checked_bytes(content[:SEEN], str(path))
        value = json.loads(content)
    except FileNotFoundError:
        raise MissingFileError(
            f"there is no file {path}.", hint="check the path for typos."
        ) from None
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror or error}.", hint="check that you may read it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(
            f"{path} is not valid JSON: {str(error)[:200]}.",
            hint="fetch the file again or correct it.",
        ) from error
    if not isinstance(value, dict):
        raise CorruptFileError(
            f"{path} holds a {type(value).__name__}, not a JSON object.",
            hint="fetch the file again or correct it.",
        )
    return value


def _content(path: Path | RemotePath, kind: str, largest: int) -> bytes:
    """The bytes of a file that is not larger than any of its kind."""
    size = path.stat().st_size if isinstance(path, Path) else path.size
    if size > largest:
        raise CorruptFileError(
            f"{path} has {size:,} bytes, and no {kind} has more than {largest:,}.",
            hint="is it the file that you mean?",
        )
    return path.read_bytes()
