"""Recipe to reopen a checkpoint in another process or on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Arguments of `open_checkpoint`, made to hold anywhere: a few hundred bytes.

    `reopened` opens it, in the process in which it arrives.

    Attributes
    ----------
    source, revision, base
        As for `open_checkpoint`; paths are absolute, a hub's revision is a commit.
    config
        The configuration, where it was given and not found next to the weights.
    tensors
        As for `open_checkpoint`.
    header
        Digest of the tensors' names, shapes and types.
    opened
        Which opening it was: a file that was replaced since is opened anew.
    stacks
        Tensors that are taken together, see `StackedCheckpoint`.
    """

    source: str
    revision: str | None
    base: str | None
    config: Mapping[str, Any] | None
    tensors: str | None
    header: str
    opened: str
    stacks: tuple[tuple[str, tuple[str, ...]], ...] = ()
