"""Arrays in an HDF5 file: listed without reading them, checked before anything is unpacked.

Links to other files, data kept in other files and filters that are plugins are refused: a file is
read by itself, by nothing but the HDF5 library.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import Checksum, PlacedBytes
from flagscope.checkpoint.files.window import Window
from flagscope.checkpoint.indexing import Index
from flagscope.errors import CorruptFileError, FlagscopeError, MissingExtraError, SourceError

# Weights hardly shrink; what unpacks to more than these many bytes and times is a bomb.
_BOMB_BYTES = 2**28
_BOMB_RATIO = 200
# deflate, shuffle, fletcher32 and lzf, which h5py brings along.
_FILTERS = {1, 2, 3, 32000}
_NEVER = "do not use this file unless you know where it comes from."
_BROKEN = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Hdf5Array:
    """One array: its path in the file, shape, and PyTorch's name of its type."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class Hdf5Listing:
    """Contents of a file: arrays of numbers, what else was passed over, attributes of its root."""

    arrays: tuple[Hdf5Array, ...]
    passed_over: tuple[str, ...]
    attributes: dict[str, str]


class Hdf5Store:
    """An HDF5 file, or one that lies whole and unpacked inside another file.

    It is opened anew for each reading: nothing stays open, and copies go to other processes.

    Parameters
    ----------
    placed
        The file.
    member
        Where in it the HDF5 file lies, with its checksum; None for the whole file.
    """

    def __init__(self, placed: PlacedBytes, member: Checksum | None = None) -> None:
        self._placed, self._member, self._path = placed, member, placed.path

    def listing(self) -> Hdf5Listing:
        """All arrays, from the headers.

        Raises
        ------
        MissingExtraError
            If h5py is not installed.
        CorruptFileError
            If the file is damaged, refers to other files, or would unpack to far more than it is.
        SourceError
            If arrays are packed by a filter that is a plugin.
        """
        with self._opened() as file:
            arrays, passed_over = _walked(self._path, file)
            return Hdf5Listing(tuple(arrays), tuple(passed_over), _texts(file))

    def read(self, array: Hdf5Array, index: Index) -> Tensor:
        """One array or a slice of it.

        Raises
        ------
        CorruptFileError
            If it cannot be read.
        """
        with self._opened(whole=True) as file:
            dataset = file[array.path]
            values = np.asarray(dataset[index] if array.shape else dataset[()])
            if array.dtype == "bfloat16":
                raw = np.ascontiguousarray(values).reshape(-1).view(np.int16)
                return torch.from_numpy(raw).view(torch.bfloat16).reshape(values.shape)
            # A copy of its own, in this machine's order of bytes.
            return torch.from_numpy(np.array(values, values.dtype.newbyteorder("=")))

    @contextmanager
    def _opened(self, *, whole: bool = False) -> Iterator[Any]:
        """The file, open; `whole` has the member of an archive checked first."""
        h5py = _package()
        try:
            if whole and self._member is not None:
                self._placed.verify(self._member)
            with self._placed.opened() as raw:
                if self._member is None:
                    with h5py.File(self._path, "r", locking=False) as file:
                        yield file
                    self._placed.check()  # the library opened it again, by its name
                    return
                size = self._member.stop - self._member.begin
                window = io.BufferedReader(Window(raw, self._member.begin, size))
                with h5py.File(window, "r") as file:
                    yield file
        except FlagscopeError:
            raise
        except _BROKEN as error:
            reason = str(error).partition("\n")[0]
            raise CorruptFileError(
                f"{self._path} is not a whole HDF5 file: {reason}.", hint=DAMAGED
            ) from error


def _package() -> ModuleType:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            "Keras and HDF5 files are read with h5py, which is not installed.",
            hint="pip install 'flagscope[keras]'",
        ) from None
    return h5py


def _texts(file: Any) -> dict[str, str]:
    """Attributes of the root that are texts."""
    found = {}
    for name in file.attrs:
        try:
            value = file.attrs[name]
        except _BROKEN:
            continue  # of a type that h5py does not know
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            found[name] = value
    return found


def _walked(path: Path, file: Any) -> tuple[list[Hdf5Array], list[str]]:
    h5py = _package()
    arrays: list[Hdf5Array] = []
    passed_over: list[str] = []
    seen = {h5py.h5o.get_info(file.id).addr}
    groups = [("", file)]
    while groups:
        base, group = groups.pop()
        deeper = []
        for name in group:
            link, full = group.get(name, getlink=True), f"{base}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise CorruptFileError(
                    f"{path}: {full} leads to another file, {link.filename!r}.", hint=_NEVER
                )
            if not isinstance(link, h5py.HardLink):
                passed_over.append(full)
                continue
            entry = group[name]
            if isinstance(entry, h5py.Group):
                address = h5py.h5o.get_info(entry.id).addr
                if address not in seen:  # a group may lie in itself
                    seen.add(address)
                    deeper.append((full, entry))
                continue
            array = _array(path, full, entry) if isinstance(entry, h5py.Dataset) else None
            if array is None:
                passed_over.append(full)
            else:
                arrays.append(array)
        groups += reversed(deeper)
    return arrays, passed_over


def _array(path: Path, full: str, dataset: Any) -> Hdf5Array | None:
    """The array of a dataset, None if it is none of numbers."""
    shape, dtype = dataset.shape, _dtype(dataset)
    if shape is None or dtype is None:
        return None
    if dataset.is_virtual or dataset.external:
        raise CorruptFileError(f"{path}: the data of {full} lie in another file.", hint=_NEVER)
    array = Hdf5Array(full, tuple(int(n) for n in shape), *dtype)
    nbytes = math.prod(array.shape) * array.nbytes
    _check_filters(path, full, dataset)
    _check_storage(path, full, dataset, nbytes)
    return Hdf5Array(full, array.shape, array.dtype, nbytes)


def _dtype(dataset: Any) -> tuple[str, int] | None:
    """PyTorch's name of a type and the bytes of an element."""
    kind = dataset.dtype
    if kind.kind in "fiub":
        return kind.name, kind.itemsize
    if kind.kind == "V" and kind.fields is None and kind.itemsize == 2:
        said = dataset.attrs.get("dtype")
        said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        return ("bfloat16", 2) if said == "bfloat16" else None
    return None


def _check_filters(path: Path, full: str, dataset: Any) -> None:
    plan = dataset.id.get_create_plist()
    for number in range(plan.get_nfilters()):
        code = plan.get_filter(number)[0]
        if code not in _FILTERS:
            raise SourceError(
                f"{path}: {full} is packed by filter {code}, which is not read.",
                hint="save it again uncompressed, or with compression='gzip'.",
            )


def _check_storage(path: Path, full: str, dataset: Any, nbytes: int) -> None:
    """Refuse what was never written, and what unpacks to far more than it takes."""
    stored = dataset.id.get_storage_size()
    unpacked, whole = nbytes, stored == nbytes
    if dataset.chunks is not None:
        pairs = list(zip(dataset.shape, dataset.chunks, strict=True))
        count = math.prod(-(-size // chunk) for size, chunk in pairs)
        whole = dataset.id.get_num_chunks() == count or not nbytes
        unpacked = max(nbytes, math.prod(dataset.chunks) * dataset.dtype.itemsize)
    if unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * stored and (whole or stored):
        raise CorruptFileError(
            f"{path}: {full} would unpack from {stored} to {unpacked} bytes.", hint=_NEVER
        )
    if not whole:
        raise CorruptFileError(
            f"{path}: {full} should have {nbytes} bytes, and {stored} are there.", hint=DAMAGED
        )
