"""Two factors that may have started from the same random numbers: test, and what it explains.

LoRA's A starts random, and two adapters trained with one seed keep most of it: a_i = x_i + …,
b_i = x_i + …, row by row. What is left of a row of the second after its component along the same
row of the first is random in direction if nothing but the start is shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.null.significance import Significance
from flagscope.null.tails import log_beta_tails

_DRAWS = 200
_RESOLVED = 1e-12
_LN2 = math.log(2.0)


@dataclass(frozen=True, eq=False)
class CommonStart:
    """The part of a factor's rows that lies along the same rows of another.

    Attributes
    ----------
    correlation
        Of all entries of the rows that both have, about zero.
    other_rows
        Root mean square of the cosines of rows with different numbers: what it would be if rows
        were exchanged.
    significance
        Of the correlation, one-sided, for a vector of entries in random direction.
    coefficients
        Component b_i = α_i a_i + e_i, 0 for rows that only one has; shape of the second's rows.
    """

    correlation: float
    other_rows: float
    significance: Significance
    coefficients: Float[Tensor, " s"]


def common_start(one: Float[Tensor, "r n"], two: Float[Tensor, "s n"]) -> CommonStart | None:
    """Whether two factors share their start, row by row; None where a factor is zero.

    Parameters
    ----------
    one, two
        Rows of both factors; the first min(r, s) are compared.

    Notes
    -----
    For N entries in uniformly random direction the squared cosine is Beta(1/2, (N-1)/2); for
    independent entries of any law with four moments that is so up to O(1/N).

    Examples
    --------
    >>> import torch
    >>> rows = torch.randn(4, 500, generator=torch.Generator().manual_seed(0)).double()
    >>> found = common_start(rows, rows + 0.1 * rows.flip(1))
    >>> round(found.correlation, 2), found.significance.log10_p < -100
    (1.0, True)
    """
    count, width = min(len(one), len(two)), one.shape[1]
    a, b = one[:count].to(torch.float64), two[:count].to(torch.float64)
    size = float(a.norm() * b.norm())
    if size == 0.0 or count * width < 2:
        return None
    correlation = max(-1.0, min(1.0, float((a * b).sum()) / size))
    lengths = a.norm(dim=1)[:, None] * b.norm(dim=1)[None, :]
    cosines = (a @ b.T) / lengths.clamp_min(torch.finfo(torch.float64).tiny)
    off = cosines - torch.diag(cosines.diagonal())
    others = math.sqrt(float(off.square().sum()) / max(1, count * (count - 1)))
    # Rounding does not resolve cosines nearer to 1.
    square = min(correlation**2, 1 - _RESOLVED)
    _, log_sf = log_beta_tails(square, 0.5, (count * width - 1) / 2)
    tail = log_sf - _LN2 if correlation > 0 else math.log1p(-math.exp(min(log_sf - _LN2, -1e-300)))
    z = correlation * math.sqrt(count * width)
    coefficients = two.new_zeros(len(two), dtype=torch.float64)
    squares = a.square().sum(1)
    coefficients[:count] = (a * b).sum(1) / torch.where(squares > 0, squares, 1)
    return CommonStart(correlation, others, Significance.one_sided(z, log_tail=tail), coefficients)


@dataclass(frozen=True)
class StartOverlap:
    """Overlap of two row spaces that a common start alone gives.

    Attributes
    ----------
    mean, sd
        Of Σcos² over draws of what the start leaves.
    """

    mean: float
    sd: float


def start_overlap(
    one: Float[Tensor, "r n"],
    two: Float[Tensor, "s n"],
    coefficients: Float[Tensor, " s"],
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> StartOverlap:
    """Σcos² of the row spaces of A and of α A + E, for E of the second's lengths and random.

    Parameters
    ----------
    one, two
        Rows of both factors, of full rank.
    coefficients
        α of `common_start`.
    draws, seed
        Random draws. Each costs O(r³): E enters by its part in the row space of A, which is
        normal, and by the Gram matrix of the rest, which is Wishart.

    Examples
    --------
    >>> import torch
    >>> rows = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).double()
    >>> found = start_overlap(rows, rows, torch.ones(2).double())
    >>> round(found.mean, 6)
    2.0
    """
    r, n = one.shape
    s, shared = len(two), min(len(one), len(two))
    triangle = torch.linalg.qr(one.to(torch.float64).T, mode="r").R.T  # A = triangle · Qᵀ
    common = torch.zeros(s, min(r, n), dtype=torch.float64)
    common[:shared] = coefficients[:shared, None] * triangle[:shared]
    along = torch.zeros(s, dtype=torch.float64)
    along[:shared] = coefficients[:shared].square() * triangle[:shared].square().sum(1)
    left = (two.to(torch.float64).square().sum(1) - along).clamp_min(0)
    scale = (left / max(1, n - 1)).sqrt()[:, None]
    generator = torch.Generator().manual_seed(seed)
    directions = triangle / triangle.norm(dim=1, keepdim=True).clamp_min(1e-300)
    totals = []
    for _ in range(draws):
        inside = torch.randn(s, triangle.shape[1], generator=generator, dtype=torch.float64)
        own = (inside[:shared] * directions[:shared]).sum(1, keepdim=True)
        inside[:shared] -= own * directions[:shared]
        rest = _wishart(s, n - triangle.shape[1], generator)
        part = common + scale * inside
        whole = part @ part.T + scale * rest * scale.T
        totals.append(float(torch.trace(torch.linalg.pinv(whole, hermitian=True) @ part @ part.T)))
    sample = torch.tensor(totals, dtype=torch.float64)
    return StartOverlap(float(sample.mean()), float(sample.std()))


def _wishart(size: int, freedom: int, generator: torch.Generator) -> Float[Tensor, "s s"]:
    """A Wishart matrix by Bartlett's decomposition; of few degrees of freedom by its definition."""
    if freedom < size:
        rows = torch.randn(size, max(0, freedom), generator=generator, dtype=torch.float64)
        return rows @ rows.T
    lower = torch.randn(size, size, generator=generator, dtype=torch.float64).tril(-1)
    degrees = torch.arange(freedom, freedom - size, -1, dtype=torch.float64)
    # Chi-squared of many degrees of freedom; the cube of a normal number is right to 1e-3 of sd.
    normal = torch.randn(size, generator=generator, dtype=torch.float64)
    ninth = 2 / (9 * degrees)
    lower += torch.diag((degrees * (1 - ninth + normal * ninth.sqrt()) ** 3).clamp_min(0).sqrt())
    return lower @ lower.T
