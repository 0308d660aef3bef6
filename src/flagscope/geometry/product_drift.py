"""How far random updates of two factors turn the singular spaces of their product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_NEAR = 24  # directions into which a turn can outweigh all others


@dataclass(frozen=True)
class ProductDrift:
    """Σ sin² of the singular spaces of one side of P = W2 W1, and what of it chance decides.

    For independent entries of variance x in the factor of this side (W2 for left directions, W1
    for right ones) and y in the other. Blocks are those of the leading k directions, from `start`
    to before `stop`.

    Attributes
    ----------
    means
        By start and stop - 1: coefficients of x and y in E Σ sin², shape (k, k, 2).
    squares
        Coefficients of x², y² and x y in half of its variance, shape (k, k, 3).
    edges
        By the number of directions before an edge, less one: coefficients of x and y in the
        variance of the angle by which the directions before and behind it turn into each other,
        shape (k, 2).
    sigma, near
        The leading singular values, 24 at most, and the inner products of a and of b there.
    outside
        Dimensions of this side outside of the range.
    """

    means: Float[Tensor, "k k 2"]
    squares: Float[Tensor, "k k 3"]
    edges: Float[Tensor, "k 2"]
    sigma: Float[Tensor, " n"]
    near: Float[Tensor, "2 n n"]
    outside: int

    def mean(self, block: tuple[int, int], x: float, y: float) -> float:
        """E Σ sin² of a block."""
        own, other = self.means[block[0], block[1] - 1].tolist()
        return x * own + y * other

    def parts(self, block: tuple[int, int], x: float, y: float) -> tuple[float, float]:
        """What the two factors have of the mean."""
        own, other = self.means[block[0], block[1] - 1].tolist()
        return x * own, y * other

    def variance(self, block: tuple[int, int], x: float, y: float) -> float:
        """Variance of Σ sin² of a block."""
        own, other, both = self.squares[block[0], block[1] - 1].tolist()
        return 2 * (x * x * own + y * y * other + x * y * both)

    def third(self, block: tuple[int, int], x: float, y: float) -> float:
        """Third cumulant of Σ sin² of a block, from turns into the leading 24 and outside."""
        order = torch.arange(len(self.sigma))
        inside = (order >= block[0]) & (order < block[1])
        inner, outer = order[inside], order[~inside]
        sigma, (a, b) = self.sigma, self.near
        gaps = sigma[inner, None].square() - sigma[outer].square()
        f, h = sigma[inner, None] / gaps, sigma[outer] / gaps

        def grams(part: Tensor, one: Tensor, two: Tensor) -> Tensor:
            """Of lines of f and h: those of `part`, one for each column of `one`."""
            of_b = (x * b)[part][:, part] * one.mT[:, :, None] * one.mT[:, None, :]
            return of_b + (y * a)[part][:, part] * two.mT[:, :, None] * two.mT[:, None, :]

        rows, columns = len(inner), len(outer)
        whole = torch.zeros(rows, columns, rows, columns, dtype=sigma.dtype)
        whole.diagonal(dim1=1, dim2=3).add_(grams(inner, f, h).permute(1, 2, 0))
        whole.diagonal(dim1=0, dim2=2).add_(grams(outer, h.mT, f.mT).permute(1, 2, 0))
        within = whole.reshape(rows * columns, rows * columns)
        beyond = x * b[inner][:, inner] / (sigma[inner, None] * sigma[inner])
        total = ((within @ within) * within).sum()
        return float(8 * (total + self.outside * ((beyond @ beyond) * beyond).sum()))

    def edge(self, k: int, x: float, y: float) -> float:
        """Variance of the angle between the directions before and behind the k-th gap."""
        own, other = self.edges[k - 1].tolist()
        return x * own + y * other


def product_drift(
    sigma: Float[Tensor, " k"],
    own: Float[Tensor, "l d"],
    other: Float[Tensor, "l d"],
    *,
    outside: int,
    leading: int,
) -> ProductDrift:
    """First-order turn of the left singular spaces of P = W2 W1 under E2 W1 + W2 E1.

    With a_i = W2ᵀ u_i and b_j = W1 w_j in the basis of the singular vectors u, w of P, the update
    has the coordinates C_ij = e2_i·b_j + a_i·e1_j, where the rows e2_i of UᵀE2 and the columns
    e1_j of E1 W have independent entries of variance x and y. To first order u_i turns towards u_j
    by (σ_i C_ji + σ_j C_ij)/(σ_i² - σ_j²), with the covariance

        δ_jl (σ_i σ_k x b_i·b_k + σ_j² y a_i·a_k) + δ_ik (σ_i² y a_j·a_l + σ_j σ_l x b_j·b_l)

    over (σ_i² - σ_j²)(σ_k² - σ_l²), for i and k in the space, j and l out of it. It is not the
    law of an update of P with independent entries.

    Parameters
    ----------
    sigma
        Singular values of P above 0, descending.
    own
        Rows a_i, for a basis of the range of W2 of which the first are u_1, …; for right
        directions the rows b_j, of the range of W1ᵀ.
    other
        Rows b_j; for right directions a_i. As many rows as `own`, zero beyond the singular values.
    outside
        Dimensions of this side outside of that range.
    leading
        Directions, k, of which blocks are made: at most as many as singular values.

    Returns
    -------
    ProductDrift
        Infinite where a value of a block equals one outside.

    References
    ----------
    G. W. Stewart and J. Sun, Matrix Perturbation Theory (1990), section V.4, for the turn.

    Examples
    --------
    Of W2 = 2 and W1 = 3 with one more row in W2: e2 W1/σ, hence 3²/6² x.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> drift = product_drift(6 * one[0], 2 * one, 3 * one, outside=1, leading=1)
    >>> drift.mean((0, 1), 1.0, 1.0)
    0.25
    """
    spectrum = sigma.new_zeros(len(own))
    count = min(len(sigma), len(own))
    spectrum[:count] = sigma[:count]
    terms = _Terms(spectrum, own @ own.mT, other @ other.mT, outside)
    near = torch.stack([gram[:_NEAR, :_NEAR] for gram in (terms.a, terms.b)])
    return ProductDrift(
        *terms.blocks(leading), terms.edges(leading), spectrum[:_NEAR], near, outside
    )


@dataclass(frozen=True)
class _Terms:
    """Singular values, Gram matrices of a and of b, and dimensions outside."""

    sigma: Float[Tensor, " l"]
    a: Float[Tensor, "l l"]
    b: Float[Tensor, "l l"]
    outside: int

    def edges(self, k: int) -> Float[Tensor, "k 2"]:
        """Coefficients of x and y in the variance of the turn of each of k into the next one."""
        # Behind all of the range lies what is outside, of which a, b and σ are zero.
        squares, a, b = (
            torch.cat([x, x.new_zeros(1)])
            for x in (self.sigma.square(), self.a.diagonal(), self.b.diagonal())
        )
        one, two = slice(0, k), slice(1, k + 1)
        own = squares[one] * b[one] + squares[two] * b[two]
        other = squares[one] * a[two] + squares[two] * a[one]
        edges = torch.stack([own, other], -1) / (squares[one] - squares[two]).square()[:, None]
        if k == len(self.sigma) and not self.outside:
            edges[-1] = 0
        return edges

    def blocks(self, k: int) -> tuple[Float[Tensor, "k k 2"], Float[Tensor, "k k 3"]]:
        """Coefficients of the means, and of half of the variances, of all blocks of k directions.

        By the first direction and the last one. All are computed at once, the turns of directions
        within a block, or outside of it, into anything as zero.
        """
        order = torch.arange(len(self.sigma), device=self.sigma.device)
        first, last = order[:k, None, None], order[:k, None]
        inside = (order >= first) & (order <= last)
        turning = inside[..., :k, None] & ~inside[..., None, :]
        squares = self.sigma.square()
        gaps = squares[:k, None] - squares
        f = torch.where(turning, self.sigma[:k, None] / gaps, 0)
        h = torch.where(turning, self.sigma / gaps, 0)
        ff, hh, fh = f * f, h * h, f * h
        within = inside[..., :k].to(f)
        a, b = self.a.diagonal(), self.b.diagonal()
        a_i, b_i = a[:k, None], b[:k, None]
        far = b[:k] / squares[:k]
        own = (b_i * ff + b * hh).sum((-1, -2)) + self.outside * (within @ far)
        other = (a * ff + a_i * hh).sum((-1, -2))

        def both(i: Tensor, gram_i: Tensor, j: Tensor, gram_j: Tensor) -> Tensor:
            """Over i and k at one j, and over j and l at one i."""
            rows = (gram_i[:k, :k] * (i @ i.mT)).sum((-1, -2))
            return rows + ((j @ gram_j) * j).sum((-1, -2))

        outer = (self.b[:k, :k] / (self.sigma[:k, None] * self.sigma[:k])).square()
        x = both(ff, self.b.square(), hh, self.b.square())
        x = x + 2 * (b_i * b * ff * hh).sum((-1, -2))
        x = x + self.outside * ((within @ outer) * within).sum(-1)
        y = both(hh, self.a.square(), ff, self.a.square())
        y = y + 2 * (a_i * a * ff * hh).sum((-1, -2))
        mixed = both(fh, self.a * self.b, fh, self.a * self.b)
        mixed = mixed + (b_i * a * ff * ff + a_i * b * hh * hh).sum((-1, -2))
        return torch.stack([own, other], -1), torch.stack([x, y, 2 * mixed], -1)
