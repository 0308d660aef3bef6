"""Names of a page's objects in its URL: a pair, some heads of a layer, a link, a kind of pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flagscope.records import EdgeRecord, HeadRecord, HeadSpace, PairRecord


def pair_target(pair: PairRecord) -> str:
    """Target of one pair: ``"pair/layer.0.head.1.qk"``."""
    return f"pair/{pair.name}"


def layer_key(stack: str, layer: int, *, cross: bool = False) -> str:
    """Name of one layer's attention.

    Examples
    --------
    >>> layer_key("decoder", 3), layer_key("decoder", 3, cross=True)
    ('decoder.layer.3', 'decoder.cross.layer.3')
    """
    return f"{stack}.{'cross.' * cross}layer.{layer}"


def group_key(group: HeadRecord) -> str:
    """Name of one head group: ``"decoder.layer.3.q"``."""
    return f"{layer_key(group.stack, group.layer, cross=group.attention == 'cross')}.{group.space}"


def group_target(group: HeadRecord, heads: Sequence[int] = ()) -> str:
    """Target of a head group, with the heads that are marked in it, if any."""
    return heads_target(group_key(group), heads)


def heads_target(key: str, heads: Sequence[int] = ()) -> str:
    """Target of a head group by its name.

    Examples
    --------
    >>> heads_target("decoder.layer.3.q", (1, 3)), heads_target("decoder.layer.3.q")
    ('heads/decoder.layer.3.q/1-3', 'heads/decoder.layer.3.q')
    """
    marks = f"/{'-'.join(map(str, heads))}" if heads else ""
    return f"heads/{key}{marks}"


def without_targets(traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Traces without what their points open, which only a page can follow."""
    kept = []
    for trace in traces:
        own = {key: value for key, value in trace.items() if key != "meta"}
        if any(isinstance(item, str) for item in own.get("customdata") or ()):
            del own["customdata"]
        kept.append(own)
    return kept


def end_key(edge: EdgeRecord, *, writes: bool) -> str:
    """Name of the head group that a link leaves, or that it reaches."""
    if writes:
        space: HeadSpace = "o"
        return f"{layer_key(edge.stack, edge.layer_from, cross='.cross.' in edge.source)}.{space}"
    return f"{layer_key(edge.stack, edge.layer_to, cross='.cross.' in edge.target)}.{edge.space}"


def link_target(edge: EdgeRecord) -> str:
    """Target of a link: ``"link/L1H1.o/L2H3.k"``, with the stack in front."""
    return f"link/{edge.stack}/{edge.source}/{edge.target}"
