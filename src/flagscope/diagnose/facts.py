"""Facts about each map that the numbers of pairs need: noise, size, ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.geometry import (
    Matrices,
    PairSpectra,
    RankRule,
    numerical_rank,
    participation_ratio,
    power_of_two,
    signal_rank_of,
)


@dataclass(frozen=True)
class MapFacts:
    """Facts about the maps on one side of n pairs, other than spectra, that their numbers need.

    The maps are taken over powers of two, so that eighth powers of singular values stay in range.

    Attributes
    ----------
    shape
        (shared dimension, other dimension).
    delta, mean_square
        Noise of their storage, as in `Matrices`.
    norm
        Frobenius norms, shape (n,), float64, on the CPU.
    exponents
        Of their units, see `Matrices`, shape (n,).
    matrix
        Gives the i-th map, the shared space along the rows.
    signal
        Signal ranks, shape (n,), where the rule of the scan asks for them.
    """

    shape: tuple[int, int]
    delta: Float[Tensor, " n"]
    mean_square: Float[Tensor, " n"]
    norm: Float[Tensor, " n"]
    exponents: Int[Tensor, " n"]
    matrix: Callable[[int], Float[Tensor, "d m"]]
    signal: Int[Tensor, " n"] | None = None


def facts_of(
    maps: Matrices,
    *,
    read: bool,
    rule: RankRule,
    plain: Float[Tensor, "n rows columns"] | None = None,
) -> MapFacts:
    """The facts of normalised maps (see `Matrices.normalised`), given as writers or as readers.

    `plain` holds the maps before a mean was removed from them, where one was: only there is a
    coordinate of the shared space that of a neuron, with a scale of its own.
    """
    values = maps.values.mT if read else maps.values
    signal = None
    if rule.kind == "signal":
        signal = signal_rank_of(maps.values if plain is None else plain)
    return MapFacts(
        shape=(values.shape[1], values.shape[2]),
        delta=maps.delta,
        mean_square=maps.mean_square,
        norm=torch.linalg.matrix_norm(values).cpu().double(),
        exponents=maps.exponents,
        matrix=lambda i: values[i],
        signal=signal,
    )


@dataclass(frozen=True)
class Ranks:
    """Ranks of n maps, and the singular values they are read from.

    Attributes
    ----------
    sigma
        Singular values, descending.
    numerical, effective
        By the storage noise, and by the rule of the scan.
    participation
        Participation ratios; 0 for a map of rank 0.
    """

    sigma: Float[Tensor, "n s"]
    numerical: list[int]
    effective: list[int]
    participation: list[float]

    def whole_participation(self, i: int) -> int:
        """The participation ratio as a dimension: rounded, from 1 to the numerical rank."""
        return min(max(1, round(self.participation[i])), self.numerical[i])


def ranks_of(facts: MapFacts, sigma: Float[Tensor, "n s"], rule: RankRule) -> Ranks:
    """Ranks by the storage noise and by a rule, from singular values that are roots of a Gram's."""
    noise = facts.delta.to(sigma)
    numerical = numerical_rank(sigma, shape=facts.shape, noise=noise, gram=True)
    effective = rule.ranks(sigma, shape=facts.shape, noise=noise, gram=True, signal=facts.signal)
    participation = torch.where(numerical > 0, participation_ratio(sigma), 0)
    return Ranks(sigma, numerical.tolist(), effective.tolist(), participation.tolist())


def gram_noise(facts: MapFacts, spectra: PairSpectra) -> Float[Tensor, " n"]:
    """Estimate of the Frobenius norm of the error of W Wᵀ: 2 ‖W‖ ‖ΔW‖_F to first order."""
    error = (facts.mean_square * (facts.shape[0] * facts.shape[1])).sqrt()
    rounding = torch.finfo(spectra.alpha.dtype).eps * facts.norm
    return 2 * facts.norm * (error + rounding)


def gram_weights(
    like: Float[Tensor, "n p"], write: Int[Tensor, " n"], read: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Factors to one unit for the Gram matrices of n pairs: 4^e of both sides, over the larger."""
    top = torch.maximum(write, read)
    ones = torch.ones(len(write), dtype=torch.float64)
    of_a, of_b = (power_of_two(ones, 2 * (side - top)).to(like) for side in (write, read))
    return of_a, of_b
