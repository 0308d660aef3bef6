"""Subspaces and maps with known answers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flagscope.geometry import Matrices


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def haar_bases(*shape: int, generator: torch.Generator) -> Tensor:
    """Orthonormal bases (..., d, r) of uniformly distributed subspaces, in float64."""
    normal = torch.randn(*shape, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(normal)
    # The signs that make QR of a Gaussian matrix exactly Haar.
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]


def spaces_with_angles(
    angles: Sequence[float], d: int, *, p: int, q: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Bases x (d, p) and y (d, q) with the given min(p, q) principal angles; p + q ≤ d."""
    count = min(p, q)
    frame = haar_bases(d, d, generator=generator)
    theta = torch.tensor(angles, dtype=torch.float64)
    x = frame[:, :p]
    turned = frame[:, :count] * theta.cos() + frame[:, p : p + count] * theta.sin()
    y = torch.cat([turned, frame[:, p + count : p + q]], dim=1)
    turn_x, turn_y = (haar_bases(n, n, generator=generator) for n in (p, q))
    return x @ turn_x, y @ turn_y


def map_with_values(
    values: Sequence[float], m: int, n: int, *, generator: torch.Generator
) -> Tensor:
    """A matrix (m, n) with the given non-zero singular values."""
    r = len(values)
    left = haar_bases(m, r, generator=generator)
    right = haar_bases(n, r, generator=generator)
    return left * torch.tensor(values, dtype=torch.float64) @ right.mT


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def haar(n: int, d: int, r: int, *, seed: int) -> Tensor:
    return torch.linalg.qr(normal(n, d, r, seed=seed)).Q


def with_values(rows: int, columns: int, values: Sequence[float], *, seed: int) -> Tensor:
    """A matrix with these singular values (the others zero) and Haar singular vectors."""
    left = haar(1, rows, len(values), seed=seed)[0]
    right = haar(1, columns, len(values), seed=seed + 1)[0]
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.mT


def matrices(values: Tensor, delta: float = 0.0) -> Matrices:
    deltas = torch.full((len(values),), delta, dtype=torch.float64)
    return Matrices(values, deltas, deltas**2 / max(values.shape[1:]))
