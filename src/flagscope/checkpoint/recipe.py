"""How to open a checkpoint once more, in another process or on another machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flagscope.errors import SourceError

if TYPE_CHECKING:
    from flagscope.checkpoint.base import Checkpoint


@dataclass(frozen=True)
class Recipe:
    """What `open_checkpoint` was told, made to hold anywhere: a few hundred bytes.

    Attributes
    ----------
    source, revision, base
        As for `open_checkpoint`; paths are absolute, a hub's revision is a commit.
    config
        The configuration, where it was given and not found beside the weights.
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

    def open(self) -> Checkpoint:
        """The checkpoint.

        Raises
        ------
        SourceError
            If what stands there has other tensors than the one that the recipe was made of, and as
            for `open_checkpoint`.
        """
        from flagscope.checkpoint.opening import open_checkpoint
        from flagscope.checkpoint.stacked import stacked_checkpoint

        checkpoint = open_checkpoint(
            self.source,
            revision=self.revision,
            config=self.config,
            base=self.base,
            tensors=self.tensors,
        )
        if header_digest(checkpoint) != self.header:
            checkpoint.close()
            raise SourceError(
                f"a worker finds other tensors in {checkpoint.source} than the scan was planned "
                "for.",
                hint="give a path or URL that is the same file on every machine.",
            )
        return stacked_checkpoint(checkpoint, dict(self.stacks))


def header_digest(checkpoint: Checkpoint) -> str:
    """Digest of names, shapes and types, from the headers alone."""
    digest = hashlib.blake2b(digest_size=16)
    for name, info in sorted(checkpoint.tensors.items()):
        digest.update(json.dumps([name, info.dtype, info.shape]).encode())
    return digest.hexdigest()
