"""Choice of the reader: by suffix, or by the first bytes where the suffix says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.derived.renamed import unwrapped
from flagscope.checkpoint.distributed.reader import (
    METADATA_NAME,
    PIECES_SUFFIX,
    DistributedFolder,
    refuse_piece,
)
from flagscope.checkpoint.files.checks import checked_start
from flagscope.checkpoint.files.content import Kind, content_kind
from flagscope.checkpoint.files.disguises import unlike
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.npz import NpzFile
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.safetensors.reader import SafetensorsFile
from flagscope.checkpoint.torch.contents import is_torch
from flagscope.checkpoint.torch.reader import TorchFile
from flagscope.errors import CorruptFileError, SourceError

SAFETENSORS_SUFFIXES = (".safetensors",)
TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".th", ".ckpt")
NPZ_SUFFIXES = (".npz",)
GGUF_SUFFIXES = (".gguf",)
ONNX_SUFFIXES = (".onnx",)
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
FLAX_SUFFIXES = (".msgpack",)
SUFFIXES = (
    *SAFETENSORS_SUFFIXES,
    *TORCH_SUFFIXES,
    *NPZ_SUFFIXES,
    *GGUF_SUFFIXES,
    *ONNX_SUFFIXES,
    *KERAS_SUFFIXES,
    *FLAX_SUFFIXES,
)


class FileReader(Protocol):
    """Class of a reader, or a function that imports it, called to open one file."""

    def __call__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> FileCheckpoint:
        """Open the file."""
        ...


def _gguf_file(
    path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
) -> FileCheckpoint:
    from flagscope.checkpoint.gguf.reader import GgufFile

    return GgufFile(path, source=source, config=config)


def _onnx_file(
    path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
) -> FileCheckpoint:
    from flagscope.checkpoint.onnx.reader import OnnxFile

    return OnnxFile(path, source=source, config=config)


def _keras_file(
    path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
) -> FileCheckpoint:
    from flagscope.checkpoint.keras.reader import KerasFile

    return KerasFile(path, source=source, config=config)


def _flax_file(
    path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
) -> FileCheckpoint:
    from flagscope.checkpoint.flax.reader import FlaxFile

    return FlaxFile(path, source=source, config=config)


# Readers of formats that few checkpoints have are imported with the first file.
_READERS: dict[str, FileReader] = {
    **dict.fromkeys(SAFETENSORS_SUFFIXES, SafetensorsFile),
    **dict.fromkeys(TORCH_SUFFIXES, TorchFile),
    **dict.fromkeys(NPZ_SUFFIXES, NpzFile),
    **dict.fromkeys(GGUF_SUFFIXES, _gguf_file),
    **dict.fromkeys(ONNX_SUFFIXES, _onnx_file),
    **dict.fromkeys(KERAS_SUFFIXES, _keras_file),
    **dict.fromkeys(FLAX_SUFFIXES, _flax_file),
}

_KINDS: dict[Kind, tuple[tuple[str, ...], FileReader]] = {
    "safetensors": (SAFETENSORS_SUFFIXES, SafetensorsFile),
    "torch": (TORCH_SUFFIXES, TorchFile),
    "npz": (NPZ_SUFFIXES, NpzFile),
    "gguf": (GGUF_SUFFIXES, _gguf_file),
}
# How a file begins that its suffix's reader may take: others have no such beginning.
_BEGINNINGS = {
    **dict.fromkeys(TORCH_SUFFIXES, (b"PK", b"\x80")),
    **dict.fromkeys(NPZ_SUFFIXES, (b"PK",)),
}

# What programs put behind the name of a file that they still write.
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2")

_UNSUPPORTED = {
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
    if suffix in _UNFINISHED:
        raise SourceError(
            f"{path} is a download that was not finished, by its name.",
            hint="finish the download; then name the file that it becomes.",
        )
    if path.name == METADATA_NAME:
        return DistributedFolder
    if suffix == PIECES_SUFFIX:
        refuse_piece(path)
    kind = content_kind(path, start)
    if kind is not None:  # content comes before the name, and `misnamed_note` says so
        return _KINDS[kind][1]
    if suffix in _OFTEN_TORCH and is_torch(start):
        return TorchFile
    if suffix in _READERS:
        _check_beginning(path, suffix, start)
        return _READERS[suffix]
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return _keras_file
    if suffix in _UNSUPPORTED:
        name, hint = _UNSUPPORTED[suffix]
        raise SourceError(
            f"{path}: {name} files are not supported: reading them takes a framework of their own, "
            "or runs pickled code.",
            hint=hint,
        )
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return TorchFile
    what = unlike(start, path.stat().st_size)
    raise SourceError(
        f"{path} is of no format that flagscope reads: it is {what.what}.",
        hint=f"{what.hint} flagscope reads files ending in {', '.join(SUFFIXES)}.",
    )


def _check_beginning(path: Path, suffix: str, start: bytes) -> None:
    """Refuse a file that does not begin as its suffix says, by what it is rather than as damaged.

    Raises
    ------
    CorruptFileError
        If it does not.
    """
    begins = _BEGINNINGS.get(suffix)
    size = path.stat().st_size
    if suffix in SAFETENSORS_SUFFIXES:
        # The length of a header comes first, and then its brace.
        fits = start[8:9] == b"{" or 2 <= int.from_bytes(start[:8], "little") <= size - 8
        begins = None if fits or len(start) < 9 else ()
    # Half a beginning is a file that was cut short.
    if begins is None or any(
        start.startswith(magic) or magic.startswith(start) for magic in begins
    ):
        return
    what = unlike(start, size)
    raise CorruptFileError(f"{path} is {what.what}.", hint=what.hint)


def misnamed_note(path: Path) -> tuple[str, ...]:
    """A note on a file that was read as what it contains, which is not what its name says."""
    suffix = path.suffix.lower()
    kind = content_kind(path, checked_start(path))
    if suffix not in _READERS or kind is None or suffix in _KINDS[kind][0]:
        return ()
    return (f"{path.name} was read as a {kind} file, which it is whatever its name says",)


def opened_file(
    path: Path | RemotePath,
    *,
    source: str | None = None,
    config: dict[str, Any] | None = None,
    tensors: str | None = None,
    as_stored: bool = False,
) -> Checkpoint:
    """A file of weights, on this machine or behind a URL; or one group of tensors of nested ones.

    What wrappers of the model put into the names of tensors is taken out unless `as_stored`.

    Raises
    ------
    MissingFileError, CorruptFileError, SourceError
        If the file is not there, is damaged, or is of a format that is not supported there.
    InputError
        If there is no group `tensors`.
    """
    checkpoint: Checkpoint
    if not isinstance(path, Path):
        check_remote(path)
        checkpoint = SafetensorsFile(path, source=source, config=config)
        return checkpoint if as_stored else unwrapped(checkpoint)
    reader = file_reader(path)
    if reader is TorchFile or reader is DistributedFolder:
        checkpoint = reader(path, source=source, config=config, tensors=tensors)
    else:
        checkpoint = reader(path, source=source, config=config)
    checkpoint = checkpoint if as_stored else unwrapped(checkpoint)
    checkpoint.add_notes(*misnamed_note(path))
    return checkpoint


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
