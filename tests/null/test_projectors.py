from __future__ import annotations

import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.null import (
    largest_cosine_significance,
    largest_cosine_threshold,
    projector_sum_edges,
    projector_sum_significance,
    projector_sum_threshold,
)
from null import sampling


def spectra(n: int, d: int, r: int, count: int, *, seed: int) -> np.ndarray:
    """Descending eigenvalues of n sums of `count` Haar projectors."""
    spaces = sampling.bases(n * count, d, r, seed=seed).reshape(n, count, d, r)
    total = torch.einsum("nhdr,nher->nde", spaces, spaces)
    return torch.linalg.eigvalsh(total).flip(-1).numpy()


@pytest.mark.parametrize(
    ("d", "r", "count"),
    [
        (16, 4, 3),
        (24, 4, 4),
        (24, 2, 12),
        (16, 8, 3),
        (20, 1, 6),
        (12, 9, 3),
        (13, 8, 3),
        (40, 8, 5),
    ],
)
def test_threshold_is_conservative_at_both_levels(d, r, count):
    n = 3_000
    top = spectra(n, d, r, count, seed=d + r)[:, projector_sum_edges(d, r, count).full]
    for level in (0.05, 0.01):
        threshold = projector_sum_threshold(d, r, count, level=level)
        if threshold is not None:
            sampling.assert_size(top > threshold, 0.0, level)
            # and not so conservative that a planted direction could hide far above chance
            assert threshold < np.quantile(top, 0.5) + 0.3 * count


@pytest.mark.parametrize(("d", "r"), [(8, 2), (12, 4), (9, 6)])
def test_two_projectors_have_the_exact_relation_to_cosines(d, r):
    full = projector_sum_edges(d, r, 2).full
    top = spectra(4_000, d, r, 2, seed=r)[:, full]
    for level in (0.05, 0.01):
        threshold = projector_sum_threshold(d, r, 2, level=level)
        assert threshold == 1 + largest_cosine_threshold(r, r, d, level=level)
        sampling.assert_size(top > threshold, 0.5 * level, 1.14 * level)


@pytest.mark.parametrize(("d", "r", "count"), [(60, 10, 4), (60, 20, 3), (60, 50, 3), (60, 5, 40)])
def test_edges_and_forced_eigenvalues(d, r, count):
    edges = projector_sum_edges(d, r, count)
    eigenvalues = spectra(20, d, r, count, seed=d)
    assert (np.abs(eigenvalues[:, : edges.full] - count) < 1e-9).all()
    assert (eigenvalues[:, edges.full] < count - 1e-9).all()
    assert (np.abs(eigenvalues[:, d - edges.zeros :]) < 1e-9).all()
    free = eigenvalues[:, edges.full : d - edges.zeros]
    assert abs(free[:, 0].mean() - edges.upper) < 0.06 * count
    assert abs(free[:, -1].mean() - edges.lower) < 0.06 * count


def test_conjugate_edges():
    ours, conjugate = projector_sum_edges(12, 9, 3), projector_sum_edges(12, 3, 3)
    assert ours.upper == pytest.approx(3 - conjugate.lower)
    assert ours.lower == pytest.approx(3 - conjugate.upper)


@pytest.mark.parametrize(
    ("d", "r", "count", "value"),
    [(384, 32, 12, 3.740), (768, 64, 12, 3.713), (4096, 128, 32, 3.893)],
)
def test_thresholds_of_common_models(d, r, count, value):
    assert projector_sum_threshold(d, r, count, level=0.01) == pytest.approx(value, abs=6e-4)


def test_levels_order():
    values = [projector_sum_threshold(64, 8, 8, level=level) for level in (0.05, 0.01, 0.001)]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("d", "r", "count"), [(8, 3, 1), (8, 8, 3), (8, 8, 2), (12, 8, 3), (1, 1, 4)]
)
def test_nothing_to_tell(d, r, count):
    assert projector_sum_threshold(d, r, count) is None


@pytest.mark.parametrize(("d", "r", "count"), [(8, 0, 3), (8, 9, 3), (8, 2, 0)])
def test_wrong_arguments_are_refused(d, r, count):
    with pytest.raises(InputError):
        projector_sum_threshold(d, r, count)


@pytest.mark.parametrize(
    ("d", "r", "count"),
    [(8, 2, 3), (16, 4, 3), (24, 4, 4), (24, 2, 12), (16, 8, 3), (20, 1, 6), (12, 9, 3),
     (13, 8, 3), (40, 8, 5), (8, 2, 2)],
)  # fmt: skip
def test_size_of_the_test(d, r, count):
    n = 6_000
    top = spectra(n, d, r, count, seed=d + r + count)[:, projector_sum_edges(d, r, count).full]
    for level in (0.05, 0.01, 0.001):
        share = sampling.tail_shares(
            lambda value: projector_sum_significance(value, d, r, count).p, top, level, center=0.0
        )[1]
        sampling.assert_share(share, n, 0.0, 1.1 * level)


@pytest.mark.parametrize(
    ("d", "r", "count"), [(8, 2, 3), (24, 4, 4), (12, 9, 3), (384, 32, 12), (768, 64, 12)]
)
def test_tail_is_finite_and_falls_up_to_the_number_of_projectors(d, r, count):
    values = np.linspace(projector_sum_edges(d, r, count).upper, count, 40)
    logs = [projector_sum_significance(float(v), d, r, count).log10_p for v in values]
    assert np.isfinite(logs).all()
    assert (np.diff(logs) < 0).all()
    threshold = projector_sum_threshold(d, r, count, level=0.01)
    if threshold is not None:
        at = projector_sum_significance(threshold, d, r, count)
        assert at.p == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize(("d", "r", "count"), [(5, 2, 3), (6, 2, 3), (7, 5, 3)])
def test_tail_near_the_end_has_the_power_of_the_law(d, r, count):
    # Between two quantiles near H the sample's tail falls no faster than the stated one.
    full = projector_sum_edges(d, r, count).full
    top = np.sort(spectra(60_000, d, r, count, seed=5)[:, full])
    far, near = top[-600], top[-6]
    stated = [projector_sum_significance(float(v), d, r, count).log10_p for v in (far, near)]
    assert stated[0] > -2.1
    assert stated[1] > -4.3
    power = 0.5 * (full + 1) * (count * (d - r) - d + full + 1)
    measured = 2 / np.log10((count - far) / (count - near))
    assert measured == pytest.approx(power, rel=0.35)


def test_two_projectors_are_tested_by_their_cosine():
    expected = largest_cosine_significance(0.9, 4, 4, 12).log10_p
    assert projector_sum_significance(1.9, 12, 4, 2).log10_p == pytest.approx(expected, rel=1e-9)
    assert projector_sum_significance(0.4, 12, 4, 2).p == pytest.approx(1.0)


@pytest.mark.parametrize(("d", "r", "count"), [(8, 3, 1), (8, 8, 3), (12, 8, 3)])
def test_no_freedom_is_a_status(d, r, count):
    result = projector_sum_significance(float(count), d, r, count)
    assert result.p is None
    assert "no freedom" in result.status


def test_values_out_of_range_are_refused():
    for value in (-0.1, 3.1, float("nan")):
        with pytest.raises(InputError):
            projector_sum_significance(value, 12, 3, 3)
