"""What several pairs need of one map in a sharp scan, measured before norms are folded into it.

A norm's gain scales coordinates of the shared space. That scales rows and columns of the Gram
matrix, and leaves the signal rank as it is, which is counted when all scales are divided out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import (
    GramSide,
    Matrices,
    RankRule,
    SmallGram,
    counted_rank,
    counted_signal_rank,
    leading_space,
    power_of_two,
    small_gram,
)

# Residual at which the largest singular value alone is known well enough for a threshold.
_TOP = 0.1


@dataclass(frozen=True)
class BareMap:
    """A map before norms are folded in.

    Attributes
    ----------
    gram
        Its smaller Gram matrix, or None where that is of no use.
    exponent
        Of its unit.
    signal
        Its signal rank; None by other rules.
    numerical, least
        Numerical rank, and a lower bound of the singular values that count in it; 0 without `gram`.
    """

    gram: SmallGram | None
    exponent: int
    signal: int | None
    numerical: int = 0
    least: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return 0 if self.gram is None else self.gram.centred.nbytes


def bare_map(
    again: Callable[[], Matrices], *, read: bool, rule: RankRule, seed: int, gram: bool = True
) -> BareMap | None:
    """Measure a map before norms are folded in.

    Parameters
    ----------
    again, read, rule, seed
        As for `sharp_map`.
    gram
        Whether its Gram matrix is of use.

    Returns
    -------
    BareMap or None
        None where it has a fault.
    """
    maps = again()
    if maps.faults() != [None]:
        return None
    normal = maps.normalised()
    values = normal.values[0].mT if read else normal.values[0]
    generator = random_vectors(seed)
    signal = counted_signal_rank(values, generator=generator) if rule.kind == "signal" else None
    exponent = int(normal.exponents[0])
    if not gram:
        return BareMap(None, exponent, signal)
    small = small_gram(values)
    rank, least, _ = numerical_rank_of(small.uncentred, values, float(normal.delta[0]), generator)
    return BareMap(small, exponent, signal, rank, least)


@dataclass(frozen=True)
class FoldedSide:
    """The Gram side of a map with norms folded in.

    Attributes
    ----------
    side
        By scaling that of the bare map.
    known
        Numerical rank and a lower bound of the singular values that count in it, where nothing is
        folded in.
    least
        Otherwise a lower bound of all of them.
    """

    side: GramSide
    known: tuple[int, float] | None = None
    least: float = 0.0


@dataclass(frozen=True)
class Folding:
    """How a map comes about from a bare one: its rows, of the shared space, times scales.

    Attributes
    ----------
    bare
        The bare map.
    scale
        Shape (d,) or (1,); None where nothing is folded in.
    """

    bare: BareMap
    scale: Float[Tensor, " d"] | None = None

    @property
    def signal(self) -> int | None:
        """Signal rank; None where it is not known, as where a scale is zero."""
        if self.scale is not None and bool((self.scale == 0).any()):
            return None
        return self.bare.signal

    def side(
        self, shape: tuple[int, int], exponent: int, matrix: Callable[[], Float[Tensor, "d m"]]
    ) -> FoldedSide | None:
        """Its Gram side, in the unit of the map with its scales; None if it has to be formed anew.

        So it is where d > m and scales are folded in: they lie inside of the smaller Gram matrix.
        """
        gram, d = self.bare.gram, shape[0]
        if gram is None:
            return None
        if self.scale is None:
            return FoldedSide(gram.side(d, matrix), (self.bare.numerical, self.bare.least))
        if d > shape[1]:
            return None
        unit = torch.tensor(self.bare.exponent - exponent)
        factors = power_of_two(self.scale.double(), unit).expand(d)
        every = self.bare.numerical == len(gram.centred)
        least = self.bare.least * float(factors.abs().amin()) if every else 0.0
        side = gram.scaled(factors.to(gram.centred)).side(d, matrix)
        return FoldedSide(side, least=least)


def numerical_rank_of(
    raw: Float[Tensor, "n n"], values: Float[Tensor, "d m"], delta: float,
    generator: torch.Generator, *, folded: FoldedSide | None = None,
) -> tuple[int, float, float]:  # fmt: skip
    """Numerical rank, a lower bound of the values that count in it, and the largest one.

    Parameters
    ----------
    raw, values
        The smaller Gram matrix of the map, and the map.
    delta
        Spectral norm of its noise.
    generator
        Of random vectors.
    folded
        What is known of it by its bare map.
    """
    n, (d, m) = len(raw), values.shape
    top = leading_space(
        lambda x: raw @ x, n, min(n, 1), generator=generator, dtype=raw.dtype, device=raw.device,
        tolerance=_TOP,
    ).values  # fmt: skip
    sigma = math.sqrt(float(top[0])) if len(top) else 0.0
    rounding = math.sqrt(max(d, m) * torch.finfo(torch.float64).eps) * sigma
    threshold = max(delta, rounding)
    if folded is not None and folded.known is not None:
        return *folded.known, sigma
    if folded is not None and folded.least > threshold:
        return n, folded.least, sigma
    rank, least = counted_rank(
        raw, values if n == d else values.mT, threshold=threshold, top=sigma, generator=generator
    )
    return rank, least, sigma


def random_vectors(seed: int) -> torch.Generator:
    """Source of random vectors; equal seeds give equal ones."""
    return torch.Generator().manual_seed(seed)
