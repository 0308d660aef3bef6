"""A residual stream: its sub-blocks in the order of execution, their readers and writers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flagscope.arch.maps import LinearMap
from flagscope.arch.norm import Norm
from flagscope.arch.pair_side import Side
from flagscope.records import Attention


@dataclass(frozen=True)
class StreamMap:
    """A reader of the residual stream, or a writer to it.

    Parameters
    ----------
    label
        Such as ``layer.3.q``, ``layer.3.mlp.up``, ``layer.3.o``.
    role
        ``q``, ``k``, ``v``, ``up``, ``gate`` or ``compress`` (the down-projection of a latent
        space) reads, ``o`` and ``down`` write.
    joined
        All heads as one map: (heads · k, d) for a reader, (d, heads · k) for a writer.
    heads
        The map of the single heads, as in `HeadGroup`; None if it has no heads.
    norm
        For a reader, the norm of the stream before it, or None if it reads the bare stream. For a
        writer, the norm or layer scale directly after it, before the sum, if any.
    partner
        The map of the single heads that forms a circuit with `heads`: W_V for W_O, W_K for W_Q and
        vice versa. With grouped heads, one of the two has fewer.
    partner_norm
        The norm before or after it, as `norm`; None if it faces another stream.
    """

    label: str
    role: str
    joined: Side
    heads: LinearMap | None = None
    norm: Norm | None = None
    partner: LinearMap | None = None
    partner_norm: Norm | None = None


@dataclass(frozen=True)
class SubBlock:
    """One attention or MLP block of a layer: its readers of the stream and its writers to it.

    `position` is the order of execution within the stream; parallel sub-blocks share it.
    """

    stack: str
    layer: int
    kind: Literal["attention", "mlp"]
    attention: Attention | None
    position: int
    readers: tuple[StreamMap, ...]
    writers: tuple[StreamMap, ...]


@dataclass(frozen=True)
class Stream:
    """A residual stream of `d` dimensions with its sub-blocks, in the order of execution."""

    stack: str
    d: int
    blocks: tuple[SubBlock, ...]


def later_blocks(stream: Stream, window: int) -> Iterator[tuple[SubBlock, SubBlock]]:
    """Yield each block with those at a later position, at most `window` layers further.

    Examples
    --------
    >>> list(later_blocks(Stream("decoder", 8, ()), window=1))
    []
    """
    if window < 1:
        return
    for index, before in enumerate(stream.blocks):
        for after in stream.blocks[index + 1 :]:
            if after.layer > before.layer + window:
                break
            if after.position > before.position:
                yield before, after
