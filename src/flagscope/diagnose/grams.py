"""Observables of the two Gram matrices of a pair, with their nulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.values import number
from flagscope.geometry import PairSpectra, centred_spectrum
from flagscope.geometry.balance import imbalance
from flagscope.geometry.commutator import commutation_defect, commutator_ratio
from flagscope.geometry.correlation import gram_correlation
from flagscope.null import commutator_null, correlation_null, gram_spectrum

# Haar draws where the tails of C have no closed form.
_DRAWS = 9999
ISOTROPIC = "a Gram matrix is isotropic within storage noise: C, rho and nu are undefined"


class GramFields(TypedDict):
    """What a pair's record takes as it is: named here, so that a new observable ends here."""

    commutator_ratio: float | None
    gram_correlation: float | None
    gram_correlation_z: float | None
    commutation_defect: float | None
    imbalance: float | None


@dataclass(frozen=True)
class GramObservables:
    """Observables of the Gram matrices of one pair; None where undefined, as `status` says."""

    imbalance: float | None = None
    commutator_ratio: float | None = None
    commutator_p: float | None = None
    gram_correlation: float | None = None
    gram_correlation_z: float | None = None
    gram_correlation_p: float | None = None
    commutation_defect: float | None = None
    commutator_interval: tuple[float, float] | None = None
    correlation_sd: float | None = None
    defect_mean: float | None = None
    defect_sd: float | None = None
    status: str = "ok"

    def fields(self) -> GramFields:
        """The fields that a pair's record takes as they are."""
        return {
            "commutator_ratio": self.commutator_ratio,
            "gram_correlation": self.gram_correlation,
            "gram_correlation_z": self.gram_correlation_z,
            "commutation_defect": self.commutation_defect,
            "imbalance": self.imbalance,
        }


def gram_observables(
    spectra: PairSpectra,
    noise_write: Float[Tensor, " n"],
    noise_read: Float[Tensor, " n"],
    *,
    seed: int,
    weights: tuple[Float[Tensor, " n"], Float[Tensor, " n"]] | None = None,
    spread: Sequence[float] | None = None,
    tested: bool = True,
) -> list[GramObservables]:
    """C, ρ, ν and the imbalance of each pair of a batch, with their nulls.

    Parameters
    ----------
    spectra
        Of n pairs.
    noise_write, noise_read
        Estimates of the Frobenius norms of the errors of A and B. Where the trace-free part of
        either is not larger, C, ρ and ν are undefined.
    seed
        Of the Haar draws that stand in where no closed form of the null of C holds.
    weights
        Factors of A and of B, where those of `spectra` are not to scale.
    spread
        Spread of ρ under the null of each pair, in units of its Haar value; 1 by default.
    tested
        Whether the p-value of C is wanted, for which draws may be needed.
    """
    a, b = centred_spectrum(spectra.alpha, spectra.d), centred_spectrum(spectra.beta, spectra.d)
    uneven = a.square.sqrt().cpu() > noise_write, b.square.sqrt().cpu() > noise_read
    tensors = (
        *(commutator_ratio(spectra), gram_correlation(spectra)),
        *(commutation_defect(spectra), imbalance(spectra, weights=weights)),
    )
    rows = zip(*(t.tolist() for t in tensors), strict=True)
    defined = (uneven[0] & uneven[1]).tolist()
    return [
        _observables(
            spectra,
            i,
            *row,
            seed=seed,
            tested=tested,
            spread=1.0 if spread is None else spread[i],
        )
        if ok
        else GramObservables(number(row[3]), status=ISOTROPIC)
        for i, (row, ok) in enumerate(zip(rows, defined, strict=True))
    ]


def _observables(
    spectra: PairSpectra,
    i: int,
    c: float,
    rho: float,
    nu: float,
    unbalanced: float,
    *,
    seed: int,
    spread: float,
    tested: bool,
) -> GramObservables:
    d = spectra.d
    write = gram_spectrum(spectra.alpha[i].cpu().numpy(), d)
    read = gram_spectrum(spectra.beta[i].cpu().numpy(), d)
    correlation = correlation_null(write, read)
    commutator = commutator_null(write, read, draws=_DRAWS if tested else 0, seed=seed)
    if correlation is None or commutator is None:
        return GramObservables(number(unbalanced), status=ISOTROPIC)
    rho_test = correlation.significance(rho / spread)
    return GramObservables(
        imbalance=number(unbalanced),
        commutator_ratio=number(c),
        commutator_p=commutator.significance(max(c, 0.0)).p,
        gram_correlation=number(rho),
        gram_correlation_z=rho_test.z,
        gram_correlation_p=rho_test.p,
        commutation_defect=number(nu),
        commutator_interval=commutator.interval,
        correlation_sd=correlation.sd * spread,
        defect_mean=commutator.defect_mean,
        defect_sd=commutator.defect_sd,
    )
