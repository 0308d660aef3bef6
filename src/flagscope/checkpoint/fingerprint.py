"""A digest by which two readings of the same weights know each other."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flagscope.checkpoint.indexing import Index
from flagscope.errors import UnknownDtypeError

if TYPE_CHECKING:
    from flagscope.checkpoint.base import Checkpoint

SAMPLE_BYTES = 4096


def checkpoint_fingerprint(checkpoint: Checkpoint) -> str:
    """Digest of a checkpoint's names, shapes, data types and samples of its data.

    The same weights give the same digest from every format, sharded or not, and in any order.
    Of each tensor 4 KiB are read at the start, in the middle and at the end of its row-major
    elements, or all of them if there are no more than that.

    Parameters
    ----------
    checkpoint
        An open checkpoint.

    Returns
    -------
    str
        32 hexadecimal digits of BLAKE2b (RFC 7693).

    Notes
    -----
    It tells checkpoints of one training apart, since an optimiser step moves nearly every weight.
    It does not see a change confined to the part of a tensor that is not sampled, and is no
    protection against someone who wants two files to agree: for that, hash the files. The
    configuration is not part of it. A tensor of a type that cannot be read counts with its
    header alone.

    Examples
    --------
    >>> import torch
    >>> from flagscope.checkpoint import from_state_dict
    >>> state = {"weight": torch.eye(2), "bias": torch.zeros(2)}
    >>> turned = dict(reversed(state.items()))
    >>> from_state_dict(state).fingerprint() == from_state_dict(turned).fingerprint()
    True
    >>> state["bias"] = torch.ones(2)
    >>> from_state_dict(state).fingerprint() == from_state_dict(turned).fingerprint()
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, info in sorted(checkpoint.tensors.items()):
        # JSON quotes the name, so that no name can imitate the header of another tensor.
        digest.update(json.dumps([name, info.dtype, info.shape]).encode())
        try:
            for piece in _samples(checkpoint, name, info.shape, info.nbytes):
                digest.update(_row_major_bytes(piece))
        except UnknownDtypeError:
            digest.update(b"unreadable")
    return digest.hexdigest()


def _samples(
    checkpoint: Checkpoint, name: str, shape: tuple[int, ...], nbytes: int
) -> Iterator[Tensor]:
    count = math.prod(shape)
    if count == 0:
        return
    window = SAMPLE_BYTES // max(1, nbytes // count)
    if count <= 3 * window:
        yield checkpoint.read(name)
        return
    middle = (count - window) // 2
    for start in (0, middle, count - window):
        for index in _boxes(shape, start, start + window):
            yield checkpoint.read(name, index)


def _boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Index]:
    """Indices that together select elements start … stop of the row-major order, in that order.

    At most two boxes an axis and one more, none of which holds an element outside the range.
    """
    if len(shape) == 1:
        yield (slice(start, stop),)
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row
    if first > last:  # the range lies inside one row
        yield from _inside(shape, last, start, stop, row)
        return
    if start < first * row:
        yield from _inside(shape, first - 1, start, first * row, row)
    if first < last:
        yield (slice(first, last),)
    if last * row < stop:
        yield from _inside(shape, last, last * row, stop, row)


def _inside(
    shape: tuple[int, ...], position: int, start: int, stop: int, row: int
) -> Iterator[Index]:
    for rest in _boxes(shape[1:], start - position * row, stop - position * row):
        yield (position, *rest)


def _row_major_bytes(tensor: Tensor) -> bytes:
    # A clone, since a tensor of one element counts as contiguous with any stride.
    plain = tensor.cpu().resolve_conj().resolve_neg()
    flat = plain.clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
