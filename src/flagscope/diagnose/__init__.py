"""Diagnostics of adjacent pairs and of attention heads, as frozen records."""

from typing import get_args

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
from flagscope.diagnose.matrices import Matrices
from flagscope.diagnose.observables import (
    commutation_defect,
    commutator_ratio,
    gram_correlation,
    imbalance,
)
from flagscope.diagnose.pairs import pair_records
from flagscope.diagnose.records import (
    ArraySummary,
    FailureRecord,
    Freedom,
    HeadRecord,
    PairRecord,
    RunRecord,
    ScanResult,
)
from flagscope.diagnose.spectra import EIGH_FLOPS, PairSpectra, pair_spectra, spectra_cost

FREEDOMS: tuple[Freedom, ...] = get_args(Freedom)

__all__ = [
    "EIGH_FLOPS",
    "FREEDOMS",
    "ArraySummary",
    "CentreAgreement",
    "CollapseRecord",
    "FailureRecord",
    "HeadRecord",
    "HeadSpaces",
    "LevelsRecord",
    "Matrices",
    "NeuralCollapse",
    "PairRecord",
    "PairSpectra",
    "ProjectorSum",
    "RunRecord",
    "ScanResult",
    "SimplexFit",
    "alignment_levels",
    "commutation_defect",
    "commutator_ratio",
    "gram_correlation",
    "head_record",
    "head_spaces",
    "imbalance",
    "labels",
    "neural_collapse",
    "neural_collapse_of_module",
    "pair_records",
    "pair_spectra",
    "pairwise_overlaps",
    "projector_sum",
    "simplex_fit",
    "spectra_cost",
]
