"""Reader of GGUF files: one tensor at a time is dequantised and put as its model had it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.files import DAMAGED, FileCheckpoint, checked_start
from flagscope.checkpoint.gguf_header import GgufTensor, gguf_header
from flagscope.checkpoint.gguf_names import Change, head_counts, model_config, naming
from flagscope.checkpoint.gguf_types import (
    block_sizes,
    can_dequantise,
    dequantised,
    grid_step,
    plain_dtype,
    type_name,
)
from flagscope.checkpoint.indexing import Index
from flagscope.errors import CorruptFileError, SourceError


class GgufFile(FileCheckpoint):
    """One .gguf file, with the names, orientation and config of the model it was made from.

    Quantised tensors come as float32, exactly as llama.cpp dequantises them; `step` gives the
    spacing of their grid, where it is uniform in a block or MXFP4's. The gain of an architecture
    whose converter added one to it is given without.

    Parameters
    ----------
    path
        The file.
    source
        What the user named, if not the path.
    config
        The model's configuration, in place of what the metadata tell.

    Raises
    ------
    MissingExtraError
        If the gguf package is not installed.
    MissingFileError
        If there is no such file.
    CorruptFileError
        If it is empty, truncated or not consistent.
    SourceError
        If it is one part of several, of another version, or of types that are not known.

    References
    ----------
    The GGUF specification, ggml-org/ggml, docs/gguf.md.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        checked_start(path)
        header = gguf_header(path, block_sizes())
        parts = header.metadata.get("split.count", 1)
        if parts not in (0, 1):
            raise SourceError(
                f"{path} is one of {parts} parts of a model.",
                hint="join them first: llama-gguf-split --merge FIRST_PART WHOLE.gguf",
            )
        architecture = header.metadata.get("general.architecture")
        names = naming(architecture)
        heads, kv_heads = head_counts(header.metadata, source=os.fspath(path)) if names else (1, 1)
        self._places: dict[str, GgufTensor] = {}
        self._changes: dict[str, Change] = {}
        entries = {}
        quantised: Counter[str] = Counter()
        for tensor in header.tensors:
            name = names.name(tensor.name) if names else tensor.name
            if name in entries:
                raise CorruptFileError(
                    f"{path} has two tensors for {name!r}.", hint="convert the model again."
                )
            change = names.change(tensor.name, heads, kv_heads) if names else None
            if change is not None:
                _check_change(path, tensor, change)
                self._changes[name] = change
            self._places[name] = tensor
            entries[name] = _entry(path, name, tensor, change)
            if entries[name].quantised:
                quantised[type_name(tensor.type)] += 1
        notes = [] if names else [
            f"the names of GGUF's architecture {architecture!r} are not known and kept as they are"
        ]  # fmt: skip
        if quantised:
            listed = ", ".join(f"{count} {kind}" for kind, count in quantised.most_common())
            notes.append(f"dequantised when read: {listed}")
        notes += _unknown_steps(self._places.values())
        made = model_config(header.metadata) if config is None else config
        super().__init__(path, entries, source=source, config=made or None, notes=notes)
        self._bytes = np.memmap(path, np.uint8, "r") if path.stat().st_size else None

    def _read(self, stored: str, index: Index) -> Tensor:
        return self._part(stored, index, step=False)

    def _step(self, name: str, index: Index) -> Tensor | None:
        stored = self._stored[name]
        if self._entries[stored].quantised is None or not _has_step(self._places[stored].type):
            return None
        return self._part(stored, index, step=True)

    def _part(self, stored: str, index: Index, *, step: bool) -> Tensor:
        change = self._changes.get(stored)
        place = self._places[stored]
        if change is None:
            return self._plain(place, index, step=step)
        whole = self._plain(place, tuple(slice(0, size) for size in place.shape), step=step)
        if step and change.kind == "plus-one":
            return whole[index]
        return change.undone(whole)[index]

    def _plain(self, place: GgufTensor, index: Index, *, step: bool) -> Tensor:
        """A part of a tensor as it lies in the file."""
        if self._bytes is None or place.offset + place.nbytes > len(self._bytes):
            raise CorruptFileError(
                f"tensor {place.name!r} of {self._path} lies outside the file.", hint=DAMAGED
            )
        raw = self._bytes[place.offset : place.offset + place.nbytes]
        dtype = plain_dtype(place.type)
        if dtype is not None:
            # NumPy has no bfloat16; integers of its width carry it.
            width = {"bfloat16": "int16"}.get(dtype, dtype)
            whole = raw.view(np.dtype(width).newbyteorder("<")).reshape(place.shape)
            part = np.array(whole[index], dtype=width, order="C", copy=True)
            return torch.from_numpy(part).view(getattr(torch, dtype))
        elements, size = block_sizes()[place.type]
        rows = raw.reshape(*place.shape[:-1], place.shape[-1] // elements * size)
        lead, last = index[:-1], index[-1]
        chosen = np.array(rows[lead], order="C", copy=True)
        if chosen.size == 0:
            empty = (*chosen.shape[:-1], place.shape[-1])
            return torch.zeros(empty, dtype=torch.float32)[..., last]
        values = grid_step(chosen, place.type) if step else dequantised(chosen, place.type)
        return torch.from_numpy(np.ascontiguousarray(values))[..., last]

    def _release(self) -> None:
        self._bytes = None


def _entry(path: Path, name: str, tensor: GgufTensor, change: Change | None) -> TensorInfo:
    shape = tensor.shape if change is None else change.shape(tensor.shape)
    dtype = plain_dtype(tensor.type)
    if dtype is not None:
        return TensorInfo(name, shape, dtype, tensor.nbytes, os.fspath(path))
    kind = type_name(tensor.type)
    if not can_dequantise(tensor.type):
        return TensorInfo(name, shape, kind, tensor.nbytes, os.fspath(path))
    count = int(np.prod(shape, dtype=np.int64))
    return TensorInfo(name, shape, "float32", 4 * count, os.fspath(path), kind)


def _check_change(path: Path, tensor: GgufTensor, change: Change) -> None:
    parts = {"rotary": 2 * change.heads, "thirds": 3 * change.heads}.get(change.kind, 1)
    if tensor.shape[0] % parts:
        raise CorruptFileError(
            f"{tensor.name!r} of {path} has {tensor.shape[0]} rows, which {change.heads} heads do "
            "not divide.",
            hint="its metadata belong to another model; convert it again.",
        )


def _has_step(kind: int) -> bool:
    size = block_sizes()[kind][1]
    return grid_step(np.zeros((1, size), np.uint8), kind) is not None


def _unknown_steps(tensors: Any) -> list[str]:
    kinds = {t.type for t in tensors if plain_dtype(t.type) is None and can_dequantise(t.type)}
    unknown = sorted(type_name(kind) for kind in kinds if not _has_step(kind))
    if not unknown:
        return []
    return [f"the rounding noise of {', '.join(unknown)} is not known and taken as float32's"]
