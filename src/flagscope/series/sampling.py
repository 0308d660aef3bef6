"""A few numbers of each tensor of a checkpoint, the same ones in every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.indexing import boxes
from flagscope.errors import CorruptFileError, UnknownDtypeError

SHARE = 0.004
"""Share of the elements that is read: with a header of half a per cent less than 1 % of a file."""
_LEAST = 2048  # elements: places must not hang on the type that is stored
_SPARE = 0.0025  # of a remote file, read for nothing where that saves a request
_MOST = 1024  # elements of one tensor
_VECTOR = 0.25  # of a vector's share in that of a matrix: correlations are those of matrices
_WINDOW = 16  # elements next to each other, at least


@dataclass(frozen=True)
class Samples:
    """Numbers of a checkpoint at places that depend on names and shapes alone.

    Attributes
    ----------
    values
        float32 by tensor, float64 where that or an integer type is stored; empty for a tensor of a
        type that cannot be read.
    bytes_read
        Bytes of the elements, without the header.
    """

    values: Mapping[str, NDArray[np.floating]]
    bytes_read: int


def sampled(checkpoint: Checkpoint) -> Samples:
    """Read samples of all tensors that are weights.

    At most 0.4 % of the elements, or 2,048 if that is more, spread over the tensors evenly, a
    vector with a quarter of a matrix's share, and at most 1,024 of one. Numbers are as stored,
    without scales of quantised formats.

    Raises
    ------
    CorruptFileError, SourceError
        If the data cannot be read.
    """
    infos = [
        info
        for name, info in sorted(checkpoint.tensors.items())
        if name not in checkpoint.auxiliary
    ]
    sizes = {info.name: math.prod(info.shape) for info in infos}
    weights = {info.name: 1.0 if len(info.shape) > 1 else _VECTOR for info in infos}
    counts = _shared_out(sizes, weights, max(int(SHARE * sum(sizes.values())), _LEAST))
    wanted = {info.name: _windows(sizes[info.name], counts[info.name]) for info in infos}
    values = _together(checkpoint, infos, wanted)
    read = 0
    for info in infos:
        if values is None or info.name not in values:
            one = _alone(checkpoint, info, wanted[info.name])
            values = {**(values or {}), info.name: one}
        read += values[info.name].size * info.nbytes // max(1, sizes[info.name])
    return Samples(values or {}, read)


def _shared_out(
    sizes: Mapping[str, int], weights: Mapping[str, float], budget: int
) -> dict[str, int]:
    """Elements of each tensor by its weight, and all of those that have fewer."""
    counts: dict[str, int] = {}
    open_ = sorted(sizes, key=lambda name: (sizes[name] / weights[name], name))
    left, heavy = budget, sum(weights.values())
    for name in open_:
        counts[name] = min(sizes[name], _MOST, int(left * weights[name] / heavy))
        left, heavy = left - counts[name], heavy - weights[name]
    return counts


def _windows(size: int, count: int) -> list[tuple[int, int]]:
    """Spans of the row-major order, evenly apart, that hold `count` elements together."""
    if count <= 0:
        return []
    if count >= size:
        return [(0, size)]
    pieces = max(1, min(4, count // _WINDOW))
    length = count // pieces
    starts = np.linspace(0, size - length, pieces + 2)[1:-1].astype(int)
    # An odd shift, so that spans do not begin at the same place of every row.
    return [(int(at), int(at) + length) for at in np.minimum(starts + 1, size - length)]


def _together(
    checkpoint: Checkpoint, infos: list[TensorInfo], wanted: Mapping[str, list[tuple[int, int]]]
) -> dict[str, NDArray[np.floating]] | None:
    """Samples in a few requests, where the reader of remote files gives them so."""
    import sys

    import torch

    if sys.byteorder != "little":
        return None
    kinds = {
        info.name: kind
        for info in infos
        if isinstance(kind := getattr(torch, info.dtype, None), torch.dtype) and wanted[info.name]
    }
    runs = [
        (name, start * kind.itemsize, stop * kind.itemsize)
        for name, kind in kinds.items()
        for start, stop in wanted[name]
    ]
    parts = checkpoint.runs(runs, spare=_SPARE)
    if parts is None:
        return None
    data: dict[str, bytearray] = {name: bytearray() for name in kinds}
    for (name, _, _), part in zip(runs, parts, strict=True):
        data[name] += part
    return {name: _numbers(torch.frombuffer(data[name], dtype=kinds[name])) for name in kinds}


def _alone(
    checkpoint: Checkpoint, info: TensorInfo, spans: list[tuple[int, int]]
) -> NDArray[np.floating]:
    try:
        pieces = list(_pieces(checkpoint, info, spans))
    except UnknownDtypeError:
        pieces = []
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)


def _pieces(
    checkpoint: Checkpoint, info: TensorInfo, spans: list[tuple[int, int]]
) -> Iterator[NDArray[np.floating]]:
    for start, stop in spans:
        for index in boxes(info.shape, start, stop):
            yield _numbers(checkpoint.read(info.name, index).reshape(-1))


def _numbers(tensor: object) -> NDArray[np.floating]:
    import torch

    assert isinstance(tensor, torch.Tensor)
    plain = tensor.real if tensor.is_complex() else tensor
    try:
        wide = plain.dtype == torch.float64 or not plain.is_floating_point()
        return plain.cpu().to(torch.float64 if wide else torch.float32).numpy()
    except (RuntimeError, TypeError) as error:
        raise CorruptFileError(
            f"numbers of type {tensor.dtype} cannot be read.", hint="save it in another type."
        ) from error
