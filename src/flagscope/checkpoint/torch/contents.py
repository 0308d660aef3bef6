"""Kind of a PyTorch file, and the object that its pickle describes."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from flagscope.checkpoint.files.checks import DAMAGED, checked_start
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.pickle.records import Global, StandIn
from flagscope.checkpoint.torch.archive import TorchArchive
from flagscope.checkpoint.torch.legacy import LONGEST_START, is_legacy, legacy_saved
from flagscope.checkpoint.torch.objects import opened_up
from flagscope.checkpoint.torch.plain_pickle import pickle_saved
from flagscope.errors import CorruptFileError, SourceError
from flagscope.shortening import listed

ZIP_START = b"PK\x03\x04"
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
INNER_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl")
_OTHER_FORMATS = (".safetensors", ".gguf", ".onnx", ".npz", ".h5", ".keras", ".zip", ".tar")
_LISTED = 6
_listed = partial(listed, most=_LISTED, letters=60)


@dataclass(frozen=True)
class TorchContents:
    """Contents of a file.

    Attributes
    ----------
    saved, opened
        The object as its pickle describes it, and with modules and objects as dicts; see
        `opened_up`.
    kind
        Of which class it is.
    opaque
        Whether it is an object, or holds one, that only its own code could make.
    frozen
        Whether it is a TorchScript program whose weights are constants.
    notes
        What is to be said of it.
    """

    saved: Any
    opened: Any
    kind: str
    opaque: bool = False
    frozen: bool = False
    notes: tuple[str, ...] = ()


def is_torch(start: bytes) -> bool:
    """Whether a file that begins so is a zip file or a pickle, and none of safetensors.

    Those begin with the length of their header, whose lowest byte may be that of a pickle.

    Examples
    --------
    >>> is_torch(b"\\x80\\x02}q\\x00."), is_torch(b"\\x80\\x02\\0\\0\\0\\0\\0\\0{")
    (True, False)
    """
    return start.startswith((ZIP_START, *_PICKLES)) and not _is_safetensors(start)


def _is_safetensors(start: bytes) -> bool:
    return start[4:9] == b"\0\0\0\0{"


def torch_contents(placed: PlacedBytes, names: set[Global]) -> TorchContents:
    """Read the pickles of a file, and no tensor.

    Parameters
    ----------
    placed
        The file.
    names
        Gets the functions and classes that it names.

    Raises
    ------
    PickleError
        If a pickle is not whole, or its tensors do not fit the file.
    MissingFileError, CorruptFileError, SourceError
        If the file is not there, or of another format.
    """
    path, size = placed.path, placed.size
    start = checked_start(path)
    with placed.opened() as file:
        if start.startswith(ZIP_START):
            return _zip(file, str(path), size, names)
        if is_legacy(start):
            return _contents(legacy_saved(file, 0, size, names))
        if is_torch(start):
            plain = _contents(pickle_saved(file, size, names))
            return replace(plain, kind=f"a plain pickle of {plain.kind}")
    if start[8:9] == b"{":
        raise CorruptFileError(
            f"{path} looks like a safetensors file.", hint="rename it to end in .safetensors."
        )
    raise CorruptFileError(f"{path} is not a file that torch.save wrote.", hint=DAMAGED)


def _contents(saved: Any, archive: TorchArchive | None = None) -> TorchContents:
    script = archive is not None and archive.is_script
    kind = saved.name if isinstance(saved, StandIn) else f"a {type(saved).__name__}"
    opaque = isinstance(saved, StandIn) or (
        isinstance(saved, dict) and any(isinstance(value, StandIn) for value in saved.values())
    )
    return TorchContents(
        saved=saved,
        opened=opened_up(saved, script=archive if script else None),
        kind=kind,
        opaque=opaque and not script,
        frozen=script,
        notes=("weights of a TorchScript program; its code was not run",) if script else (),
    )


def _zip(file: BinaryIO, shown: str, size: int, names: set[Global]) -> TorchContents:
    archive = TorchArchive(file, shown, 0, size)
    if any(name.endswith(".npy") for name in archive.members):
        raise CorruptFileError(
            f"{shown} looks like a NumPy archive.", hint="rename it to end in .npz."
        )
    if archive.root is not None:
        return _contents(archive.saved(names), archive)
    found: dict[str, TorchContents] = {}
    for name, member in archive.members.items():
        if not name.lower().endswith(INNER_SUFFIXES):
            continue
        if member.compress_type != zipfile.ZIP_STORED:
            raise SourceError(
                f"{shown} is a zip file that holds {name[:100]} compressed.",
                hint=f"unpack it (unzip) and give the path of {name[:100]}.",
            )
        begin, length = archive.place(name)
        inner = _member(file, f"{shown}/{name[:100]}", begin, length, names)
        if inner is not None:
            found[name] = inner
    if not found:
        raise _no_torch_file(archive, shown)
    return TorchContents(
        saved={name: inner.saved for name, inner in found.items()},
        opened={name: inner.opened for name, inner in found.items()},
        kind="torch files",
        opaque=any(inner.opaque for inner in found.values()),
        notes=(f"{shown} is a zip file of {len(found)} torch files: {_listed(list(found))}",),
    )


def _member(
    file: BinaryIO, shown: str, begin: int, size: int, names: set[Global]
) -> TorchContents | None:
    """A torch file inside of a zip file; None for what is none."""
    file.seek(begin)
    start = file.read(min(size, LONGEST_START))
    if start.startswith(ZIP_START):
        archive = TorchArchive(file, shown, begin, size)
        return _contents(archive.saved(names), archive) if archive.root is not None else None
    if len(start) == LONGEST_START and is_legacy(start):
        return _contents(legacy_saved(file, begin, size, names))
    return None


def _no_torch_file(archive: TorchArchive, shown: str) -> SourceError:
    others = [name for name in archive.members if name.lower().endswith(_OTHER_FORMATS)]
    if others:
        return SourceError(
            f"{shown} is a zip file of other files: {_listed(others)}.",
            hint="unpack it and give the path of the one that holds the weights.",
        )
    if not archive.members:
        return CorruptFileError(f"{shown} is an empty zip file.", hint=DAMAGED)
    return CorruptFileError(
        f"{shown} is a zip file without the data.pkl that torch.save writes; it holds "
        f"{_listed(list(archive.members))}.",
        hint="give the file of weights itself; if torch.save wrote this one, it is damaged.",
    )
