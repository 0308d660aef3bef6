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
    PositiveScales,
    balancing_transform,
    balancing_transform_of_maps,
    neuron_scales,
    plane_scales,
)
from flagscope.geometry.bases import orthogonal_complement, orthonormal_basis, singular_space
from flagscope.geometry.incidence import (
    flag_defect,
    incidence_surface,
    incidence_surface_of_overlaps,
)
from flagscope.geometry.intersection import (
    IntersectionCount,
    count_intersection,
    intersection_dimension,
    intersection_dimensions,
    kernel_intersection,
)
from flagscope.geometry.ranks import (
    RankRule,
    energy_rank,
    numerical_rank,
    participation_ratio,
    participation_ratio_of_gram,
)

__all__ = [
    "Balancing",
    "IntersectionCount",
    "PositiveScales",
    "PrincipalVectors",
    "RankRule",
    "balancing_transform",
    "balancing_transform_of_maps",
    "count_intersection",
    "energy_rank",
    "flag_defect",
    "incidence_surface",
    "incidence_surface_of_overlaps",
    "intersection_dimension",
    "intersection_dimensions",
    "kernel_intersection",
    "neuron_scales",
    "numerical_rank",
    "orthogonal_complement",
    "orthonormal_basis",
    "participation_ratio",
    "participation_ratio_of_gram",
    "plane_scales",
    "principal_angles",
    "principal_cosines",
    "principal_sines",
    "principal_vectors",
    "singular_space",
]
