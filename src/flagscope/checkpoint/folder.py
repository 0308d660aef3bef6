"""Choice of the file of a folder that holds the weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from flagscope.checkpoint.deepspeed import FSDP_FOLDER, step_folder, whole_model
from flagscope.checkpoint.distributed.reader import METADATA_NAME, PIECES_SUFFIX
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
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import MissingFileError, SourceError
from flagscope.shortening import listed

INDEX_SUFFIX = ".index.json"
# The names that transformers writes, in the order in which it looks for them.
STANDARD_NAMES = (
    "model.safetensors",
    "model.safetensors" + INDEX_SUFFIX,
    "pytorch_model.bin",
    "pytorch_model.bin" + INDEX_SUFFIX,
)
# What trainers put next to the weights under the same suffixes.
NO_WEIGHTS = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state\w*|\w*optim_states)\.\w+"
)
SHARD = re.compile(r"-\d+-of-(?!0*1\.)\d+\.(?!gguf)")  # not the only one, 00001-of-00001
LATER_GGUF = re.compile(r"-(?!0*1-)\d+-of-\d+\.gguf", re.IGNORECASE)  # found from the first
_LISTED = 6


def weight_file(folder: Path) -> Path:
    """File of weights in a folder, or index of several.

    Standard names come first, then an index of any name, then the only file of weights:
    safetensors before PyTorch files, those before npz, that before GGUF, ONNX, Keras and Flax. Of a
    folder of DeepSpeed it is the file of the step that `latest` names, and of one that Accelerate
    saved with FSDP in pieces the table in `pytorch_model_fsdp_0`.

    Raises
    ------
    MissingFileError
        If there are no weights, or shards without an index.
    SourceError
        If there are several candidates, DeepSpeed spread the weights over processes, or the
        folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise SourceError(
            f"cannot read {folder}: {error.strerror or error}.",
            hint="check that you may read the folder.",
        ) from error
    if not any(name in STANDARD_NAMES or name.endswith(INDEX_SUFFIX) for name in names):
        step = step_folder(folder)
        if step is not None and (step == folder or _chosen(str(folder), names) is None):
            return whole_model(step)
    chosen = _chosen(str(folder), names)
    if chosen is not None:
        return folder / chosen
    if FSDP_FOLDER in names and (folder / FSDP_FOLDER / METADATA_NAME).is_file():
        return folder / FSDP_FOLDER / METADATA_NAME
    below = folders_with_weights(folder)
    raise _without_weights(
        str(folder),
        f"did you mean a folder in it: {listed(below, _LISTED)}?" if below else "check the path.",
    )


def names_weights(name: str) -> bool:
    """Whether a name is that of a file of weights, or of an index of them."""
    return name.lower().endswith((*SUFFIXES, INDEX_SUFFIX))


def folders_with_weights(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold files of weights."""
    return sorted(inner.name for inner in folder.iterdir() if _holds_weights(inner))


def _holds_weights(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(
            path.name == METADATA_NAME
            or (path.name.lower().endswith(SUFFIXES) and not NO_WEIGHTS.fullmatch(path.name))
            for path in folder.iterdir()
        )
    except OSError:  # one that may not be listed
        return False


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
    if any(name.endswith(PIECES_SUFFIX) for name in names):
        return _metadata(folder, names)
    kinds = (SAFETENSORS_SUFFIXES, TORCH_SUFFIXES, NPZ_SUFFIXES, GGUF_SUFFIXES, ONNX_SUFFIXES,
             KERAS_SUFFIXES, FLAX_SUFFIXES)  # fmt: skip
    for suffixes in kinds:
        found = [
            name
            for name in names
            if name.lower().endswith(suffixes) and not NO_WEIGHTS.fullmatch(name)
        ]
        found = [name for name in found if not LATER_GGUF.search(name)] or found
        if found:
            return _only(folder, found)
    return None


def _metadata(folder: str, names: Sequence[str]) -> str:
    """The name of the table of a torch.distributed.checkpoint folder."""
    if METADATA_NAME in names:
        return METADATA_NAME
    if any(name.endswith(METADATA_NAME) for name in names):
        raise SourceError(
            f"{folder} holds a torch.distributed.checkpoint of which each process wrote a table of "
            "its own (use_collectives=False).",
            hint="load it with torch.distributed.checkpoint, and save it with its default.",
        )
    raise MissingFileError(
        f"{folder} holds pieces of a torch.distributed.checkpoint, but not its {METADATA_NAME}.",
        hint="copy the hidden file too (cp -r FOLDER, not FOLDER/*); it is written last, so that "
        "a save that was stopped lacks it.",
    )


def _only(folder: str, names: Sequence[str]) -> str:
    if len(names) == 1 and not SHARD.search(names[0]):
        return names[0]
    if all(SHARD.search(name) for name in names):
        raise MissingFileError(
            f"{folder} holds shards but not their index: {listed(names, _LISTED)}.",
            hint=f"fetch the {INDEX_SUFFIX.removeprefix('.')} file that belongs to them "
            "into the same folder.",
        )
    raise SourceError(
        f"{folder} holds several files of weights: {listed(names, _LISTED)}.",
        hint="name the file that you mean.",
    )
