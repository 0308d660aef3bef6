"""Builds the graph of a network's linear maps from tensor names, shapes and a config.

Names are imported on first use, so that listing the families needs no tensor library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flagscope.arch.build import NO_FAMILY, build_graph
    from flagscope.arch.catalogue import FamilyInfo, families
    from flagscope.arch.drafts import family_draft
    from flagscope.arch.graph import Frame, Graph, HeadGroup, Member, PairGroup, Rotary
    from flagscope.arch.maps import LinearMap
    from flagscope.arch.norm import Norm
    from flagscope.arch.pair_side import Side
    from flagscope.arch.registry import Proof, proofs
    from flagscope.arch.stream import Stream, StreamMap, SubBlock
    from flagscope.arch.stream_links import LinkGroup, head_links
    from flagscope.arch.stream_pairs import residual_pairs

_HOMES = {
    **dict.fromkeys(("NO_FAMILY", "build_graph"), "build"),
    **dict.fromkeys(("FamilyInfo", "families"), "catalogue"),
    "family_draft": "drafts",
    **dict.fromkeys(("Frame", "Graph", "HeadGroup", "Member", "PairGroup", "Rotary"), "graph"),
    "LinearMap": "maps",
    "Norm": "norm",
    "Side": "pair_side",
    **dict.fromkeys(("Proof", "proofs"), "registry"),
    **dict.fromkeys(("Stream", "StreamMap", "SubBlock"), "stream"),
    **dict.fromkeys(("LinkGroup", "head_links"), "stream_links"),
    "residual_pairs": "stream_pairs",
}  # fmt: skip

__all__ = [
    "NO_FAMILY",
    "FamilyInfo",
    "Frame",
    "Graph",
    "HeadGroup",
    "LinearMap",
    "LinkGroup",
    "Member",
    "Norm",
    "PairGroup",
    "Proof",
    "Rotary",
    "Side",
    "Stream",
    "StreamMap",
    "SubBlock",
    "build_graph",
    "families",
    "family_draft",
    "head_links",
    "proofs",
    "residual_pairs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flagscope.arch' has no attribute {name!r}")
    return getattr(import_module(f"flagscope.arch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
