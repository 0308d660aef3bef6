"""Pairs and links along a residual stream: what one block writes and a later one reads."""

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
    """Each writer with each reader of a later position, at most `window` layers further.

    Between them stands the norm of the stream in front of the reader (`read_norm`) and the norm or
    layer scale behind the writer (`write_norm`), where there are such. A window of 1 takes the
    rest of the writer's layer and the next layer, one of 0 takes no pairs at all.

    Parameters
    ----------
    stream
        Of `Graph.streams`.
    window
        Number of layers between the two.

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
                        write_norm=write.norm, read_norm=read.norm,
                    )
                )  # fmt: skip
    return tuple(pairs)


def head_links(stream: Stream, *, window: int) -> tuple[LinkGroup, ...]:
    """The heads' outputs of each block with the heads' queries, keys and values of later ones.

    As `residual_pairs`, for the writers and readers that have heads.

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
    """Each block with those behind it that lie within the window."""
    if window < 1:
        return
    for at, before in enumerate(stream.blocks):
        for after in stream.blocks[at + 1 :]:
            if after.layer > before.layer + window:
                break
            if after.position > before.position:
                yield before, after
