"""Draws random pairs of subspaces in a given relative position, and measures them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import (
    RelativePosition,
    degeneration,
    git_stability,
    has_closed_orbit,
    orthonormal_basis,
    principal_sines,
    relative_position,
    strata,
)

# Error of sines of intersections after two well-conditioned changes of basis in float64.
_TOLERANCE = 1e-9
TIMES = tuple(10.0**-i for i in range(7))


def positions(d: int) -> Iterator[RelativePosition]:
    """All relative positions of proper subspaces in R^d with r1 ≤ r2."""
    for r1 in range(1, d):
        for r2 in range(r1, d):
            yield from strata(d, r1, r2)


def measured_pair(position: RelativePosition, seed: int) -> dict[str, Any]:
    """A random pair in one position: rank of the action, invariance, path to a flag."""
    d, r1, r2, k = position.d, position.r1, position.r2, position.k
    generator = torch.Generator().manual_seed(((seed * 16 + d) * 16 + r1) * 256 + r2 * 16 + k)
    axes = position.representative()
    first, second = (well_conditioned(d, generator) for _ in range(2))
    pair, second_pair = (
        [orthonormal_basis(g @ x, rank=x.shape[1]) for x in axes] for g in (first, second)
    )
    rank, gap = rank_of_action(*pair)
    path = degeneration(*pair, tolerance=_TOLERANCE)
    sines = [_sine(*path.subspaces(t)) for t in TIMES]
    on_path = [relative_position(*path.subspaces(t), tolerance=_TOLERANCE).k for t in (1.0, 0.1)]
    noise = [x + 1e-3 * torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in pair]
    near = [orthonormal_basis(x, rank=x.shape[1]) for x in noise]
    # The change that maps one pair to the other: they are in the same orbit.
    carried = [second @ torch.linalg.solve(first, x) for x in pair]
    missed = max(
        _sine(orthonormal_basis(x, rank=x.shape[1]), y)
        for x, y in zip(carried, second_pair, strict=True)
    )
    verdict = git_stability(position)
    return {
        **asdict(position),
        "seed": seed,
        "dimension": position.orbit_dimension,
        "rank_of_action": rank,
        "rank_gap": gap,
        "k_found": relative_position(*pair, tolerance=_TOLERANCE).k,
        "k_after_change": relative_position(*second_pair, tolerance=_TOLERANCE).k,
        "carried_sine": missed,
        "sine_moved_by_change": abs(_sine(*pair) - _sine(*second_pair)),
        "k_near": relative_position(*near, tolerance=_TOLERANCE).k,
        "k_on_path": min(on_path) if len(set(on_path)) == 1 else -1,
        "k_limit": relative_position(*path.subspaces(0.0), tolerance=_TOLERANCE).k,
        "sines": sines,
        "sines_predicted": [_predicted_sine(sines[0], t) for t in TIMES],
        "closed_orbit": has_closed_orbit(position),
        "git": verdict.stability.value,
        "slope_excess": slope_excess(pair, generator),
    }


def well_conditioned(d: int, generator: torch.Generator) -> Float[Tensor, "d d"]:
    """A random element of GL(d) of condition number at most 9."""
    u, _, v = torch.linalg.svd(
        torch.randn(d, d, dtype=torch.float64, generator=generator), full_matrices=False
    )
    scale = torch.rand(d, dtype=torch.float64, generator=generator)
    return u @ torch.diag(3 ** (2 * scale - 1)) @ v


def rank_of_action(v: Tensor, u: Tensor) -> tuple[int, float]:
    """Rank of gl(d) → T_V Gr × T_U Gr, X ↦ ((I-P)XV, (I-P)XU), and the clarity of the cut.

    The second number is the largest singular value that counts as zero over the smallest that does
    not; 0 if none is zero.
    """
    rows = []
    for basis in (v, u):
        outside = torch.linalg.qr(basis, mode="complete").Q[:, basis.shape[1] :]
        rows.append(torch.kron(outside.mT.contiguous(), basis.mT.contiguous()))
    sigma = torch.linalg.svdvals(torch.cat(rows))
    rank = int((sigma > 1e-8 * sigma[0]).sum())
    zeros = sigma[rank:]
    return rank, float(zeros[0] / sigma[rank - 1]) if len(zeros) else 0.0


def _sine(v: Tensor, u: Tensor) -> float:
    """Sine of the largest principal angle of the smaller space with the larger."""
    return float(principal_sines(v, u).max())


def _predicted_sine(sine: float, t: float) -> float:
    """b + t (a - b) for unit vectors at an angle φ: tan = t sin φ / (1 - t (1 - cos φ))."""
    cosine = math.sqrt(max(0.0, 1 - sine**2))
    return math.sin(math.atan2(t * sine, 1 - t * (1 - cosine)))


def slope_excess(pair: Sequence[Tensor], generator: torch.Generator) -> float:
    """Largest slope of a subspace minus that of the whole space, with equal weights.

    Evaluated on V, U, V ∩ U, V + U and on random subspaces; a positive result means that the pair
    is not semistable. For a pair of subspaces the four suffice, since the lattice that they
    generate contains the Harder-Narasimhan filtration.
    """
    v, u = pair
    d = v.shape[0]
    left, sigma, _ = torch.linalg.svd(torch.cat([v, u], dim=1), full_matrices=True)
    total = int((sigma > 1e-8).sum())
    k = v.shape[1] + u.shape[1] - total
    inner = torch.linalg.svd(v @ (v.mT @ u)).U[:, :k] if k else v[:, :0]
    tried = [v, u, inner, left[:, :total]]
    for size in range(1, d):
        drawn = torch.randn(d, size, dtype=v.dtype, generator=generator)
        tried.append(torch.linalg.qr(drawn).Q)
    whole = (v.shape[1] + u.shape[1]) / d
    slopes = [(_meeting(v, s) + _meeting(u, s)) / s.shape[1] for s in tried if 0 < s.shape[1] < d]
    return max(slopes) - whole


def _meeting(v: Tensor, s: Tensor) -> int:
    return relative_position(v, s, tolerance=_TOLERANCE).k
