"""The test of a common start, and what it explains: sizes counted, planted starts found."""

from __future__ import annotations

import math

import pytest
import torch

from flagscope.null import common_start, start_overlap


def kaiming(r, n, generator):
    """Rows as PEFT starts lora_A: uniform, of bound 1/√n."""
    return (torch.rand(r, n, generator=generator, dtype=torch.float64) * 2 - 1) / math.sqrt(n)


@pytest.mark.parametrize(("r", "n"), [(1, 64), (4, 64), (16, 256)])
def test_size_of_the_test(r, n):
    generator = torch.Generator().manual_seed(r)
    count, level = 2000, 0.05
    hits = sum(
        common_start(kaiming(r, n, generator), kaiming(r, n, generator)).significance.p < level
        for _ in range(count)
    )
    assert abs(hits - level * count) < 4 * math.sqrt(count * level * (1 - level))


def test_a_planted_start_is_found():
    generator = torch.Generator().manual_seed(0)
    start = kaiming(8, 256, generator)
    one, two = (start + 0.2 * kaiming(8, 256, generator) for _ in range(2))
    found = common_start(one, two)
    assert found.correlation == pytest.approx(1 / 1.04, abs=0.01)
    assert found.other_rows < 0.1
    assert found.significance.log10_p < -100
    torch.testing.assert_close(found.coefficients, torch.full((8,), 1 / 1.04).double(), atol=0.03,
                               rtol=0)  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_one_sided(sign):
    rows = kaiming(4, 100, torch.Generator().manual_seed(0))
    found = common_start(rows, sign * rows)
    assert (found.significance.p < 1e-6) == (sign == 1)


STARTS = [(8, 8, 256, 0.3), (8, 8, 256, 1.0), (4, 8, 100, 0.5), (16, 4, 64, 0.5), (6, 6, 14, 0.5)]


@pytest.mark.parametrize(("r", "s", "n", "change"), STARTS)
def test_overlap_of_strangers_with_one_start_is_explained(r, s, n, change):
    """z of 200 pairs that share nothing but the start: few lie far out."""
    generator = torch.Generator().manual_seed(1)
    zs = []
    for trial in range(200):
        start = kaiming(max(r, s), n, generator)
        one = start[:r] + change * kaiming(r, n, generator)
        two = start[:s] + change * kaiming(s, n, generator)
        q, z = torch.linalg.qr(one.T).Q, torch.linalg.qr(two.T).Q
        total = float((q.T @ z).square().sum())
        found = common_start(one, two)
        law = start_overlap(one, two, found.coefficients, draws=60, seed=trial)
        zs.append((total - law.mean) / law.sd)
    far = sum(abs(value) > 4 for value in zs)
    assert far <= 4, (far, sum(zs) / len(zs))
    assert abs(sum(zs) / len(zs)) < 0.5


def test_a_zero_factor_has_no_start():
    assert common_start(torch.zeros(2, 5), torch.ones(2, 5)) is None
