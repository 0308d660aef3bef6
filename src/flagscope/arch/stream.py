"""Pairs and links along a residual stream, from writers to later readers."""

from __future__ import annotations

from collections.abc import Iterator

from flagscope.arch.graph import (
    LinkGroup,
    Member,
    PairGroup,
    Stream,
    StreamMap,
    SubBlock,
)

__all__ = ["LinkGroup", "Stream", "StreamMap", "SubBlock", "head_links", "residual_pairs"]


def residual_pairs(stream: Stream, *, window: int) -> tuple[PairGroup, ...]:
    """Pair each writer with each reader at a later position, at most `window` layers further.

    Between them are the norm of the stream before the reader (`read_norm`) and the norm or layer
    scale after the writer (`write_norm`), if there are any. A window of 1 covers the rest of the
    writer's layer and the next layer; a window of 0 gives no pairs.

    Parameters
    ----------
    stream
        One of `Graph.streams`.
    window
        Largest distance in layers.

    References
    ----------
    Folding the gain of a norm into its readers: Ashkboos et al., SliceGPT, arXiv 2401.15024.

    Examples
    --------
    >>> from flagscope.arch import build_graph
    >>> shapes = {f"model.layers.{i}.{name}.weight": (8, 8) if "proj" in name else (8,)
    ...           for i in range(2) for name in (
    ...     "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    ...     "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
    ...     "post_attention_layernorm")}
    >>> graph = build_graph(shapes, {"model_type": "llama", "num_attention_heads": 2})
    >>> [pair.name for pair in residual_pairs(graph.streams[0], window=1)][:3]
    ['layer.0.o-layer.0.mlp.up', 'layer.0.o-layer.0.mlp.gate', 'layer.0.o-layer.1.q']
    """
    pairs = []
    for before, after in _later(stream, window):
        for write in before.writers:
            for read in after.readers:
                name = f"{write.label}-{read.label}"
                pairs.append(
                    PairGroup(
                        name=name, kind="residual", between="norm" if read.norm else "linear",
                        stack=stream.stack, attention=None, layer=after.layer,
                        freedom="none",
                        d=stream.d, write=write.joined, read=read.joined, members=(Member(name),),
                        write_norm=write.norm, read_norm=read.norm, write_layer=before.layer,
                    )
                )  # fmt: skip
    return tuple(pairs)


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
        for before, after in _later(stream, window)
        for write in before.writers if write.heads is not None
        for read in after.readers if read.heads is not None
    )  # fmt: skip


def _later(stream: Stream, window: int) -> Iterator[tuple[SubBlock, SubBlock]]:
    """Yield each block with the later ones within the window."""
    if window < 1:
        return
    for index, before in enumerate(stream.blocks):
        for after in stream.blocks[index + 1 :]:
            if after.layer > before.layer + window:
                break
            if after.position > before.position:
                yield before, after
