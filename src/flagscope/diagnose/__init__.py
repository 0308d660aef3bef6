"""Diagnostics of adjacent pairs and of attention heads, as frozen records."""

from flagscope.diagnose.across import (
    HeadEntry,
    OverlapPair,
    SpaceOverlaps,
    adjusted_pairs,
    space_overlaps,
)
from flagscope.diagnose.bare_map import BareMap, Folding, bare_map
from flagscope.diagnose.collapse import (
    CentreAgreement,
    CollapseRecord,
    NeuralCollapse,
    SimplexFit,
    neural_collapse,
    neural_collapse_of_module,
    simplex_fit,
)
from flagscope.diagnose.gauge import labels
from flagscope.diagnose.heads import head_record
from flagscope.diagnose.levels import LevelsRecord, alignment_levels
from flagscope.diagnose.links import HeadEnds, LinkName, Links, head_ends, head_links
from flagscope.diagnose.pairs import pair_records, residual_record
from flagscope.diagnose.scaled_ends import ScaledEnds, divided_link, flat_composition
from flagscope.diagnose.sharp_map import SharpMap, sharp_map
from flagscope.diagnose.sharp_pairs import sharp_records, sharp_residual_record

__all__ = [
    "BareMap",
    "CentreAgreement",
    "CollapseRecord",
    "Folding",
    "HeadEnds",
    "HeadEntry",
    "LevelsRecord",
    "LinkName",
    "Links",
    "NeuralCollapse",
    "OverlapPair",
    "ScaledEnds",
    "SharpMap",
    "SimplexFit",
    "SpaceOverlaps",
    "adjusted_pairs",
    "alignment_levels",
    "bare_map",
    "divided_link",
    "flat_composition",
    "head_ends",
    "head_links",
    "head_record",
    "labels",
    "neural_collapse",
    "neural_collapse_of_module",
    "pair_records",
    "residual_record",
    "sharp_map",
    "sharp_records",
    "sharp_residual_record",
    "simplex_fit",
    "space_overlaps",
]
