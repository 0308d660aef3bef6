"""Models on the Hugging Face hub: fetch the files needed, or find them in the local cache."""

from __future__ import annotations

import re
from pathlib import Path

from flagscope.errors import MissingFileError

_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


def is_hub_name(named: str) -> bool:
    """Whether a text can be the name of a model on the hub: name or org/name."""
    return bool(_NAME.fullmatch(named))


def fetched_weights(name: str, *, revision: str | None) -> Path:
    """Path of the weights."""
    raise MissingFileError(name)
