"""Equilibration: rows and columns of a matrix brought to equal mean square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import real_tensor
from flagscope.geometry.matrices import power_of_two

# The edge of the bulk fluctuates by p^{-2/3} of itself, .4 % at p = 4096, and unequal rows move it
# by the mean of their squared deviations only, so this is far below what a count could notice.
_TOLERANCE = 1e-4

# Exponents below which a power of two is a number of float32, as is its reciprocal.
_PLAIN = 100
# Rows and columns whose largest entries lie no further below the largest of all, in exponents, need
# no scales of their own: squares that underflow are nothing to their sums, and no sum overflows.
_SPREAD = 30
# Exponents of the largest entry of all between which it needs none either.
_LEAST, _MOST = -20, 20
# Range of the factors beyond which sums of squares are taken in float64.
_WIDE = 1e10

# Entries taken at a time, so that what is made of them stays in the cache.
_BLOCK = 1 << 18
# Maps from this size on are taken one by one.
_LARGE = 1 << 16


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
        Largest relative deviation from 1 of the mean square of a row (of a column where a map is
        stored by columns), shape (...), float64; the others have none. 1e-4 or less where the
        iteration converged.
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
    stopped, and `deviation` says how far it came. Sums of squares over a block of rows are taken in
    the precision of `w`, and added up in float64: 6 ns an entry in all where three passes suffice.

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
    maps = w.reshape(-1, p, m)
    values = torch.empty_like(maps)
    size = 1 if p * m >= _LARGE else len(maps)
    numbers = [
        _equilibrated(some, passes, out=out)
        for some, out in zip(maps.split(size), values.split(size), strict=True)
    ]
    rows, columns, deviation = (
        torch.cat(parts).reshape(batch) for parts in zip(*numbers, strict=True)
    )
    return Equilibrated(values.reshape(w.shape), rows, columns, deviation)


def _equilibrated(
    w: Float[Tensor, "n p m"], passes: int, *, out: Float[Tensor, "n p m"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of rows and of columns that are not zero, and deviations."""
    if w.stride(-1) != 1 and w.stride(-2) == 1:
        # Along the rows of what is stored.
        columns, rows, deviation = _equilibrated(w.mT, passes, out=out.mT)
        return rows, columns, deviation
    w, live = _in_range(w)
    row, column, deviation = _scales(w, live, passes)
    left, right = (factors.sqrt().to(w.dtype) for factors in (row[..., None], column[:, None]))
    for values, block, by in zip(_blocks(out), _blocks(w), _blocks(left, of=w), strict=True):
        # In this order nothing leaves the range of float32: the second factor balances the first.
        torch.mul(block, by, out=values).mul_(right)
    return (row > 0).sum(-1), (column > 0).sum(-1), deviation


def _blocks(w: Float[Tensor, "n p k"], *, of: Tensor | None = None) -> tuple[Tensor, ...]:
    """Some rows at a time: as many as of a tensor fit into a block; all of them on a device.

    A device has no such cache, and would wait for the numbers of each block.
    """
    n, _, m = (w if of is None else of).shape
    if w.device.type != "cpu":
        return (w,)
    return w.split(max(1, _BLOCK // (n * m)), dim=1)


def _in_range(w: Float[Tensor, "n p m"]) -> tuple[Float[Tensor, "n p m"], tuple[Tensor, Tensor]]:
    """The maps in a range where squares are safe, and which rows and which columns are not zero.

    A large map, which is alone, is taken as it is where it lies in it, or times a power of two.
    Otherwise every row's, then every column's largest entry is brought to [½, 1): no digit is lost.
    Squares then do not overflow, and those that underflow are nothing to their sums.
    """
    row, column = _largest(w)
    live = row > 0, column > 0
    exponents = torch.frexp(torch.cat([row[row > 0], column[column > 0]])).exponent
    if len(exponents) and w.numel() >= _LARGE and len(w) == 1:
        # What is done hangs on the entries' ratios alone, so that a unit changes no digit.
        top = exponents.amax()
        if bool((exponents >= top - _SPREAD).all()):
            return (w if _LEAST <= int(top) <= _MOST else power_of_two(w, -top)), live
    w = _scaled_by(w, row[..., None])
    return _scaled_by(w, _largest(w)[1][:, None]), live


def _scaled_by(w: Float[Tensor, "n p m"], largest: Tensor) -> Float[Tensor, "n p m"]:
    exponents = torch.frexp(largest).exponent
    if bool((exponents.abs() < _PLAIN).all()):
        return w * torch.ldexp(torch.ones_like(exponents, dtype=w.dtype), -exponents)
    # In halves, as 2^-exponent itself leaves the range of the type for its smallest numbers.
    half = torch.div(-exponents, 2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(w, half), -exponents - half)


def _largest(w: Float[Tensor, "n p m"]) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n m"]]:
    """Largest absolute entry of each row and of each column, in one pass."""
    rows, below = [], w.new_zeros(len(w), w.shape[2])
    buffer = torch.empty_like(_blocks(w)[0])
    for block in _blocks(w):
        size = torch.abs(block, out=buffer[:, : block.shape[1]])
        rows.append(size.amax(-1))
        below = torch.maximum(below, size.amax(-2))
    return torch.cat(rows, dim=1), below


def _scales(
    values: Float[Tensor, "n p m"], live: tuple[Tensor, Tensor], passes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the squared entries of rows (n, p) and columns (n, m), 0 for zeros; deviations."""
    row, column = (alive.double() for alive in live)
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
    dtype = torch.float64 if _is_wide(column) else values.dtype
    factors = column.to(dtype)[..., None]
    # One buffer: to get memory anew costs more than the squares do.
    buffer = torch.empty_like(_blocks(values)[0], dtype=dtype)
    for block in _blocks(values):
        square = torch.square(block.to(dtype), out=buffer[:, : block.shape[1]])
        rows.append(_ratio(width, (square @ factors)[..., 0].double()))
        part = rows[-1] if _is_wide(rows[-1]) else rows[-1].to(dtype)
        below += (part[:, None] @ square.to(part.dtype))[:, 0]
    return torch.cat(rows, dim=1), below


def _is_wide(factors: Float[Tensor, "n k"]) -> bool:
    """Whether factors leave the range in which float32 holds their products with squares."""
    some = factors[factors > 0]
    return bool(some.numel()) and not 1 / _WIDE < float(some.amin()) <= float(some.amax()) < _WIDE


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where b is."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)
