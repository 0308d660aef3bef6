"""Reader of the folders that torch.distributed.checkpoint writes (FSDP, torchtitan, Megatron)."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.distributed.metadata import (
    Chunk,
    ChunkedTensor,
    Contents,
    check_plain,
    folder_contents,
)
from flagscope.checkpoint.distributed.pieces import located_piece
from flagscope.checkpoint.dtypes import dtype_name
from flagscope.checkpoint.files.checks import DAMAGED, checked_start, require_files
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.groups.model_state import ModelState, model_state
from flagscope.checkpoint.indexing import Index, index_shape
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor
from flagscope.errors import CorruptFileError, SourceError

METADATA_NAME = ".metadata"
PIECES_SUFFIX = ".distcp"


class DistributedFolder(FileCheckpoint):
    """A folder of torch.distributed.checkpoint: tensors in pieces, which `.metadata` places.

    The entry that holds the model's state dict is found as `from_state_dict` finds it. Of a tensor
    only the pieces that a slice meets are read, and of those the rows that it crosses. Nothing is
    unpickled: the tables are read as data.

    Parameters
    ----------
    path
        The folder's `.metadata`.
    tensors
        Which group of tensors to read, where the folder holds several; see `open_checkpoint`.

    Raises
    ------
    MissingFileError
        If `.metadata` or a file of pieces is not there.
    UnsafeFileError
        If `.metadata` asks for anything but its own classes. None of it is run.
    CorruptFileError
        If it is inconsistent, or places pieces beyond the end of their file.
    SourceError
        If it was saved through an extension (compressed), or holds several groups of tensors, and
        none is known to be the model.
    InputError
        If there is no group `tensors`.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str | None = None,
        config: dict[str, Any] | None = None,
        tensors: str | None = None,
    ) -> None:
        checked_start(path)
        shown, table = os.fspath(path), PlacedBytes(path)
        with table.opened() as file:
            contents = folder_contents(file.read(), source=shown)
        chosen, found = _model(contents, source=os.fspath(path.parent), tensors=tensors)
        self._stored_tensors = {name: contents.tensors[full] for name, full in chosen.items()}
        self._full = chosen
        self._files = _files(path, self._stored_tensors)
        self._pieces: dict[Chunk, StoredTensor] = {}
        entries = {}
        for name, tensor in self._stored_tensors.items():
            check_plain(tensor, name, shown)
            file = path.parent / tensor.chunks[0].file if tensor.chunks else path
            nbytes = prod(tensor.shape) * tensor.dtype.itemsize
            entries[name] = TensorInfo(
                name, tensor.shape, dtype_name(tensor.dtype), nbytes, os.fspath(file)
            )
        super().__init__(
            path,
            entries,
            files=[table, *self._files.values()],
            source=source,
            config=config,
            notes=found.notes,
        )
        self.group, self._tensors_given = found.group, tensors

    def __reduce__(self) -> tuple[Any, ...]:
        opening = functools.partial(
            type(self), source=self._source, config=self._config, tensors=self._tensors_given
        )
        return opening, (self._path,)

    def _read(self, name: str, index: Index) -> Tensor:
        tensor = self._stored_tensors[name]
        parts = [(chunk, meeting) for chunk in tensor.chunks
                 if (meeting := _meeting(index, chunk)) is not None]  # fmt: skip
        if len(parts) == 1 and len(tensor.chunks) == 1:
            return self._part(name, tensor, *parts[0])
        spans = tuple(entry if isinstance(entry, slice) else slice(entry, entry + 1)
                      for entry in index)  # fmt: skip
        whole = torch.empty(index_shape(spans, tensor.shape), dtype=tensor.dtype)
        for chunk, meeting in parts:
            inside = tuple(_as_slice(entry) for entry in meeting)
            place = tuple(
                slice(entry.start + offset - span.start, entry.stop + offset - span.start)
                for entry, offset, span in zip(inside, chunk.offsets, spans, strict=True)
            )
            whole[place] = self._part(name, tensor, chunk, inside)
        return whole[tuple(0 if isinstance(entry, int) else slice(None) for entry in index)]

    def _part(self, name: str, tensor: ChunkedTensor, chunk: Chunk, index: Index) -> Tensor:
        """A slice of one chunk, counted from the chunk's first element."""
        try:
            piece = self._pieces.get(chunk)
            if piece is None:
                piece = located_piece(
                    self._files[chunk.file], chunk.start, chunk.length, tensor=name
                )
                if (piece.dtype, piece.shape) != (tensor.dtype, chunk.sizes):
                    raise CorruptFileError(
                        f"{self._path} says that a piece of {self._full[name]!r} has type "
                        f"{dtype_name(tensor.dtype)} and shape {chunk.sizes}; {chunk.file} has "
                        f"{dtype_name(piece.dtype)} and {piece.shape}.",
                        hint="the files are of different checkpoints; fetch all of them again.",
                    )
                self._pieces[chunk] = piece
            return piece.read(self._files[chunk.file], index)
        except OSError as error:
            raise CorruptFileError(
                f"cannot read tensor {name!r} of {self._path.parent}: {error}.", hint=DAMAGED
            ) from error


def _model(
    contents: Contents, *, source: str, tensors: str | None
) -> tuple[dict[str, str], ModelState]:
    """Names of the model's tensors, each with its full name, and how they were chosen."""
    # Tensors that stand for those of the files: they have the shapes, and take no memory.
    nested: dict[str | int, Any] = {}
    full_names: dict[int, str] = {}
    for full, path in contents.paths.items():
        level: Any = nested
        for key in path[:-1]:
            below = level.setdefault(key, {})
            if not isinstance(below, dict):
                raise CorruptFileError(
                    f"{source} is inconsistent: {full!r} lies inside a tensor.", hint=DAMAGED
                )
            level = below
        value = None
        if full in contents.tensors:
            tensor = contents.tensors[full]
            value = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
            full_names[id(value)] = full
        if path[-1] in level:
            raise CorruptFileError(
                f"{source} is inconsistent: two entries lie at {full!r}.", hint=DAMAGED
            )
        level[path[-1]] = value
    found = model_state(nested, source=source, error=CorruptFileError, tensors=tensors)
    return {name: full_names[id(value)] for name, value in found.state.items()}, found


def _files(path: Path, tensors: Mapping[str, ChunkedTensor]) -> dict[str, PlacedBytes]:
    """The files of pieces, each as long as its pieces need."""
    ends: dict[str, int] = {}
    for tensor in tensors.values():
        for chunk in tensor.chunks:
            ends[chunk.file] = max(ends.get(chunk.file, 0), chunk.start + chunk.length)
    require_files(path, ends)
    files = {file: PlacedBytes(path.parent / file) for file in ends}
    for file, end in ends.items():
        if end:
            checked_start(path.parent / file)
        if end > files[file].size:
            raise CorruptFileError(
                f"{path} places tensors up to byte {end} of {file}, which has {files[file].size}.",
                hint=DAMAGED,
            )
    return files


def refuse_piece(path: Path) -> None:
    """Say what a file of pieces is and what to name instead.

    Raises
    ------
    SourceError
        Always.
    """
    raise SourceError(
        f"{path} is one of the files of a torch.distributed.checkpoint folder.",
        hint=f"name the folder: {path.parent}.",
    )


def _meeting(index: Index, chunk: Chunk) -> Index | None:
    """The part of a slice that lies in a chunk, counted from its first element; None if none."""
    inside: list[slice | int] = []
    for entry, offset, size in zip(index, chunk.offsets, chunk.sizes, strict=True):
        if isinstance(entry, int):
            if not offset <= entry < offset + size:
                return None
            inside.append(entry - offset)
            continue
        start, stop = max(entry.start - offset, 0), min(entry.stop - offset, size)
        if start >= stop:
            return None
        inside.append(slice(start, stop))
    return tuple(inside)


def _as_slice(entry: slice | int) -> slice:
    return slice(entry, entry + 1) if isinstance(entry, int) else entry
