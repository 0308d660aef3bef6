"""Subspaces and maps with known answers."""

from collections.abc import Sequence

import torch
from torch import Tensor


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
