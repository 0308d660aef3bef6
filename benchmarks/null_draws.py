"""Haar draws of every number that a report tests, for the sizes of its null models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Numbers held at a time.
_BLOCK = 1 << 21

Sample = NDArray[np.float64]


def spectra(d: int) -> dict[str, Sample]:
    """Eigenvalues of Gram matrices, the squares of the singular values in the names."""
    i = np.arange(1.0, d + 1.0)
    generator = np.random.default_rng(5)
    gaussian = np.linalg.eigvalsh(np.cov(generator.standard_normal((d, 2 * d))))[::-1]
    kinds = {
        "1/i": i**-2.0,
        "1/√i": i**-1.0,
        "exp(-i/3)": np.exp(-2.0 * i / 3.0),
        "Pareto 1.5": ((i - 0.5) / d) ** (-2.0 / 1.5),
        "flat, rank d/4": (i <= d // 4) * 1.0,
        "1/i, rank 4": np.where(i <= 4, i**-2.0, 0.0),
        "Gaussian": gaussian,
        "spike": np.where(i == 1, 20.0, 1.0) * gaussian,
    }
    centred = {name: values - values.mean() for name, values in kinds.items()}
    return {name: values / float(np.linalg.norm(values)) for name, values in centred.items()}


def gram_draws(
    kinds: dict[str, Sample], rotations: int, permutations: int, *, seed: int, commutator: bool
) -> tuple[Sample, Sample | None]:
    """ρ and C of every pair of kinds, shape (draws, kinds, kinds).

    A rotation stays Haar when its rows are permuted, so each is used several times; two
    permutations of one rotation correlate by about 2/d.
    """
    table = np.stack(list(kinds.values()), axis=1)
    d = len(table)
    generator = np.random.default_rng((seed, d))
    step = max(1, min(rotations, _BLOCK // (d * d)))
    norm = (d - 1) * (d + 2) / (2 * d)
    rho, ratio = [], []
    for start in range(0, rotations, step):
        size = min(step, rotations - start)
        basis = np.linalg.qr(generator.standard_normal((size, d, d)))[0]
        turned, turned_square = basis**2 @ table, basis**2 @ table**2
        squares = None
        if commutator:
            products = [(basis * column) @ basis.swapaxes(-1, -2) for column in table.T]
            squares = np.stack([product**2 for product in products], axis=1)
        for _ in range(permutations):
            rows = table[generator.permutation(d)]
            rho.append(rows.T @ turned)
            if squares is not None:
                # ‖[A, B]‖² = 2 tr A²B² - 2 tr ABAB
                crossed = ((squares @ rows) * rows).sum(-2).swapaxes(-1, -2)
                ratio.append(2.0 * norm * ((rows**2).T @ turned_square - crossed))
    return np.concatenate(rho), np.concatenate(ratio) if ratio else None


def bases(draws: int, d: int, r: int, generator: np.random.Generator) -> Sample:
    """Orthonormal bases of independent Haar subspaces, shape (draws, d, r)."""
    return np.linalg.qr(generator.standard_normal((draws, d, r)))[0].astype(np.float64, copy=False)


def cosine_draws(draws: int, p: int, q: int, d: int, *, seed: int) -> Sample:
    """Principal cosines, descending; one space is fixed without loss of generality."""
    generator = np.random.default_rng((seed, p, q, d))
    step = max(1, _BLOCK // (d * p))
    return np.concatenate([
        np.linalg.svd(bases(min(step, draws - k), d, p, generator)[:, :q], compute_uv=False)
        for k in range(0, draws, step)
    ])  # fmt: skip


def head_draws(draws: int, ranks: Sequence[int], d: int, *, seed: int) -> tuple[Sample, Sample]:
    """Mean overlap ratios, and eigenvalues of the sum of the projectors, descending."""
    generator = np.random.default_rng((seed, d, *ranks))
    step = max(1, _BLOCK // (d * sum(ranks)))
    ratios, eigenvalues = [], []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        spaces = [bases(size, d, r, generator) for r in ranks]
        total = np.zeros(size)
        for (r, one), (s, other) in itertools.combinations(zip(ranks, spaces, strict=True), 2):
            total += ((one.swapaxes(-1, -2) @ other) ** 2).sum((1, 2)) * d / (r * s)
        ratios.append(total / (len(ranks) * (len(ranks) - 1) / 2))
        joined = np.concatenate(spaces, axis=2)
        # The smaller of the two Gram matrices has the same nonzero eigenvalues.
        wide = joined.shape[2] > d
        gram = joined @ joined.swapaxes(-1, -2) if wide else joined.swapaxes(-1, -2) @ joined
        eigenvalues.append(np.linalg.eigvalsh(gram)[:, ::-1])
    return np.concatenate(ratios), np.concatenate(eigenvalues)
