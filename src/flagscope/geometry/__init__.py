"""Geometry of subspaces and flags: tensors in, tensors out."""

from flagscope.geometry.angles import (
    PrincipalVectors,
    principal_angles,
    principal_cosines,
    principal_sines,
    principal_vectors,
)
from flagscope.geometry.balance import (
    Balancing,
    balancing_transform,
    balancing_transform_of_maps,
)
from flagscope.geometry.bases import orthogonal_complement, orthonormal_basis, singular_space
from flagscope.geometry.degeneration import Degeneration, degeneration
from flagscope.geometry.equilibrate import Equilibrated, equilibrated
from flagscope.geometry.flags import (
    Flag,
    SingularBlocks,
    chordal_distance,
    singular_blocks,
    singular_flag,
)
from flagscope.geometry.incidence import (
    flag_defect,
    incidence_at_ranks,
    incidence_surface,
)
from flagscope.geometry.intersection import (
    IntersectionCount,
    count_intersection,
    intersection_dimension,
    intersection_dimensions,
    kernel_intersection,
)
from flagscope.geometry.rank_rule import RankRule
from flagscope.geometry.ranks import (
    energy_rank,
    numerical_rank,
    participation_ratio,
)
from flagscope.geometry.scales import PositiveScales, neuron_scales, plane_scales
from flagscope.geometry.signal import SignalRank, signal_rank, signal_rank_of
from flagscope.geometry.stability import (
    GitVerdict,
    Stability,
    git_stability,
    has_closed_affine_orbit,
    has_closed_orbit,
)
from flagscope.geometry.strata import RelativePosition, relative_position, strata

__all__ = [
    "Balancing",
    "Degeneration",
    "Equilibrated",
    "Flag",
    "GitVerdict",
    "IntersectionCount",
    "PositiveScales",
    "PrincipalVectors",
    "RankRule",
    "RelativePosition",
    "SignalRank",
    "SingularBlocks",
    "Stability",
    "balancing_transform",
    "balancing_transform_of_maps",
    "chordal_distance",
    "count_intersection",
    "degeneration",
    "energy_rank",
    "equilibrated",
    "flag_defect",
    "git_stability",
    "has_closed_affine_orbit",
    "has_closed_orbit",
    "incidence_at_ranks",
    "incidence_surface",
    "intersection_dimension",
    "intersection_dimensions",
    "kernel_intersection",
    "neuron_scales",
    "numerical_rank",
    "orthogonal_complement",
    "orthonormal_basis",
    "participation_ratio",
    "plane_scales",
    "principal_angles",
    "principal_cosines",
    "principal_sines",
    "principal_vectors",
    "relative_position",
    "signal_rank",
    "signal_rank_of",
    "singular_blocks",
    "singular_flag",
    "singular_space",
    "strata",
]
