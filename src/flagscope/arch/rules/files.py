"""Reads family files: names and layouts of a model family's tensors, as data.

Each file in ``families/`` is TOML. Names are relative to a layer's `path`; any prefix of the path
is found from the tensor names. Alternatives (the name in a live module and the one on disk) are
arrays, of which the first name that exists counts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from flagscope.arch.rules.errors import first_mistake
from flagscope.arch.rules.family import Family
from flagscope.errors import ArchitectureError

# Keys that a family does not inherit from the one that it extends.
_IDENTITY = ("name", "title", "model_types", "requires", "prefixes")


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """The content of a TOML text; `file` is its name in errors."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also long numbers and deeply nested arrays
        raise ArchitectureError(
            f"{file}: {str(error)[:200]}", hint="the file must be valid TOML"
        ) from error


def read_family(
    content: Mapping[str, Any], file: str, families: Mapping[str, Mapping[str, Any]] | None = None
) -> Family:
    """A validated family from the content of its file.

    Parameters
    ----------
    content
        The parsed TOML.
    file
        Name of the file, for errors.
    families
        Contents of other family files by name, for `extends`: keys that this file lacks, except
        for its identity, are inherited.

    Raises
    ------
    ArchitectureError
        At the first mistake: a missing or unknown key, a wrong type, a layout that does not parse
        or lacks an axis that the role needs.

    References
    ----------
    Layouts are einops patterns: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> read_family({"name": "x", "title": "X", "chain": {}}, "x.toml").chain.activation.default
    'unknown'
    """
    try:
        return Family.model_validate(_extended(content, file, families or {}))
    except ValidationError as error:
        raise first_mistake(error, Family, file) from None


def _extended(
    content: Mapping[str, Any], file: str, families: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    parent = content.get("extends")
    if parent is None:
        return dict(content)
    base = families.get(parent) if isinstance(parent, str) else None
    if base is None or "extends" in base:
        raise ArchitectureError(
            f"{file}.extends: {parent!r} is not a family that stands by itself",
            hint="name a family file that does not extend another one",
        )
    return {key: value for key, value in base.items() if key not in _IDENTITY} | dict(content)
