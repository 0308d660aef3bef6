"""Which reader a file gets: by its suffix, and by how it begins where the suffix says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.files import FileCheckpoint, checked_start
from flagscope.checkpoint.gguf_file import GgufFile
from flagscope.checkpoint.npz_file import NpzFile
from flagscope.checkpoint.onnx_file import OnnxFile
from flagscope.checkpoint.remote import RemotePath
from flagscope.checkpoint.remote_safetensors import RemoteSafetensors
from flagscope.checkpoint.safetensors_file import SafetensorsFile
from flagscope.checkpoint.torch_contents import is_torch
from flagscope.checkpoint.torch_file import TorchFile
from flagscope.errors import SourceError

SAFETENSORS_SUFFIXES = (".safetensors",)
TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".th", ".ckpt")
NPZ_SUFFIXES = (".npz",)
GGUF_SUFFIXES = (".gguf",)
ONNX_SUFFIXES = (".onnx",)
SUFFIXES = SAFETENSORS_SUFFIXES + TORCH_SUFFIXES + NPZ_SUFFIXES + GGUF_SUFFIXES + ONNX_SUFFIXES


class FileReader(Protocol):
    """What opens one file: a reader's class."""

    def __call__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> FileCheckpoint:
        """Open the file."""
        ...


_READERS: dict[str, FileReader] = {
    **dict.fromkeys(SAFETENSORS_SUFFIXES, SafetensorsFile),
    **dict.fromkeys(TORCH_SUFFIXES, TorchFile),
    **dict.fromkeys(NPZ_SUFFIXES, NpzFile),
    **dict.fromkeys(GGUF_SUFFIXES, GgufFile),
    **dict.fromkeys(ONNX_SUFFIXES, OnnxFile),
}

_UNSUPPORTED = {
    **dict.fromkeys(
        (".h5", ".hdf5"), ("HDF5 (Keras)", "save the weights as .npz or .safetensors.")
    ),
    ".keras": ("Keras", "save the weights as .npz or .safetensors."),
    ".msgpack": ("Flax", "save the weights as .npz or .safetensors."),
    ".pb": ("TensorFlow SavedModel", "save the weights as .npz, or convert it to ONNX (tf2onnx)."),
    ".tflite": ("TensorFlow Lite", "save the weights as .npz, or convert it to ONNX (tf2onnx)."),
    ".npy": ("NumPy .npy", "save named arrays with numpy.savez."),
    ".pkl": ("pickle", "save the weights as .safetensors or with torch.save(state_dict)."),
}

# Names that files of torch.save get as well; how they begin says what they are.
_OFTEN_TORCH = (*SAFETENSORS_SUFFIXES, ".pkl", ".pickle", ".model", ".tar", ".zip")


def file_reader(path: Path) -> FileReader:
    """Class that reads a file.

    Raises
    ------
    MissingFileError, CorruptFileError, SourceError
        If the file is not there, is empty, or is of a format that is not supported.
    """
    suffix = path.suffix.lower()
    start = checked_start(path)
    if suffix in _OFTEN_TORCH and is_torch(start):
        return TorchFile
    if suffix in _READERS:
        return _READERS[suffix]
    if start.startswith(b"GGUF"):
        return GgufFile
    if suffix in _UNSUPPORTED:
        name, hint = _UNSUPPORTED[suffix]
        raise SourceError(
            f"{path}: {name} files are not supported: reading them takes a framework of their own, "
            "or runs pickled code.",
            hint=hint,
        )
    if start[8:9] == b"{":
        return SafetensorsFile
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return TorchFile
    raise SourceError(
        f"{path} is of no format that flagscope reads.",
        hint=f"it reads files ending in {', '.join(SUFFIXES)}.",
    )


def opened_file(
    path: Path | RemotePath,
    *,
    source: str | None = None,
    config: dict[str, Any] | None = None,
    tensors: str | None = None,
) -> Checkpoint:
    """A file of weights, on this machine or behind a URL; or of a torch file one group of tensors.

    Raises
    ------
    MissingFileError, CorruptFileError, SourceError
        If the file is not there, is damaged, or is of a format that is not supported there.
    InputError
        If there is no group `tensors`.
    """
    if isinstance(path, Path):
        reader = file_reader(path)
        if reader is TorchFile:
            return TorchFile(path, source=source, config=config, tensors=tensors)
        return reader(path, source=source, config=config)
    check_remote(path)
    return RemoteSafetensors(path, source=source, config=config)


def check_remote(path: RemotePath) -> None:
    """Refuse a format whose reader needs the file on this machine.

    Raises
    ------
    SourceError
        If it is neither safetensors nor an index of shards.
    """
    suffix = path.suffix.lower()
    if suffix in SAFETENSORS_SUFFIXES or path.name.endswith(".index.json"):
        return
    kind = f"{suffix} files" if suffix in _READERS else "this file"
    raise SourceError(
        f"{path}: only safetensors are read in parts from a URL, not {kind}.",
        hint="download it and give its path, or save the weights as safetensors.",
    )
