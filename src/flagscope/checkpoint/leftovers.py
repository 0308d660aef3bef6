"""Files next to the opened weights that were not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flagscope.checkpoint.deepspeed import optimizer_files
from flagscope.checkpoint.distributed.reader import METADATA_NAME
from flagscope.checkpoint.folder import (
    INDEX_SUFFIX,
    LATER_GGUF,
    NO_WEIGHTS,
    SHARD,
    folders_with_weights,
)
from flagscope.checkpoint.formats import GGUF_SUFFIXES, ONNX_SUFFIXES, SUFFIXES, TORCH_SUFFIXES
from flagscope.checkpoint.sharded import weight_map
from flagscope.shortening import listed

_LISTED = 6


def left_notes(weights: Path, *, whole: bool) -> tuple[str, ...]:
    """Notes on files of weights that were passed over.

    Parameters
    ----------
    weights
        The file that was opened, or the index.
    whole
        Whether the user named the folder, and so all that is in it.
    """
    folder, suffix = weights.parent, weights.suffix.lower()
    read = {weights.name}
    indexed = weights.name.endswith(INDEX_SUFFIX)
    if not (whole or indexed or SHARD.search(weights.name)):
        return ()  # the folder is not listed: one of a thousand files in it may be meant
    if indexed:
        read |= set(weight_map(weights).values())
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return ()  # a folder that may be entered but not listed
    left = [name for name in names if _is_weights(name) and name not in read]
    if suffix in GGUF_SUFFIXES:  # the parts of a split file are read together
        left = [name for name in left if not LATER_GGUF.search(name)]
    if suffix in ONNX_SUFFIXES:  # some are the model's own data
        left = [name for name in left if not name.lower().endswith(TORCH_SUFFIXES)]
    shards = [name for name in left if SHARD.search(name)]
    if indexed and shards:
        left = [name for name in left if name not in shards]
        stray = _note("shards in the folder that the index does not name", shards)
    elif not whole and SHARD.search(weights.name):
        return _note("further shards, which the folder's index would add", shards)
    else:
        stray = ()
    if not whole:
        return stray
    copies = optimizer_files(folder)
    if copies:
        stray += (f"not read: the copy of the weights that DeepSpeed's optimizer keeps in float32 "
                  f"({len(copies)} files)",)  # fmt: skip
    notes = [*stray, *_note("further files of weights in the folder", left)]
    if weights.name != METADATA_NAME:
        notes += _note("folders with weights in the folder", folders_with_weights(folder))
    return tuple(notes)


def _is_weights(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not NO_WEIGHTS.fullmatch(name)


def _note(what: str, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"not read: {what} ({len(names)}): {listed(names, _LISTED)}",)
