"""Content fingerprint of a checkpoint: equal for the same weights in any format or order."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.indexing import boxes
from flagscope.errors import UnknownDtypeError

SAMPLE_BYTES = 4096
_UNREADABLE = b"unreadable"
# Tensors whose samples are held at once: 12 MiB at most.
_TOGETHER = 1024
_BLOCK_BYTES = 2**25


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
    It distinguishes checkpoints of one training, since an optimiser step moves nearly every weight.
    It does not see a change confined to the part of a tensor that is not sampled, and does
    not protect against someone who wants two files to agree: for that, hash the files. The
    configuration is not part of it. A tensor of a type that cannot be read counts with its
    header alone.

    Examples
    --------
    >>> import torch
    >>> from flagscope.checkpoint import from_state_dict
    >>> state = {"weight": torch.eye(2), "bias": torch.zeros(2)}
    >>> turned = dict(reversed(state.items()))
    >>> before = checkpoint_fingerprint(from_state_dict(state))
    >>> before == checkpoint_fingerprint(from_state_dict(turned))
    True
    >>> state["bias"] = torch.ones(2)
    >>> before == checkpoint_fingerprint(from_state_dict(state))
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    infos = sorted(checkpoint.tensors.items())
    for begin in range(0, len(infos), _TOGETHER):
        group = infos[begin : begin + _TOGETHER]
        sampled = _sampled_together(checkpoint, [info for _, info in group])
        for name, info in group:
            # JSON quotes the name, so that no name can imitate the header of another tensor.
            digest.update(json.dumps([name, info.dtype, info.shape]).encode())
            if sampled is not None:
                digest.update(sampled[name])
            else:
                for piece in _samples(checkpoint, info):
                    digest.update(piece)
    return digest.hexdigest()


def header_digest(checkpoint: Checkpoint) -> str:
    """Digest of names, shapes and types, from the headers alone."""
    digest = hashlib.blake2b(digest_size=16)
    for name, info in sorted(checkpoint.tensors.items()):
        digest.update(json.dumps([name, info.dtype, info.shape]).encode())
    return digest.hexdigest()


def tensor_digest(checkpoint: Checkpoint, name: str, *, whole: bool) -> bytes:
    """Digest of one tensor: of samples of its data, as for a fingerprint, or of all of them.

    Parameters
    ----------
    checkpoint
        An open checkpoint.
    name
        Of the tensor.
    whole
        Whether all bytes count, read a block of rows at a time.

    Returns
    -------
    bytes
        16 bytes of BLAKE2b (RFC 7693).
    """
    info = checkpoint.tensors[name]
    digest = hashlib.blake2b(json.dumps([name, info.dtype, info.shape]).encode(), digest_size=16)
    for piece in _blocks(checkpoint, info) if whole else _samples(checkpoint, info):
        digest.update(piece)
    return digest.digest()


def _blocks(checkpoint: Checkpoint, info: TensorInfo) -> Iterator[bytes]:
    count = math.prod(info.shape)
    window = max(1, _BLOCK_BYTES // max(1, info.nbytes // max(1, count)))
    try:
        for start in range(0, count, window):
            for index in boxes(info.shape, start, min(start + window, count)):
                yield _row_major_bytes(checkpoint.read(info.name, index))
    except UnknownDtypeError:
        yield _UNREADABLE


def _windows(info: TensorInfo) -> list[tuple[int, int]]:
    """Elements of the row-major order that are sampled."""
    count = math.prod(info.shape)
    if count == 0:
        return []
    window = SAMPLE_BYTES // max(1, info.nbytes // count)
    if count <= 3 * window:
        return [(0, count)]
    return [(at, at + window) for at in (0, (count - window) // 2, count - window)]


def _sampled_together(
    checkpoint: Checkpoint, infos: Sequence[TensorInfo]
) -> dict[str, bytes] | None:
    """The samples of many tensors in a few requests; None where each is as well read alone."""
    if sys.byteorder != "little":
        return None
    runs = []
    for info in infos:
        size = getattr(getattr(torch, info.dtype, None), "itemsize", None)
        if size is not None:
            runs += [(info.name, a * size, b * size) for a, b in _windows(info)]
    parts = checkpoint.runs(runs)
    if parts is None:
        return None
    found = {info.name: b"" if hasattr(torch, info.dtype) else _UNREADABLE for info in infos}
    for (name, _, _), part in zip(runs, parts, strict=True):
        found[name] += part
    return found


def _samples(checkpoint: Checkpoint, info: TensorInfo) -> Iterator[bytes]:
    try:
        for start, stop in _windows(info):
            for index in boxes(info.shape, start, stop):
                yield _row_major_bytes(checkpoint.read(info.name, index))
    except UnknownDtypeError:
        yield _UNREADABLE


def _row_major_bytes(tensor: Tensor) -> bytes:
    # A clone, since a tensor of one element counts as contiguous with any stride.
    plain = tensor.cpu().resolve_conj().resolve_neg()
    flat = plain.clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
