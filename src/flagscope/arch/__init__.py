"""From tensor names, shapes and a config to the graph of a network's linear maps."""

from flagscope.arch.build import NO_FAMILY, FamilyInfo, build_graph, families
from flagscope.arch.drafts import family_draft
from flagscope.arch.graph import (
    Frame,
    Graph,
    HeadGroup,
    LinkGroup,
    Member,
    Norm,
    PairGroup,
    Rotary,
    Stream,
    StreamMap,
    SubBlock,
)
from flagscope.arch.maps import LinearMap
from flagscope.arch.pair_side import Side
from flagscope.arch.registry import Proof, proofs
from flagscope.arch.stream import head_links, residual_pairs

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
