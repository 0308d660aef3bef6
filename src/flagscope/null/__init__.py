"""Null models: what chance gives, in closed form."""

from flagscope.null.balanced_correlation import balanced_correlation_z
from flagscope.null.cauchy_combination import CombinedTest, cauchy_combination
from flagscope.null.common_start import CommonStart, StartOverlap, common_start, start_overlap
from flagscope.null.commutator import CommutatorNull, commutator_null, commutator_variance
from flagscope.null.correlation import CorrelationNull, correlation_null
from flagscope.null.cosine import cosine_significance, log10_upper_tail, sign_agreement
from flagscope.null.defect import defect_variance
from flagscope.null.energy_share import energy_share, energy_share_significance
from flagscope.null.haar import (
    Moments,
    haar_bases,
    haar_overlap,
    overlap_significance,
)
from flagscope.null.largest import (
    FreeDimensions,
    count_beyond_chance,
    free_dimensions,
    largest_cosine_significance,
    largest_cosine_threshold,
)
from flagscope.null.mean_overlap import mean_overlap, mean_overlap_fourth
from flagscope.null.mean_overlap_law import cluster_significance, mean_overlap_significance
from flagscope.null.multiplicity import (
    AdjustedP,
    FamilyAdjustedP,
    false_discovery_adjustment,
    family_adjustment,
)
from flagscope.null.noise import StorageNoise, grid_noise, row_noise, storage_noise
from flagscope.null.projectors import (
    ProjectorSumEdges,
    projector_sum_edges,
    projector_sum_significance,
    projector_sum_threshold,
)
from flagscope.null.significance import Significance
from flagscope.null.spectral_norm import spectral_norm_log_sf, spectral_norm_quantile
from flagscope.null.spectrum import (
    Spectrum,
    gram_spectrum,
    spectrum_invariants,
    spectrum_of_moments,
)
from flagscope.null.tracy_widom import tracy_widom_log_sf, tracy_widom_quantile

__all__ = [
    "AdjustedP",
    "CombinedTest",
    "CommonStart",
    "CommutatorNull",
    "CorrelationNull",
    "FamilyAdjustedP",
    "FreeDimensions",
    "Moments",
    "ProjectorSumEdges",
    "Significance",
    "Spectrum",
    "StartOverlap",
    "StorageNoise",
    "balanced_correlation_z",
    "cauchy_combination",
    "cluster_significance",
    "common_start",
    "commutator_null",
    "commutator_variance",
    "correlation_null",
    "cosine_significance",
    "count_beyond_chance",
    "defect_variance",
    "energy_share",
    "energy_share_significance",
    "false_discovery_adjustment",
    "family_adjustment",
    "free_dimensions",
    "gram_spectrum",
    "grid_noise",
    "haar_bases",
    "haar_overlap",
    "largest_cosine_significance",
    "largest_cosine_threshold",
    "log10_upper_tail",
    "mean_overlap",
    "mean_overlap_fourth",
    "mean_overlap_significance",
    "overlap_significance",
    "projector_sum_edges",
    "projector_sum_significance",
    "projector_sum_threshold",
    "row_noise",
    "sign_agreement",
    "spectral_norm_log_sf",
    "spectral_norm_quantile",
    "spectrum_invariants",
    "spectrum_of_moments",
    "start_overlap",
    "storage_noise",
    "tracy_widom_log_sf",
    "tracy_widom_quantile",
]
