"""Equilibration: rows and columns of a matrix brought to equal mean square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import real_tensor

# The edge of the bulk fluctuates by p^{-2/3} of itself, .4 % at p = 4096, and unequal rows move it
# by the mean of their squared deviations only, so this is far below what a count could notice.
_TOLERANCE = 1e-4

# Exponents below which a power of two is a number of float32, as is its reciprocal.
_PLAIN = 100

# Entries taken at a time: the copy of a block in float64 is 2 MiB.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Equilibrated:
    """A batch of maps whose rows and columns have equal mean square.

    Attributes
    ----------
    values
        Shape (..., rows, columns): w_ij scaled by a factor of row i and a factor of column j, so
        that the mean square over the rows and columns that are not zero is 1. Zero rows and
        columns stay in their place.
    rows, columns
        Number of rows and of columns that are not zero, shape (...), int64. The singular values of
        `values` are those of a matrix of that shape, and zeros.
    deviation
        Largest relative deviation of a row's mean square from 1, shape (...), float64. Columns
        have none. 1e-4 or less where the iteration converged.
    """

    values: Float[Tensor, "*batch rows columns"]
    rows: Int[Tensor, "*batch"]
    columns: Int[Tensor, "*batch"]
    deviation: Float[Tensor, "*batch"]


def equilibrated(w: Float[Tensor, "*batch rows columns"], *, passes: int = 12) -> Equilibrated:
    """Scale rows and columns until each has mean square 1.

    Sinkhorn's iteration on the squared entries: rows and columns are scaled by turns, until all
    rows deviate by 1e-4 at most or `passes` are over.

    Parameters
    ----------
    w
        Maps, of any size of entries. Half precision is widened to float32.
    passes
        Most passes over each map, at least 1.

    Returns
    -------
    Equilibrated
        In the precision of `w`. A map's result does not depend on the others of its batch.

    Raises
    ------
    InputError
        If `w` holds NaN or infinity, has fewer than two dimensions, or `passes` is below 1.

    Notes
    -----
    A variance profile r_i c_j is removed exactly, whatever it is, so that the singular values of
    what remains are those of independent entries of equal variance. For entries that are
    independent and have few zeros two or three passes suffice. A pattern of zeros can forbid
    convergence (a triangular matrix has no equilibration but its diagonal); the iteration is then
    stopped, and `deviation` says how far it came. Sums are taken in float64, over blocks of rows:
    50 ns an entry in all where three passes suffice.

    References
    ----------
    R. Sinkhorn and P. Knopp, Pacific J. Math. 21 (1967) 343-348, for the iteration; B. Landa,
    T. T. C. K. Zhang and Y. Kluger, Biwhitening reveals the rank of a count matrix, SIAM J. Math.
    Data Sci. 4 (2022) 1420-1446, for its use before a rank is counted.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import equilibrated
    >>> profile = torch.tensor([[1e-30, 1e-30, 0.0], [1e10, -1e10, 0.0]])
    >>> result = equilibrated(profile)
    >>> result.values
    tensor([[ 1.,  1.,  0.],
            [ 1., -1.,  0.]])
    >>> int(result.rows), int(result.columns)
    (2, 2)
    """
    w = real_tensor(w, "w", ndim=2)
    if passes < 1:
        raise InputError(f"passes must be at least 1, not {passes}", hint="12 is usual")
    *batch, p, m = w.shape
    if w.numel() == 0:
        counts = torch.zeros(batch, dtype=torch.int64, device=w.device)
        return Equilibrated(w, counts, counts, counts.double())
    values = _over_powers_of_two(w.reshape(-1, p, m))
    row, column, deviation = _scales(values, passes)
    # In this order nothing leaves the range of float32: the first factor is balanced by the second.
    values = values.mul_(row.sqrt()[..., None].to(w.dtype)).mul_(column.sqrt()[:, None].to(w.dtype))
    rows, columns = ((scale > 0).sum(-1).reshape(batch) for scale in (row, column))
    return Equilibrated(values.reshape(w.shape), rows, columns, deviation.reshape(batch))


def _over_powers_of_two(w: Float[Tensor, "n p m"]) -> Float[Tensor, "n p m"]:
    """A copy with every row's, then every column's largest entry in [½, 1): no digit is lost.

    Squares of what it gives do not overflow, and those that underflow are nothing to their sums.
    """
    for axis in (-1, -2):
        exponents = torch.frexp(_largest(w, axis)).exponent
        if bool((exponents.abs() < _PLAIN).all()):
            w = w * torch.ldexp(torch.ones_like(exponents, dtype=w.dtype), -exponents)
            continue
        # In halves, as 2^-exponent itself leaves the range of the type for its smallest numbers.
        half = torch.div(-exponents, 2, rounding_mode="floor")
        w = torch.ldexp(torch.ldexp(w, half), -exponents - half)
    return w


def _largest(w: Tensor, axis: int) -> Tensor:
    """Largest absolute entry along an axis, without a copy of the map."""
    return torch.maximum(w.amax(axis, keepdim=True), -w.amin(axis, keepdim=True))


def _scales(values: Float[Tensor, "n p m"], passes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the squared entries of rows (n, p) and columns (n, m), 0 for zeros; deviations."""
    row, column = ((values != 0).any(axis).double() for axis in (-1, -2))
    on_rows, height, width = row > 0, row.sum(-1, keepdim=True), column.sum(-1, keepdim=True)
    done = 0
    while True:
        new_row, below = _pass(values, column, width)
        # The new factor of a row is the old one over its mean square.
        deviation = torch.where(on_rows, (row / new_row - 1).abs(), 0).amax(-1, keepdim=True)
        moving = deviation > (_TOLERANCE if done else -1.0)
        if done == passes or not bool(moving.any()):
            return row, column, deviation[:, 0]
        # A converged map keeps its factors while others of the batch are still under way.
        row = torch.where(moving, new_row, row)
        column = torch.where(moving, _ratio(height, below), column)
        done += 1


def _pass(
    values: Float[Tensor, "n p m"], column: Float[Tensor, "n m"], width: Float[Tensor, "n 1"]
) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n m"]]:
    """Factors of the rows for these of the columns, and the columns' sums of squares under them."""
    below, rows = torch.zeros_like(column), []
    span = max(1, _BLOCK // (values.numel() // values.shape[1]))
    for block in values.split(span, dim=1):
        square = block.double().square()
        rows.append(_ratio(width, (square @ column[..., None])[..., 0]))
        below += (rows[-1][:, None] @ square)[:, 0]
    return torch.cat(rows, dim=1), below


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where b is."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)
