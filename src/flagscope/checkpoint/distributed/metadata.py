"""The `.metadata` of a torch.distributed.checkpoint folder: where each piece of a tensor is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from flagscope.checkpoint.dtypes import dtype_name
from flagscope.checkpoint.files.checks import DAMAGED, is_plain_name
from flagscope.checkpoint.pickle.inert import inert_value
from flagscope.checkpoint.pickle.records import Global, StandIn
from flagscope.checkpoint.pickle.tensors import known_dtype
from flagscope.errors import CorruptFileError, SourceError

_METADATA = "torch.distributed.checkpoint.metadata."
# The classes of torch 1.13 to 2.13, and the places that they had before.
_RECORDS = {
    *(_METADATA + name for name in (
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata",
        "ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING", "StorageMeta",
    )),
    "torch.distributed._shard.sharded_tensor.metadata.TensorProperties",
    "torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.distributed.checkpoint.filesystem._StoragePrefix",
    *("torch.Size", "torch.serialization._get_layout", "collections.OrderedDict"),
}  # fmt: skip
# What names the folder that was saved to, which is not looked at.
_PATHS = ("pathlib.", "pathlib._local.")
# Without the planner's table of names, trainers' optimizers are known by how their names begin.
_OPTIMIZER = "optimizer"
_LARGEST = 2**62
# Boxes that form no grid are compared one with another: so many take about a second.
_MOST_IRREGULAR = 10_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor, and where it is stored.

    Attributes
    ----------
    offsets, sizes
        Its first element and its shape.
    file
        Name of the file in the folder.
    start, length
        Its bytes in that file, which are a file of torch.save.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class ChunkedTensor:
    """A tensor whose chunks cover it without overlap."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    transformed: bool


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of a folder.

    Attributes
    ----------
    tensors
        By full name.
    paths
        Of every entry by full name: the keys that lead to it in the saved object.
    """

    tensors: Mapping[str, ChunkedTensor]
    paths: Mapping[str, tuple[str | int, ...]]


def folder_contents(pickled: bytes, *, source: str) -> Contents:
    """Contents of the `.metadata` of a folder; nothing that it pickles is run.

    Parameters
    ----------
    pickled
        The file's bytes.
    source
        Its name, for the messages.

    Raises
    ------
    CorruptFileError
        If it is truncated or inconsistent: chunks that overlap, leave holes or lie outside their
        tensor, or are stored nowhere or twice in the same place.
    UnsafeFileError
        If it asks for more than its own classes.

    References
    ----------
    torch/distributed/checkpoint/metadata.py, filesystem.py and default_planner.py of PyTorch.
    """
    metadata = inert_value(pickled, allowed=_is_allowed, source=source)
    table = _field(metadata, "state_dict_metadata")
    stored = _field(metadata, "storage_data")
    planned = _field(metadata, "planner_data")
    if not isinstance(table, dict) or not isinstance(stored, dict):
        raise _corrupt(source, "it has no table of tensors, or none of where they are stored")
    places = _places(stored, source)
    tensors = {
        name: tensor
        for name, entry in table.items()
        if (tensor := _tensor(name, entry, places, source)) is not None
    }
    _check_apart(tensors, source)
    paths = {str(name): _path(str(name), planned) for name in table}
    return Contents(tensors, paths)


def _is_allowed(name: str) -> bool:
    if name in _RECORDS or name.startswith(_PATHS):
        return True
    module, _, attribute = name.rpartition(".")
    return known_dtype(Global(module, attribute)) is not None


def _field(record: Any, name: str) -> Any:
    """An attribute that a record was given, None without it."""
    state = record.state if isinstance(record, StandIn) else None
    return state.get(name) if isinstance(state, dict) else None


def _places(stored: Mapping[Any, Any], source: str) -> dict[tuple[Any, Any], tuple[Any, ...]]:
    """File, start, length and transformation by full name and offsets of the chunk."""
    places = {}
    for index, info in stored.items():
        offset = _field(index, "offset")
        key = (_field(index, "fqn"), None if offset is None else _counts(offset))
        start, length = _field(info, "offset"), _field(info, "length")
        file = _field(info, "relative_path")
        if not isinstance(key[0], str) or (offset is not None and key[1] is None):
            raise _corrupt(source, "it places what has no name")
        if not isinstance(file, str) or not is_plain_name(file):
            raise CorruptFileError(
                f"{source} places {key[0]!r} in {str(file)[:100]!r}, which is no file of its "
                "folder.",
                hint="do not use this checkpoint unless you know where it comes from.",
            )
        if not _is_count(start) or not _is_count(length):
            raise _corrupt(source, f"the place of {key[0]!r} is not told")
        places[key] = (file, start, length, bool(_field(info, "transform_descriptors")))
    return places


def _tensor(
    name: Any, entry: Any, places: Mapping[tuple[Any, Any], tuple[Any, ...]], source: str
) -> ChunkedTensor | None:
    """A tensor with its chunks; None for what is not a tensor."""
    if not isinstance(name, str) or not isinstance(entry, StandIn):
        raise _corrupt(source, "an entry has no name or no description")
    if not entry.name.endswith(".TensorStorageMetadata"):
        return None
    shape, dtype = _counts(_field(entry, "size")), _dtype(_field(entry, "properties"))
    described = _field(entry, "chunks")
    if shape is None or dtype is None or not isinstance(described, list):
        raise _corrupt(source, f"the type, shape or chunks of {name!r} are not told")
    boxes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for chunk in described:
        offsets, sizes = _counts(_field(chunk, "offsets")), _counts(_field(chunk, "sizes"))
        if offsets is None or sizes is None or not len(offsets) == len(sizes) == len(shape):
            raise _corrupt(source, f"a chunk of {name!r} does not have the axes of its tensor")
        if any(offset + size > extent for offset, size, extent
               in zip(offsets, sizes, shape, strict=True)):  # fmt: skip
            raise _corrupt(source, f"a chunk of {name!r} lies outside its tensor")
        if prod(sizes) and boxes.setdefault(offsets, sizes) != sizes:
            raise _corrupt(source, f"chunks of {name!r} overlap")
    if not _covers(boxes, shape):
        raise _corrupt(source, f"the chunks of {name!r} overlap or leave holes")
    chunks, transformed = [], False
    for offsets, sizes in boxes.items():
        place = places.get((name, offsets))
        if place is None and not any(offsets):
            place = places.get((name, None))
        if place is None:
            raise _corrupt(source, f"a chunk of {name!r} is stored nowhere")
        file, start, length, packed = place
        transformed |= packed
        if not packed and prod(sizes) * dtype.itemsize > length:
            raise _corrupt(source, f"a chunk of {name!r} is larger than what is stored of it")
        chunks.append(Chunk(offsets, sizes, file, start, length))
    return ChunkedTensor(dtype, shape, tuple(chunks), transformed)


def _covers(boxes: Mapping[tuple[int, ...], tuple[int, ...]], shape: tuple[int, ...]) -> bool:
    """Whether boxes that lie inside a shape cover it without overlap."""
    if sum(map(prod, boxes.values())) != prod(shape):
        return False
    if len(boxes) < 2:
        return True
    # Shards of a mesh form a grid: each axis is cut at the same places everywhere.
    cuts = [sorted({offsets[axis] for offsets in boxes}) for axis in range(len(shape))]
    ends = [dict(zip(cut, [*cut[1:], size], strict=True))
            for cut, size in zip(cuts, shape, strict=True)]  # fmt: skip
    if all(offsets[axis] + sizes[axis] == ends[axis][offsets[axis]]
           for offsets, sizes in boxes.items() for axis in range(len(shape))):  # fmt: skip
        return True
    if len(boxes) > _MOST_IRREGULAR:
        return False
    # The volumes add up, so that boxes without overlap leave no hole.
    starts = np.array(list(boxes))
    stops = starts + np.array(list(boxes.values()))
    return all(
        np.count_nonzero(((starts < stop) & (stops > start)).all(axis=1)) == 1
        for start, stop in zip(starts, stops, strict=True)
    )


def _check_apart(tensors: Mapping[str, ChunkedTensor], source: str) -> None:
    """Refuse chunks that share bytes, by which a small folder could stand for a huge tensor."""
    last: tuple[str, int] = ("", 0)
    for file, start, stop in sorted(
        (chunk.file, chunk.start, chunk.start + chunk.length)
        for tensor in tensors.values() for chunk in tensor.chunks
    ):  # fmt: skip
        if file == last[0] and start < last[1]:
            raise _corrupt(source, f"chunks share bytes of {file}")
        last = file, stop


def _path(name: str, planned: Any) -> tuple[str | int, ...]:
    """The keys that lead to an entry, by the planner's table or by its name."""
    path = planned.get(name) if isinstance(planned, dict) else None
    if isinstance(path, tuple) and path and all(isinstance(key, (str, int)) for key in path):
        return path
    group, dot, rest = name.partition(".")
    return (group, rest) if dot and group == _OPTIMIZER else (name,)


def _dtype(properties: Any) -> torch.dtype | None:
    """Type in a tensor's properties, whose state is a tuple that begins with it."""
    state = properties.state if isinstance(properties, StandIn) else None
    return known_dtype(state[0]) if isinstance(state, tuple) and state else None


def _counts(size: Any) -> tuple[int, ...] | None:
    """The numbers of a torch.Size; None if it is none."""
    if isinstance(size, StandIn) and size.name == "torch.Size":
        size = size.arguments[0] if size.arguments else ()
    if not isinstance(size, (tuple, list)) or not all(map(_is_count, size)):
        return None
    return tuple(size)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _corrupt(source: str, reason: str) -> CorruptFileError:
    return CorruptFileError(f"{source} is inconsistent: {reason}.", hint=DAMAGED)


def check_plain(tensor: ChunkedTensor, name: str, source: str) -> None:
    """Refuse a tensor whose bytes were transformed (compressed, encrypted) when they were saved.

    Raises
    ------
    SourceError
        If they were.
    """
    if tensor.transformed:
        raise SourceError(
            f"{source}: tensor {name!r} ({dtype_name(tensor.dtype)}) was saved through an "
            "extension, such as compression, which is not read.",
            hint="load it with torch.distributed.checkpoint and save it without extensions.",
        )
