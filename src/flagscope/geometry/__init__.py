"""Geometry of subspaces, flags and pairs of maps: tensors in, tensors out."""

from flagscope.geometry.angles import (
    PrincipalVectors,
    cosines_of_overlaps,
    leading_angles,
    principal_angles,
    principal_cosines,
    principal_sines,
    principal_vectors,
)
from flagscope.geometry.balance import (
    Balancing,
    balancing_transform,
    balancing_transform_of_maps,
    imbalance,
)
from flagscope.geometry.commutator import commutation_defect, commutator_ratio
from flagscope.geometry.commutator_sketch import CommutatorSketch, sketched_commutator
from flagscope.geometry.composed_map import (
    ComposedMap,
    bounded_composed_map,
    composed_map,
    product_singular_values,
    single_product_singular_values,
)
from flagscope.geometry.composition_score import circuit_factors, of_unit_norm, squared_composition
from flagscope.geometry.correlation import gram_correlation
from flagscope.geometry.counting import counted_rank, counted_signal_rank
from flagscope.geometry.degeneration import Degeneration, degeneration
from flagscope.geometry.drift import ExpectedDrift, expected_drift
from flagscope.geometry.equilibrate import Equilibrated, equilibrated
from flagscope.geometry.factored_change import (
    FactoredChange,
    factored_change,
    inner_of_changes,
)
from flagscope.geometry.flags import (
    Flag,
    SingularBlocks,
    chordal_distance,
    singular_blocks,
    singular_flag,
)
from flagscope.geometry.float_product import float_product_bound
from flagscope.geometry.gram import (
    centred_spectrum,
    gram,
    gram_singular_values,
    symmetric_share,
    trace_free,
)
from flagscope.geometry.gram_side import (
    PRODUCT_UP_TO,
    GramSide,
    SmallGram,
    commutator_of_grams,
    difference_of_grams,
    gram_side,
    inner_of_grams,
    restricted_side,
    small_gram,
)
from flagscope.geometry.head_scale_profile import (
    DividedSpaces,
    ScaleProfile,
    divided_spaces,
    scale_profile,
    without_profile,
)
from flagscope.geometry.head_spaces import HeadSpaces, head_spaces, pairwise_overlaps
from flagscope.geometry.incidence import (
    attainable_overlap,
    flag_defect,
    incidence_at_ranks,
    incidence_surface,
)
from flagscope.geometry.inertia import count_above, is_definite
from flagscope.geometry.intersection import (
    IntersectionCount,
    count_intersection,
    exact_intersection,
    forced_dimension,
    intersection_dimension,
    intersection_dimensions,
    kernel_intersection,
)
from flagscope.geometry.leading_space import LeadingSpace, leading_space
from flagscope.geometry.matrices import (
    NOT_FINITE,
    Matrices,
    even_exponents,
    gram_weights,
    line_norms,
    power_of_two,
)
from flagscope.geometry.near_copies import near_copy_clusters
from flagscope.geometry.overlaps import (
    SLAB_BYTES,
    Form,
    cheaper_form,
    cross_overlaps,
    overlaps_by_projectors,
    squared_overlaps,
)
from flagscope.geometry.perturbation import (
    NoisyMap,
    NoisyMaps,
    gram_error,
    noisy_maps,
    product_error,
)
from flagscope.geometry.prepared_maps import PreparedMap, prepared_map, prepared_view
from flagscope.geometry.product_change import ProductNorms, product_change
from flagscope.geometry.profile_views import ProfileView, profile_views, testable
from flagscope.geometry.projector_sum import (
    ProjectorSum,
    eigenvalue_error,
    largest_of_projector_sum,
    projector_sum,
)
from flagscope.geometry.rank_rule import MapRanks, RankRule, map_ranks
from flagscope.geometry.ranks import (
    energy_rank,
    numerical_rank,
    participation_of_moments,
    participation_ratio,
)
from flagscope.geometry.ritz import RitzSpace, ritz_space
from flagscope.geometry.rounding_interval import rounding_interval
from flagscope.geometry.scale_profiles import (
    FEWEST,
    RowScales,
    flat_spread,
    in_complement_of_mean,
    mean_removed,
    profile_free_rows,
    profiles,
    row_scales,
    unit_rows,
)
from flagscope.geometry.scales import PositiveScales, neuron_scales, plane_scales
from flagscope.geometry.signal import (
    SignalRank,
    nothing_stands_out,
    signal_rank,
    signal_rank_of,
)
from flagscope.geometry.spaces import orthogonal_complement, orthonormal_basis, singular_space
from flagscope.geometry.spectra import (
    EIGH_FLOPS,
    Eigensystem,
    PairSpectra,
    Remembered,
    eigensystem,
    pair_spectra,
    spectra_cost,
    spectra_from_eigensystems,
)
from flagscope.geometry.spectra_single import (
    SINGLE_FROM,
    single_eigensystem,
    single_pair_spectra,
    spectra_in_precision,
)
from flagscope.geometry.stability import (
    GitVerdict,
    Stability,
    git_stability,
    has_closed_affine_orbit,
    has_closed_orbit,
)
from flagscope.geometry.strata import RelativePosition, relative_position, strata
from flagscope.geometry.whitening import Whitening, orthonormal_rows, whitening

__all__ = [
    "EIGH_FLOPS",
    "FEWEST",
    "NOT_FINITE",
    "PRODUCT_UP_TO",
    "SINGLE_FROM",
    "SLAB_BYTES",
    "Balancing",
    "CommutatorSketch",
    "ComposedMap",
    "Degeneration",
    "DividedSpaces",
    "Eigensystem",
    "Equilibrated",
    "ExpectedDrift",
    "FactoredChange",
    "Flag",
    "Form",
    "GitVerdict",
    "GramSide",
    "HeadSpaces",
    "IntersectionCount",
    "LeadingSpace",
    "MapRanks",
    "Matrices",
    "NoisyMap",
    "NoisyMaps",
    "PairSpectra",
    "PositiveScales",
    "PreparedMap",
    "PrincipalVectors",
    "ProductNorms",
    "ProfileView",
    "ProjectorSum",
    "RankRule",
    "RelativePosition",
    "Remembered",
    "RitzSpace",
    "RowScales",
    "ScaleProfile",
    "SignalRank",
    "SingularBlocks",
    "SmallGram",
    "Stability",
    "Whitening",
    "attainable_overlap",
    "balancing_transform",
    "balancing_transform_of_maps",
    "bounded_composed_map",
    "centred_spectrum",
    "cheaper_form",
    "chordal_distance",
    "circuit_factors",
    "commutation_defect",
    "commutator_of_grams",
    "commutator_ratio",
    "composed_map",
    "cosines_of_overlaps",
    "count_above",
    "count_intersection",
    "counted_rank",
    "counted_signal_rank",
    "cross_overlaps",
    "degeneration",
    "difference_of_grams",
    "divided_spaces",
    "eigensystem",
    "eigenvalue_error",
    "energy_rank",
    "equilibrated",
    "even_exponents",
    "exact_intersection",
    "expected_drift",
    "factored_change",
    "flag_defect",
    "flat_spread",
    "float_product_bound",
    "forced_dimension",
    "git_stability",
    "gram",
    "gram_correlation",
    "gram_error",
    "gram_side",
    "gram_singular_values",
    "gram_weights",
    "has_closed_affine_orbit",
    "has_closed_orbit",
    "head_spaces",
    "imbalance",
    "in_complement_of_mean",
    "incidence_at_ranks",
    "incidence_surface",
    "inner_of_changes",
    "inner_of_grams",
    "intersection_dimension",
    "intersection_dimensions",
    "is_definite",
    "kernel_intersection",
    "largest_of_projector_sum",
    "leading_angles",
    "leading_space",
    "line_norms",
    "map_ranks",
    "mean_removed",
    "near_copy_clusters",
    "neuron_scales",
    "noisy_maps",
    "nothing_stands_out",
    "numerical_rank",
    "of_unit_norm",
    "orthogonal_complement",
    "orthonormal_basis",
    "orthonormal_rows",
    "overlaps_by_projectors",
    "pair_spectra",
    "pairwise_overlaps",
    "participation_of_moments",
    "participation_ratio",
    "plane_scales",
    "power_of_two",
    "prepared_map",
    "prepared_view",
    "principal_angles",
    "principal_cosines",
    "principal_sines",
    "principal_vectors",
    "product_change",
    "product_error",
    "product_singular_values",
    "profile_free_rows",
    "profile_views",
    "profiles",
    "projector_sum",
    "relative_position",
    "restricted_side",
    "ritz_space",
    "rounding_interval",
    "row_scales",
    "scale_profile",
    "signal_rank",
    "signal_rank_of",
    "single_eigensystem",
    "single_pair_spectra",
    "single_product_singular_values",
    "singular_blocks",
    "singular_flag",
    "singular_space",
    "sketched_commutator",
    "small_gram",
    "spectra_cost",
    "spectra_from_eigensystems",
    "spectra_in_precision",
    "squared_composition",
    "squared_overlaps",
    "strata",
    "symmetric_share",
    "testable",
    "trace_free",
    "unit_rows",
    "whitening",
    "without_profile",
]
