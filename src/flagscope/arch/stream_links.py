"""Links along a residual stream, from the heads of a block to those of later blocks."""

from __future__ import annotations

from dataclasses import dataclass

from flagscope.arch.stream import Stream, StreamMap, later_blocks
from flagscope.records import Attention


@dataclass(frozen=True)
class LinkGroup:
    """The links from each writing head of a block to each reading head of a later block.

    `write` has the role o, `read` q, k or v; `attention` is that of the reading block.
    """

    stack: str
    attention: Attention | None
    name: str
    write: StreamMap
    read: StreamMap
    layer_from: int
    layer_to: int


def head_links(stream: Stream, *, window: int) -> tuple[LinkGroup, ...]:
    """Link the head outputs of each block with the queries, keys and values of later blocks.

    Like `residual_pairs`, for the writers and readers that have heads.

    References
    ----------
    Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021): Q-, K- and
    V-composition.

    Examples
    --------
    >>> head_links(Stream("decoder", 8, ()), window=1)
    ()
    """
    return tuple(
        LinkGroup(
            stack=stream.stack, attention=after.attention, name=f"{write.label}-{read.label}",
            write=write, read=read, layer_from=before.layer, layer_to=after.layer,
        )
        for before, after in later_blocks(stream, window)
        for write in before.writers if write.heads is not None
        for read in after.readers if read.heads is not None
    )  # fmt: skip
