"""Upper estimates of what rounding does to diagnostics hold for drawn errors, and are not empty."""

from __future__ import annotations

import math

import pytest
import torch

from flagscope.geometry import (
    commutation_defect,
    commutator_ratio,
    gram_correlation,
    imbalance,
    pair_spectra,
    participation_ratio,
)
from flagscope.geometry.rounding_of_diagnostics import gram_rounding, rounding_of_diagnostics

D, INPUTS, OUTPUTS = 32, 96, 64
FIELDS = ("commutator_ratio", "gram_correlation", "commutation_defect", "imbalance")


def diagnostics(write: torch.Tensor, read: torch.Tensor) -> dict[str, float]:
    spectra = pair_spectra(write[None], read[None])
    functions = (commutator_ratio, gram_correlation, commutation_defect, imbalance)
    return {name: float(f(spectra)) for name, f in zip(FIELDS, functions, strict=True)}


@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize("relative", [1e-4, 1e-2])
def test_drawn_errors_stay_below_them(decay: float, relative: float) -> None:
    generator = torch.Generator().manual_seed(5)
    profile = torch.arange(1, D + 1, dtype=torch.float64) ** -decay
    largest = dict.fromkeys(FIELDS, 0.0)
    for _ in range(40):
        write = profile[:, None] * torch.randn(D, INPUTS, generator=generator).double()
        mixing = torch.linalg.qr(torch.randn(D, D, generator=generator).double())[0]
        read = torch.randn(OUTPUTS, D, generator=generator).double() * profile @ mixing
        before = diagnostics(write, read)
        after = diagnostics(
            *(
                w + relative * w.norm() / e.norm() * e
                for w in (write, read)
                for e in [torch.randn(w.shape, generator=generator).double()]
            )
        )
        ratios = [float(participation_ratio(torch.linalg.svdvals(w))) for w in (write, read)]
        sizes = (INPUTS, OUTPUTS)
        bounds = rounding_of_diagnostics(
            tuple(gram_rounding(relative, n, participation=r, d=D)
                  for n, r in zip(sizes, ratios, strict=True)),
            tuple(relative * math.sqrt(2 * r / n) for n, r in zip(sizes, ratios, strict=True)),
            commutator_ratio=before["commutator_ratio"],
            gram_correlation=before["gram_correlation"],
            commutation_defect=before["commutation_defect"],
        )  # fmt: skip
        for field in FIELDS:
            bound = getattr(bounds, field)
            largest[field] = max(largest[field], abs(after[field] - before[field]) / bound)
    assert all(0.02 < share < 1 for share in largest.values()), largest


def test_a_flat_gram_matrix_has_no_finite_error() -> None:
    assert gram_rounding(1e-3, 10, participation=4.0, d=4) == math.inf


def test_commuting_maps_have_no_bound_of_the_defect() -> None:
    found = rounding_of_diagnostics(
        (1e-3, 1e-3), (1e-3, 1e-3),
        commutator_ratio=0.0, gram_correlation=1.0, commutation_defect=0.0,
    )  # fmt: skip
    assert found.commutation_defect is None
    assert found.gram_correlation > 0
