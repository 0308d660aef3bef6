"""Which file of a folder holds the weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from flagscope.checkpoint.formats import (
    FLAX_SUFFIXES,
    GGUF_SUFFIXES,
    KERAS_SUFFIXES,
    NPZ_SUFFIXES,
    ONNX_SUFFIXES,
    SAFETENSORS_SUFFIXES,
    SUFFIXES,
    TORCH_SUFFIXES,
)
from flagscope.checkpoint.remote import RemotePath
from flagscope.errors import MissingFileError, SourceError

INDEX_SUFFIX = ".index.json"
# The names that transformers writes, in the order in which it looks for them.
STANDARD_NAMES = (
    "model.safetensors",
    "model.safetensors" + INDEX_SUFFIX,
    "pytorch_model.bin",
    "pytorch_model.bin" + INDEX_SUFFIX,
)
# What trainers put beside the weights under the same suffixes.
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state\w*)\.\w+")
_SHARD = re.compile(r"-\d+-of-(?!0*1\.)\d+\.(?!gguf)")  # not the only one, 00001-of-00001
_LATER_GGUF = re.compile(r"-(?!0*1-)\d+-of-\d+\.gguf", re.IGNORECASE)  # found from the first
_LISTED = 6


def weight_file(folder: Path) -> Path:
    """File of weights in a folder, or index of several.

    Standard names come first, then an index of any name, then the only file of weights:
    safetensors before PyTorch files, those before npz, that before GGUF, ONNX, Keras
    and Flax.

    Raises
    ------
    MissingFileError
        If there are no weights, or shards without an index.
    SourceError
        If there are several candidates, or the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise SourceError(
            f"cannot read {folder}: {error.strerror or error}.",
            hint="check that you may read the folder.",
        ) from error
    chosen = _chosen(str(folder), names)
    if chosen is not None:
        return folder / chosen
    below = sorted(
        {path.parent.name for suffix in SUFFIXES for path in folder.glob(f"*/*{suffix}")}
    )
    raise _without_weights(
        str(folder),
        f"did you mean a folder in it: {_listed(below)}?" if below else "check the path.",
    )


def remote_weight_file(folder: RemotePath) -> RemotePath:
    """The same for a folder behind a URL; a web server, which lists nothing, is asked by name.

    Raises
    ------
    MissingFileError, SourceError, MissingExtraError
        As for `weight_file`, or if the store does not answer.
    """
    if folder.on_the_web:
        found = next((name for name in STANDARD_NAMES if (folder / name).is_file()), None)
    else:
        found = _chosen(str(folder), folder.names())
    if found is None:
        raise _without_weights(str(folder), "check the URL, or give that of the file itself.")
    return folder / found


def _without_weights(folder: str, hint: str) -> MissingFileError:
    return MissingFileError(
        f"the folder {folder} holds no weights: no file ending in {', '.join(SUFFIXES)}.",
        hint=hint,
    )


def _chosen(folder: str, names: Sequence[str]) -> str | None:
    """The name of the weights among those of a folder's files."""
    for name in STANDARD_NAMES:
        if name in names:
            return name
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if indices:
        return _only(folder, indices)
    kinds = (SAFETENSORS_SUFFIXES, TORCH_SUFFIXES, NPZ_SUFFIXES, GGUF_SUFFIXES, ONNX_SUFFIXES,
             KERAS_SUFFIXES, FLAX_SUFFIXES)  # fmt: skip
    for suffixes in kinds:
        found = [
            name
            for name in names
            if name.lower().endswith(suffixes) and not _NO_WEIGHTS.fullmatch(name)
        ]
        found = [name for name in found if not _LATER_GGUF.search(name)] or found
        if found:
            return _only(folder, found)
    return None


def _only(folder: str, names: Sequence[str]) -> str:
    if len(names) == 1 and not _SHARD.search(names[0]):
        return names[0]
    if all(_SHARD.search(name) for name in names):
        raise MissingFileError(
            f"{folder} holds shards but not their index: {_listed(names)}.",
            hint=f"fetch the {INDEX_SUFFIX.removeprefix('.')} file that belongs to them "
            "into the same folder.",
        )
    raise SourceError(
        f"{folder} holds several files of weights: {_listed(names)}.",
        hint="name the file that you mean.",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
