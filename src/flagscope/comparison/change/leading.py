"""Singular values and directions of one map: all of them, or the leading ones by few products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import equilibrated, gram, nothing_stands_out, signal_rank
from flagscope.geometry.matrices import line_norms
from flagscope.geometry.ritz import RitzSpace, orthonormalised, ritz_space

#: Size up to which all singular values of a map are computed.
DENSE = 1024

# A singular value in the bulk is found from below, to 1 % in the few products that are made.
_MISSED = 1.02

# Error of a Gram matrix's eigenvectors in units of roundoff, over the gap of the eigenvalues.
_ROUNDOFF = 30

# Leading directions that are looked at even where fewer stand out.
_FEW = 10


@dataclass(frozen=True)
class SignalCount:
    """Directions that stand out of the bulk, and whether there may be more."""

    rank: int
    complete: bool


def squared_norm(w: Float[Tensor, "p m"]) -> float:
    """‖W‖_F², the rows summed in the precision of the map and then in float64."""
    return float(line_norms(w, dim=-1).double().square().sum())


def is_dense(shape: tuple[int, int]) -> bool:
    """Whether all singular values of maps of a shape are computed."""
    return min(shape) <= DENSE


class Directions:
    """Singular values and singular directions of one map.

    Parameters
    ----------
    w
        The map.
    seed
        Of the random block of large maps.
    whole
        Whether all directions are computed, whatever the size.

    Attributes
    ----------
    coarse
        Whether all are computed in the map's own type, which is enough where none stands out: it
        is set before they are asked for.
    """

    def __init__(self, w: Float[Tensor, "p m"], *, seed: int, whole: bool = False) -> None:
        self.shape: tuple[int, int] = (w.shape[0], w.shape[1])
        self.dense = whole or is_dense(self.shape)
        self._wide = w.shape[0] <= w.shape[1]
        self._w, self._seed = w, seed
        self.coarse = not is_dense(self.shape)
        self._leading: dict[bool, Tensor] = {}

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Squares of the singular values, descending, and the directions of the shorter side."""
        # Large maps stay in their own type: a float64 copy and eigenproblem would be too large.
        short = self._short
        values, vectors = torch.linalg.eigh(gram(short))
        return values.flip(-1).clamp_min(0), vectors.flip(-1)

    @cached_property
    def _ritz(self) -> RitzSpace:
        generator = torch.Generator().manual_seed(self._seed)
        return ritz_space(self._w, generator=generator)

    @property
    def _short(self) -> Float[Tensor, "s l"]:
        w = self._w if self._wide else self._w.mT
        return w if self.coarse else w.double()

    @cached_property
    def sigma(self) -> Float[Tensor, " k"]:
        """Singular values that are known, descending, float64."""
        if self.dense:
            return self._eigen[0].double().sqrt()
        return self._ritz.sigma[: self._ritz.found]

    @property
    def following(self) -> float:
        """The largest singular value behind the known ones, with what few products miss of it."""
        return 0.0 if self.dense else _MISSED * self._ritz.following

    def turn(self, k: int) -> float:
        """What the computation itself may turn the leading k directions by."""
        if self.dense:
            squares = self._eigen[0]
            gap = float(squares[k - 1] - squares[k]) if k < len(squares) else float(squares[-1])
            rounding = _ROUNDOFF * torch.finfo(squares.dtype).eps * float(squares[0])
            return min(1.0, rounding / gap) if gap > 0 else 1.0
        return float(self._ritz.turns[k - 1]) if 0 < k <= len(self._ritz.turns) else 1.0

    def left(self, part: slice) -> Float[Tensor, "p k"]:
        """Output directions, orthonormal, float64."""
        if not self.dense:
            return self._ritz.left[:, part]
        return self._cached(part, short=self._wide)

    def right(self, part: slice) -> Float[Tensor, "m k"]:
        """Input directions, orthonormal, float64."""
        if not self.dense:
            return self._ritz.right[:, part]
        return self._cached(part, short=not self._wide)

    def _cached(self, part: slice, *, short: bool) -> Tensor:
        """Leading directions, of which many parts are asked for, are computed once."""
        if part.stop == part.start:
            return self._w.new_zeros(self._lines(short), 0, dtype=torch.float64)
        most = max(self.signal.rank, _FEW)
        if part.stop > most:
            return self._side(part, short=short)
        if short not in self._leading:
            self._leading[short] = self._side(slice(0, most), short=short)
        return self._leading[short][:, part]

    def _lines(self, short: bool) -> int:
        return min(self.shape) if short else max(self.shape)

    def _side(self, part: slice, *, short: bool) -> Tensor:
        vectors = self._eigen[1][:, part]
        if short:
            return vectors if vectors.dtype == torch.float64 else orthonormalised(vectors)
        # W v / σ; the factorisation gives what round-off leaves of small ones an exact length.
        return orthonormalised(self._short.mT @ vectors)

    def overlaps(self, x: Float[Tensor, "n k"], *, left: bool) -> Float[Tensor, "j k"]:
        """Inner products of all known directions with the columns of x."""
        if not self.dense:
            basis = (self._ritz.left if left else self._ritz.right)[:, : self._ritz.found]
            return basis.mT @ x
        vectors = self._eigen[1]
        if left == self._wide:
            return (vectors.mT @ x.to(vectors)).double()
        image = vectors.mT @ (self._short @ x.to(vectors))
        floor = torch.finfo(vectors.dtype).eps ** 0.5 * float(self.sigma[0])
        return (image.double() / self.sigma.clamp_min(floor or 1.0)[:, None]).clamp(-1, 1)

    @cached_property
    def signal(self) -> SignalCount:
        """Directions that stand out of the bulk, among those known."""
        counted = signal_count(self._w, seed=self._seed)
        known = min(self.shape) if self.dense else len(self.sigma)
        return SignalCount(min(counted.rank, known), counted.complete and counted.rank <= known)


def signal_count(w: Float[Tensor, "p m"], *, seed: int) -> SignalCount:
    """The signal rank of a map; of a large one as far as few products give it."""
    even = equilibrated(w)
    shape = int(even.rows), int(even.columns)
    if is_dense((w.shape[0], w.shape[1])):
        values = even.values if w.shape[0] <= w.shape[1] else even.values.mT
        matrix = gram(values)
        square = float(matrix.diagonal().double().sum())
        if nothing_stands_out(matrix, square=square, shape=shape):
            return SignalCount(0, True)
        sigma = torch.linalg.eigvalsh(matrix).clamp_min(0).sqrt()
        counted = signal_rank(sigma, square=square, shape=shape, gram=True)
        return SignalCount(int(counted.ranks), True)
    square = squared_norm(even.values)
    space = ritz_space(even.values, generator=torch.Generator().manual_seed(seed))
    most = len(space.sigma) // 2
    leading = space.sigma[:most]
    counted = signal_rank(
        leading, square=max(square, 1.001 * float(leading.square().sum())), shape=shape, gram=True
    )
    rank = int(counted.ranks)
    return SignalCount(rank, rank < most)
