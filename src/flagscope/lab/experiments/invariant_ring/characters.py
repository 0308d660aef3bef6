"""Exact characters of GL(d): weight multiplicities, and multiplicities of det^c in products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations
from math import prod


@cache
def kostka(shape: tuple[int, ...], weight: tuple[int, ...]) -> int:
    """Kostka number K_{λα}: semistandard tableaux of shape λ and weight α.

    It is the multiplicity of the weight α in the irreducible polynomial representation of highest
    weight λ.

    Parameters
    ----------
    shape
        λ, descending; zeros at the end do not matter.
    weight
        α, the number of occurrences of each entry.

    References
    ----------
    .. [1] W. Fulton, Young Tableaux, Cambridge University Press 1997, section 2.2.

    Examples
    --------
    >>> kostka((2, 1), (1, 1, 1)), kostka((2, 1), (3, 0, 0))
    (2, 0)
    """
    shape = tuple(part for part in shape if part)
    if not weight:
        return int(not shape)
    # The largest entry fills a horizontal strip; the rest is a tableau of the other entries.
    return sum(kostka(inner, weight[:-1]) for inner in _without_strip(shape, weight[-1]))


def _without_strip(shape: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    """Shapes left after removing a horizontal strip of `size` boxes."""
    if not shape:
        if size == 0:
            yield ()
        return
    longest, *shorter = shape
    # A strip has at most one box in each column: a row keeps the boxes above the next row.
    for removed in range(min(size, longest - max(shorter, default=0)) + 1):
        for rest in _without_strip(tuple(shorter), size - removed):
            yield (longest - removed, *rest)


def product_weight_multiplicity(
    first: tuple[int, ...], second: tuple[int, ...], weight: Sequence[int]
) -> int:
    """Multiplicity of a weight in the tensor product of two irreducible representations.

    Examples
    --------
    >>> product_weight_multiplicity((1,), (1,), (1, 1))
    2
    """
    return sum(
        kostka(first, part)
        * kostka(second, tuple(w - a for w, a in zip(weight, part, strict=True)))
        for part in bounded_compositions(sum(first), weight)
    )


def determinant_multiplicity(first: tuple[int, ...], second: tuple[int, ...], d: int) -> int:
    """Multiplicity of a power of det in the tensor product of two representations of GL(d).

    These are the invariants of SL(d) in the product. By Weyl's character formula the multiplicity
    of highest weight ν is the coefficient of x^{ν+ρ} in the character times Π_{i<j} (x_i - x_j),
    that is the sum over permutations w of sgn(w) times the multiplicity of the weight ν + ρ - wρ.

    References
    ----------
    .. [1] W. Fulton, J. Harris, Representation Theory, Springer 1991, section 24.1.

    Examples
    --------
    >>> determinant_multiplicity((1,), (1,), 2), determinant_multiplicity((2,), (1,), 2)
    (1, 0)
    """
    power, remainder = divmod(sum(first) + sum(second), d)
    if remainder:
        return 0
    rho = range(d - 1, -1, -1)
    total = 0
    for moved in permutations(rho):
        weight = [power + r - s for r, s in zip(rho, moved, strict=True)]
        if min(weight) >= 0:
            total += _sign(moved) * product_weight_multiplicity(first, second, weight)
    return total


def _sign(moved: Sequence[int]) -> int:
    """Sign of the permutation that sorts `moved` into descending order."""
    pairs = ((a, b) for i, a in enumerate(moved) for b in moved[i + 1 :])
    return (-1) ** sum(a < b for a, b in pairs)


def schur_dimension(shape: tuple[int, ...], d: int) -> int:
    """Dimension of the irreducible representation of GL(d) of highest weight λ.

    Examples
    --------
    >>> schur_dimension((2, 1), 3), schur_dimension((1, 1), 1)
    (8, 0)
    """
    if len(shape) > d:
        return 0
    rows = [*shape, *[0] * (d - len(shape))]
    pairs = [(i, j) for i in range(d) for j in range(i + 1, d)]
    numerator = prod(rows[i] - rows[j] + j - i for i, j in pairs)
    return numerator // prod(j - i for i, j in pairs)


def determinantal_hilbert_function(m: int, *, rows: int, columns: int, rank: int) -> int:
    """Dimension of degree m of the coordinate ring of matrices of rank ≤ `rank`.

    Cauchy's identity: the ring is the sum over λ ⊢ m of at most `rank` parts of the products of the
    representations λ of GL(rows) and GL(columns).

    References
    ----------
    .. [1] W. Bruns, U. Vetter, Determinantal Rings, Springer 1988, section 11.

    Examples
    --------
    >>> [determinantal_hilbert_function(2, rows=2, columns=2, rank=r) for r in (1, 2)]
    [9, 10]
    """
    return sum(
        schur_dimension(shape, rows) * schur_dimension(shape, columns)
        for shape in partitions(m, min(rank, rows, columns))
    )


def partitions(total: int, parts: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Partitions of a number into at most `parts` parts, descending.

    Examples
    --------
    >>> list(partitions(3, 2))
    [(3,), (2, 1)]
    """
    if total == 0:
        yield ()
    elif parts:
        for first in range(min(total, largest or total), 0, -1):
            for rest in partitions(total - first, parts - 1, first):
                yield (first, *rest)


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Ways to write a number as an ordered sum of `parts` numbers ≥ 0.

    Examples
    --------
    >>> list(compositions(1, 2))
    [(0, 1), (1, 0)]
    """
    return bounded_compositions(total, [total] * parts)


def bounded_compositions(total: int, bounds: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Compositions of a number whose parts stay within bounds.

    Examples
    --------
    >>> list(bounded_compositions(2, [1, 2]))
    [(0, 2), (1, 1)]
    """
    if not bounds:
        if total == 0:
            yield ()
        return
    for first in range(min(total, bounds[0]) + 1):
        for rest in bounded_compositions(total - first, bounds[1:]):
            yield (first, *rest)
