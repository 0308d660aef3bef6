"""Diagnostics of adjacent pairs and of attention heads, as frozen records."""

from flagscope.diagnose.across import (
    HeadEntry,
    OverlapPair,
    SpaceOverlaps,
    adjusted_pairs,
    space_overlaps,
)
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
from flagscope.diagnose.head_spaces import (
    HeadSpaces,
    ProjectorSum,
    head_spaces,
    pairwise_overlaps,
    projector_sum,
)
from flagscope.diagnose.heads import head_record
from flagscope.diagnose.levels import LevelsRecord, alignment_levels
from flagscope.diagnose.links import HeadEnds, LinkName, Links, head_ends, head_links
from flagscope.diagnose.matrices import Matrices
from flagscope.diagnose.observables import (
    commutation_defect,
    commutator_ratio,
    gram_correlation,
    imbalance,
)
from flagscope.diagnose.overlaps import (
    cheaper_form,
    overlaps_by_projectors,
    squared_overlaps,
)
from flagscope.diagnose.pairs import pair_records, residual_record
from flagscope.diagnose.prepared import PreparedMap, prepared_map
from flagscope.diagnose.scale_profile import (
    DividedSpaces,
    ScaleProfile,
    divided_spaces,
    scale_profile,
    without_profile,
)
from flagscope.diagnose.scaled_ends import ScaledEnds, divided_link, flat_composition
from flagscope.diagnose.single import SINGLE_FROM
from flagscope.diagnose.spectra import (
    EIGH_FLOPS,
    PairSpectra,
    Remembered,
    pair_spectra,
    spectra_cost,
)
from flagscope.diagnose.symmetric import symmetric_share
from flagscope.diagnose.whitening import Whitening, orthonormal_rows, whitening

__all__ = [
    "EIGH_FLOPS",
    "SINGLE_FROM",
    "CentreAgreement",
    "CollapseRecord",
    "DividedSpaces",
    "HeadEnds",
    "HeadEntry",
    "HeadSpaces",
    "LevelsRecord",
    "LinkName",
    "Links",
    "Matrices",
    "NeuralCollapse",
    "OverlapPair",
    "PairSpectra",
    "PreparedMap",
    "ProjectorSum",
    "Remembered",
    "ScaleProfile",
    "ScaledEnds",
    "SimplexFit",
    "SpaceOverlaps",
    "Whitening",
    "adjusted_pairs",
    "alignment_levels",
    "cheaper_form",
    "commutation_defect",
    "commutator_ratio",
    "divided_link",
    "divided_spaces",
    "flat_composition",
    "gram_correlation",
    "head_ends",
    "head_links",
    "head_record",
    "head_spaces",
    "imbalance",
    "labels",
    "neural_collapse",
    "neural_collapse_of_module",
    "orthonormal_rows",
    "overlaps_by_projectors",
    "pair_records",
    "pair_spectra",
    "pairwise_overlaps",
    "prepared_map",
    "projector_sum",
    "residual_record",
    "scale_profile",
    "simplex_fit",
    "space_overlaps",
    "spectra_cost",
    "squared_overlaps",
    "symmetric_share",
    "whitening",
    "without_profile",
]
