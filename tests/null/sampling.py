"""Haar draws for the tests of the null models, vectorised and seeded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def bases(n: int, d: int, r: int, *, seed: int) -> torch.Tensor:
    """Independent Haar-random orthonormal bases, shape (n, d, r), float64."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(n, d, r, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q


def rotated(n: int, values: np.ndarray, *, seed: int) -> torch.Tensor:
    """Q diag(values) Qᵀ for n independent Haar-random Q."""
    basis = bases(n, len(values), len(values), seed=seed)
    return (basis * torch.from_numpy(values)) @ basis.mT


def cosines(n: int, p: int, q: int, d: int, *, seed: int) -> np.ndarray:
    """Principal cosines of n pairs, descending; one space is fixed without loss of generality."""
    return torch.linalg.svdvals(bases(n, d, p, seed=seed)[:, :q, :]).numpy()


def assert_mean(sample: np.ndarray, exact: float) -> None:
    """|mean - exact| within 4 standard errors."""
    error = sample.std(ddof=1) / np.sqrt(len(sample))
    assert abs(sample.mean() - exact) < 4 * error + 1e-12 * abs(exact), (
        sample.mean(),
        exact,
        error,
    )


def assert_size(rejected: np.ndarray, low: float, high: float) -> None:
    """The share of rejections is within 4 standard errors of [low, high]."""
    assert_share(rejected.mean(), len(rejected), low, high)


def tail_shares(
    p_value: Callable[[float], float], sample: np.ndarray, level: float, *, center: float
) -> tuple[float, float]:
    """Shares of a sample with p < level below and above a center, from which p falls both ways."""
    below, above = np.sort(sample[sample < center]), np.sort(sample[sample >= center])[::-1]
    shares = []
    for side in (below, above):
        low, high = 0, len(side)
        while low < high:
            middle = (low + high) // 2
            if p_value(float(side[middle])) < level:
                low = middle + 1
            else:
                high = middle
        shares.append(low / len(sample))
    return shares[0], shares[1]


def assert_share(share: float, n: int, low: float, high: float) -> None:
    """A share of n draws is within 4 standard errors of [low, high]."""
    slack = [4 * np.sqrt(size * (1 - size) / n) for size in (low, high)]
    assert low - slack[0] <= share <= high + slack[1], (share, low, high)
