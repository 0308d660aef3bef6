"""Folders of torch.distributed.checkpoint as several processes write them, from one process."""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

Boxes = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]


def grid(shape: Sequence[int], cuts: Sequence[int]) -> Boxes:
    """Boxes of a grid as DTensor cuts it: pieces of ceil(n / parts), the last ones smaller."""
    axes = []
    for size, parts in zip(shape, cuts, strict=True):
        step = max(-(-size // parts), 1)
        axes.append([(at, min(step, size - at)) for at in range(0, size, step)])
    return [tuple(zip(*box, strict=True)) for box in itertools.product(*axes)]


def write_shards(
    folder: Path,
    state: Mapping[str, Tensor],
    boxes: Mapping[str, Boxes],
    *,
    files: int = 3,
    paths: Mapping[str, tuple] | None = None,
    edit: Callable[[Metadata], None] = lambda metadata: None,
) -> Path:
    """Write tensors in pieces over several files, with torch's own classes for the table."""
    tables, stored = {}, {}
    streams = [io.BytesIO() for _ in range(files)]
    number = 0
    for name, tensor in state.items():
        chunks = []
        for offsets, sizes in boxes.get(name, [((0,) * tensor.ndim, tuple(tensor.shape))]):
            part = tensor[tuple(slice(a, a + n) for a, n in zip(offsets, sizes, strict=True))]
            file = number % files
            number += 1
            start = streams[file].tell()
            piece = io.BytesIO()
            # As the writer does where a part would drag its whole storage along.
            torch.save(part.clone(), piece)
            streams[file].write(piece.getvalue())
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            stored[MetadataIndex(name, offsets)] = _StorageInfo(
                f"__{file}_0.distcp", start, len(piece.getvalue())
            )
        properties = TensorProperties(dtype=tensor.dtype)
        tables[name] = TensorStorageMetadata(properties, tensor.shape, chunks)
    tables["step"] = BytesStorageMetadata()
    metadata = Metadata(tables, planner_data=paths, storage_data=stored)
    edit(metadata)
    for file, stream in enumerate(streams):
        (folder / f"__{file}_0.distcp").write_bytes(stream.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder
