"""Loads family files: those that ship with the package, and a custom one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from flagscope.arch.rules.family import Family
from flagscope.arch.rules.files import parse_toml, read_family
from flagscope.errors import ArchitectureError

# A custom family file is a page or two; more is some other file. The parser takes quadratic time
# for a key of a thousand parts.
_LARGEST = 2**18
_LONGEST_LINE = 2000


@cache
def load_families() -> Mapping[str, Family]:
    """All families that ship with the package, by name."""
    raw = _shipped()
    families = {name: read_family(content, f"{name}.toml", raw) for name, content in raw.items()}
    owners: dict[str, str] = {}
    for name, family in families.items():
        for model_type in family.model_types:
            if owners.setdefault(model_type, name) != name:
                raise ArchitectureError(
                    f"{name}.toml: model type {model_type!r} belongs to {owners[model_type]}.toml",
                    hint="a model type has one family",
                )
    return families


@cache
def _shipped() -> Mapping[str, Mapping[str, Any]]:
    """Contents of the files that ship with the package."""
    texts: dict[str, str] = {}
    for file in resources.files("flagscope.arch").joinpath("families").iterdir():
        if file.name.endswith(".toml"):
            texts[file.name.removesuffix(".toml")] = file.read_text(encoding="utf-8")
    return {name: parse_toml(text, f"{name}.toml") for name, text in sorted(texts.items())}


def own_family(path: str) -> Family:
    """A custom family, from its file.

    Raises
    ------
    ArchitectureError
        If the file cannot be read, or at the first mistake in it.
    """
    file_path = Path(path).expanduser()
    try:
        if file_path.exists() and not file_path.is_file():  # reading from a pipe may never end
            raise OSError("it is a folder, a pipe or a device")
        with file_path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ArchitectureError(
            f"the family file {path!r} cannot be read: {error.strerror or error}",
            hint="give the path of a file, or a name that `flagscope families` lists",
        ) from error
    except UnicodeDecodeError as error:
        raise ArchitectureError(
            f"the family file {path!r} is not text in UTF-8", hint="the file must be valid TOML"
        ) from error
    if len(data) > _LARGEST:
        raise ArchitectureError(
            f"the family file {path!r} is larger than 256 KiB", hint="is it a family file?"
        )
    if any(len(line) > _LONGEST_LINE for line in text.splitlines()):
        raise ArchitectureError(
            f"the family file {path!r} has a line of more than {_LONGEST_LINE:,} letters",
            hint="write arrays on several lines",
        )
    family = read_family(parse_toml(text, path), path, _shipped())
    return family.model_copy(update={"file": path})
