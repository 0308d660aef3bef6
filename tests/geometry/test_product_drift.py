"""Turns of the singular spaces of a product under random updates of its factors; its sketch."""

from __future__ import annotations

import math
from itertools import product as pairs_of

import numpy as np
import pytest
import torch
from torch import Tensor

from flagscope.geometry.norm_sketch import sketch_variance
from flagscope.geometry.product_drift import ProductDrift, product_drift
from flagscope.geometry.product_sketch import PRODUCT_SKETCH_SIZE, product_sketch

X, Y = 4e-6, 1e-6  # variances of the entries by which the left and the right factor move


def factors(shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """W2 and W1 whose product has singular values with gaps."""
    rows, shared, columns = shape
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(0, -0.5, shared, dtype=torch.float64)
    second = torch.randn(rows, shared, generator=draw, dtype=torch.float64) * sizes
    first = torch.randn(shared, columns, generator=draw, dtype=torch.float64) * sizes[:, None]
    return second, first


def sides(second: Tensor, first: Tensor) -> list[tuple[Tensor, Tensor, Tensor, int]]:
    """Singular values, a and b in full bases of both sides, and dimensions outside: none."""
    u, sigma, vt = torch.linalg.svd(second @ first, full_matrices=True)
    own, other = u.mT @ second, (first @ vt.mT).mT
    sigma = sigma[: min(*second.shape, first.shape[1])]
    found = []
    for one, two in ((own, other), (other, own)):
        across = torch.zeros_like(one)
        across[: len(sigma)] = two[: len(sigma)]
        found.append((sigma, one, across, 0))
    return found


def covariance(drift_of: tuple[Tensor, Tensor, Tensor, int], block: tuple[int, int]) -> Tensor:
    """Of the turns of directions of a block into all others, entry by entry."""
    sigma, a, b, _ = drift_of
    s = torch.zeros(len(a), dtype=torch.float64)
    s[: len(sigma)] = sigma
    ga, gb, inside = a @ a.mT, b @ b.mT, range(*block)
    turns = list(pairs_of(inside, [j for j in range(len(s)) if j not in inside]))
    found = torch.zeros(len(turns), len(turns), dtype=torch.float64)
    for (p, (i, j)), (q, (k, m)) in pairs_of(enumerate(turns), enumerate(turns)):
        total = 0.0
        if j == m:
            total += float(s[i] * s[k] * X * gb[i, k] + s[j] ** 2 * Y * ga[i, k])
        if i == k:
            total += float(s[i] ** 2 * Y * ga[j, m] + s[j] * s[m] * X * gb[j, m])
        found[p, q] = total / ((s[i] ** 2 - s[j] ** 2) * (s[k] ** 2 - s[m] ** 2))
    return found


@pytest.mark.parametrize("shape", [(14, 4, 11), (9, 12, 10), (12, 10, 8)])
@pytest.mark.parametrize("block", [(0, 1), (0, 3), (1, 3)])
def test_moments_are_those_of_the_covariance(
    shape: tuple[int, int, int], block: tuple[int, int]
) -> None:
    second, first = factors(shape, 0)
    for full in sides(second, first):
        sigma, own, other, _ = full
        # What lies outside of the range of a thin factor is counted, not listed.
        inner = shape[1] if shape[1] < min(shape[0], shape[2]) else len(own)
        drift = product_drift(
            sigma, own[:inner], other[:inner], outside=len(own) - inner, leading=4
        )
        values = torch.linalg.eigvalsh(covariance(full, block))
        assert drift.mean(block, X, Y) == pytest.approx(float(values.sum()))
        assert sum(drift.parts(block, X, Y)) == pytest.approx(float(values.sum()))
        assert drift.variance(block, X, Y) == pytest.approx(2 * float(values.square().sum()))
        assert drift.third(block, X, Y) == pytest.approx(8 * float(values.pow(3).sum()))
        edge = covariance(full, (0, block[1]))
        last = (block[1] - 1) * (len(own) - block[1])
        assert drift.edge(block[1], X, Y) == pytest.approx(float(edge[last, last]))


@pytest.mark.parametrize("block", [(0, 1), (0, 3)])
def test_random_updates_of_the_factors_turn_a_product_as_said(block: tuple[int, int]) -> None:
    second, first = factors((24, 5, 20), 1)
    u, sigma, vt = torch.linalg.svd(second @ first)
    turned: list[list[float]] = [[], []]
    draw = torch.Generator().manual_seed(2)

    def moved(w: Tensor, variance: float) -> Tensor:
        noise = torch.randn(w.shape, generator=draw, dtype=torch.float64)
        return w + math.sqrt(variance) * noise

    for _ in range(600):
        after = torch.linalg.svd(moved(second, X) @ moved(first, Y))
        for count, (x, y) in enumerate(((u, after[0]), (vt.mT, after[2].mT))):
            x, y = x[:, slice(*block)], y[:, slice(*block)]
            turned[count].append(float((y - x @ (x.mT @ y)).square().sum()))
    assert float(sigma[2] - sigma[3]) > 0.1
    for found, (values, own, other, _), (x, y) in zip(
        turned, sides(second, first), ((X, Y), (Y, X)), strict=True
    ):
        drift: ProductDrift = product_drift(values[:5], own, other, outside=0, leading=4)
        mean, spread = drift.mean(block, x, y), drift.variance(block, x, y)
        assert abs(np.mean(found) - mean) < 4 * math.sqrt(spread / 600)
        assert np.var(found) == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize("shape", [(60, 4, 80), (2500, 3, 60)])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_sketch_of_a_product_gives_norms_of_differences(
    shape: tuple[int, int, int], rank: int
) -> None:
    rows, shared, columns = shape
    draw, errors = torch.Generator().manual_seed(0), []
    for _ in range(30):
        second = torch.randn(rows, shared, generator=draw, dtype=torch.float64)
        first = torch.randn(shared, columns, generator=draw, dtype=torch.float64)
        moved = second.clone()
        moved[:, :rank] += torch.randn(rows, rank, generator=draw, dtype=torch.float64)
        exact = float(((moved - second) @ first).square().sum())
        seen = product_sketch(moved, first) - product_sketch(second, first)
        errors.append(float(seen.square().sum()) / exact - 1)
    sd = math.sqrt(sketch_variance(rows * columns, size=PRODUCT_SKETCH_SIZE))
    assert abs(np.mean(errors)) < 4 * 1.8 * sd / math.sqrt(30)
    assert np.std(errors) < 1.8 * 1.5 * sd


def test_a_sketch_of_a_product_is_that_of_its_entries() -> None:
    draw = torch.Generator().manual_seed(3)
    second = torch.randn(40, 3, generator=draw, dtype=torch.float64)
    first = torch.randn(3, 2 * PRODUCT_SKETCH_SIZE, generator=draw, dtype=torch.float64)
    # A row whose length is a multiple of the size of a sketch would fall upon the others.
    norm = float((second @ first).square().sum())
    assert float(product_sketch(second, first).square().sum()) == pytest.approx(norm, rel=0.3)
    small = product_sketch(second, first[:, :50])
    assert torch.equal(small, (second @ first[:, :50]).reshape(-1))
