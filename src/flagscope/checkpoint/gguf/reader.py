"""Reader of GGUF files: one tensor at a time is dequantised and put as its model had it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.files.checks import checked_start
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.gguf.header import GgufTensor
from flagscope.checkpoint.gguf.names import head_counts, model_config, naming
from flagscope.checkpoint.gguf.split import gguf_parts
from flagscope.checkpoint.gguf.tensors import Piece, pieces
from flagscope.checkpoint.gguf.types import (
    block_sizes,
    can_dequantise,
    dequantised,
    grid_step,
    plain_dtype,
    type_name,
)
from flagscope.checkpoint.indexing import Index, covering_span
from flagscope.errors import CorruptFileError


class GgufFile(FileCheckpoint):
    """One .gguf file, or all of a split model's, as the model that it was made from.

    Names, orientation and config are the model's; experts come one by one.
    Quantised tensors come as float32, exactly as llama.cpp dequantises them; `step` gives the
    spacing of their grid, where it is uniform in a block or MXFP4's. The gain of an architecture
    whose converter added one to it is given without.

    Parameters
    ----------
    path
        The file, or any of the parts NAME-00001-of-0000N.gguf.
    config
        The model's configuration, in place of what the metadata say.

    Raises
    ------
    MissingExtraError
        If the gguf package is not installed.
    MissingFileError
        If parts of the model are missing.
    SourceError
        If it is of another version, or of types that are not known.

    References
    ----------
    The GGUF specification, ggml-org/ggml, docs/gguf.md.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        checked_start(path)
        self._files, header = gguf_parts(path, block_sizes())
        architecture = header.metadata.get("general.architecture")
        names = naming(header.metadata)
        heads, kv_heads = head_counts(header.metadata, source=os.fspath(path)) if names else (1, 1)
        self._pieces: dict[str, Piece] = {}
        entries = {}
        quantised: Counter[str] = Counter()
        for piece in pieces(path, header.tensors, names, heads, kv_heads):
            if piece.name in entries:
                raise CorruptFileError(
                    f"{path} has two tensors for {piece.name!r}.", hint="convert the model again."
                )
            self._pieces[piece.name] = piece
            entries[piece.name] = entry = _entry(self._files, piece)
            if entry.quantised:
                quantised[entry.quantised] += 1
        notes = [] if names else [
            f"the names of GGUF's architecture {architecture!r} are not known and kept as they are"
        ]  # fmt: skip
        if quantised:
            listed = ", ".join(f"{count} {kind}" for kind, count in quantised.most_common())
            notes.append(f"dequantised when read: {listed}")
        notes += _unknown_steps(header.tensors)
        made = model_config(header.metadata) if config is None else config
        super().__init__(
            path, entries, files=self._files, source=source, config=made or None, notes=notes
        )

    def _read(self, name: str, index: Index) -> Tensor:
        return self._part(name, index, step=False)

    def _step(self, name: str, index: Index) -> Tensor | None:
        kinds = [place.type for place in self._pieces[name].places]
        known = all(plain_dtype(kind) is not None or _has_step(kind) for kind in kinds)
        if self._tensors[name].quantised is None or not known:
            return None
        return self._part(name, index, step=True)

    def _part(self, name: str, index: Index, *, step: bool) -> Tensor:
        piece = self._pieces[name]
        if piece.change is None:
            return self._plain(piece.places[0], index, step=step)
        wholes = [
            self._plain(place, tuple(slice(0, size) for size in place.shape), step=step)
            for place in piece.places
        ]
        if step and piece.change.kind == "plus-one":
            return wholes[0][index]
        return piece.change.undone(*wholes)[index]

    def _plain(self, place: GgufTensor, index: Index, *, step: bool) -> Tensor:
        """A part of a tensor as it lies in the file."""
        dtype = plain_dtype(place.type)
        if dtype is not None and step:
            # Half of a map whose other half is quantised, by which its own rounding is nothing.
            return torch.zeros(place.shape, dtype=torch.float32)[index]
        if dtype is not None:
            # NumPy has no bfloat16; integers of its width carry it.
            width = np.dtype({"bfloat16": "int16"}.get(dtype, dtype))
            part = self._run(place, place.shape, index, width.newbyteorder("<"))
            native = np.array(part, dtype=width, order="C", copy=True)
            return torch.from_numpy(native).view(getattr(torch, dtype))
        elements, size = block_sizes()[place.type]
        stored = (*place.shape[:-1], place.shape[-1] // elements * size)
        lead, last = index[:-1], index[-1]
        part = self._run(place, stored, (*lead, slice(0, stored[-1])), np.dtype(np.uint8))
        chosen = np.ascontiguousarray(part)
        if chosen.size == 0:
            empty = (*chosen.shape[:-1], place.shape[-1])
            return torch.zeros(empty, dtype=torch.float32)[..., last]
        values = grid_step(chosen, place.type) if step else dequantised(chosen, place.type)
        return torch.from_numpy(np.ascontiguousarray(values))[..., last]

    def _run(
        self, place: GgufTensor, shape: tuple[int, ...], index: Index, dtype: np.dtype[Any]
    ) -> np.ndarray[Any, Any]:
        """A slice of a tensor's elements; the run of bytes that covers it is read."""
        start, stop, block, rest = covering_span(index, shape)
        begin, size = place.offset, dtype.itemsize
        with self._reading(place.name):
            raw = self._files[place.part].read(begin + start * size, begin + stop * size)
        return raw.numpy().view(dtype).reshape(block)[rest]


def _entry(files: Sequence[PlacedBytes], piece: Piece) -> TensorInfo:
    file = os.fspath(files[piece.places[0].part].path)
    kinds = list(dict.fromkeys(place.type for place in piece.places))
    blocks = [kind for kind in kinds if plain_dtype(kind) is None]
    strange = [kind for kind in blocks if not can_dequantise(kind)]
    nbytes = sum(place.nbytes for place in piece.places)
    if strange:
        return TensorInfo(piece.name, piece.shape, type_name(strange[0]), nbytes, file)
    dtype = plain_dtype(kinds[0])
    if len(kinds) == 1 and dtype is not None:
        return TensorInfo(piece.name, piece.shape, dtype, nbytes, file)
    quantised = type_name(blocks[0]) if blocks else None
    count = prod(piece.shape)
    return TensorInfo(piece.name, piece.shape, "float32", 4 * count, file, quantised)


def _has_step(kind: int) -> bool:
    size = block_sizes()[kind][1]
    return grid_step(np.zeros((1, size), np.uint8), kind) is not None


def _unknown_steps(tensors: Any) -> list[str]:
    kinds = {t.type for t in tensors if plain_dtype(t.type) is None and can_dequantise(t.type)}
    unknown = sorted(type_name(kind) for kind in kinds if not _has_step(kind))
    if not unknown:
        return []
    return [f"the rounding noise of {', '.join(unknown)} is not known and taken as float32's"]
