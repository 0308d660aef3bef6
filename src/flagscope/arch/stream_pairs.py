"""Pairs along a residual stream, from each writer to later readers."""

from __future__ import annotations

from flagscope.arch.graph import Member, PairGroup
from flagscope.arch.stream import Stream, later_blocks


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
    for before, after in later_blocks(stream, window):
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
