"""From tensor names, shapes and a config to the graph of a network's linear maps."""

from flagscope.arch.build import FamilyInfo, build_graph, families
from flagscope.arch.graph import Frame, Graph, HeadGroup, Member, Norm, PairGroup, Rotary
from flagscope.arch.maps import LinearMap
from flagscope.arch.registry import Proof, proofs
from flagscope.arch.sides import Side

__all__ = [
    "FamilyInfo",
    "Frame",
    "Graph",
    "HeadGroup",
    "LinearMap",
    "Member",
    "Norm",
    "PairGroup",
    "Proof",
    "Rotary",
    "Side",
    "build_graph",
    "families",
    "proofs",
]
