"""Polynomials in the entries of matrices that a Lie algebra annihilates, exactly over Q.

A monomial is its tuple of exponents, a polynomial a dictionary from monomials to coefficients. The
Lie algebra acts by derivations Σ c x_a ∂/∂x_b. A polynomial of weight zero is invariant under all
of SL as soon as the simple raising operators annihilate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sympy import QQ
from sympy.polys.matrices import DomainMatrix

from flagscope.lab.experiments.invariant_ring.characters import bounded_compositions

Monomial = tuple[int, ...]
Polynomial = dict[Monomial, Any]
# Terms (c, a, b) of Σ c x_a ∂/∂x_b.
Derivation = Sequence[tuple[int, int, int]]


def contingency_tables(rows: Sequence[int], columns: Sequence[int]) -> Iterator[Monomial]:
    """Matrices of numbers ≥ 0 with given row and column sums, row by row.

    These are the monomials in the entries of a matrix of given degree in every row and column.

    Examples
    --------
    >>> list(contingency_tables([1, 1], [1, 1]))
    [(0, 1, 1, 0), (1, 0, 0, 1)]
    """
    if not rows:
        if not any(columns):
            yield ()
        return
    for first in bounded_compositions(rows[0], columns):
        left = [c - f for c, f in zip(columns, first, strict=True)]
        for rest in contingency_tables(rows[1:], left):
            yield (*first, *rest)


def derived(polynomial: Polynomial, derivation: Derivation) -> Polynomial:
    """The derivation of a polynomial.

    Examples
    --------
    >>> derived({(0, 2): 1}, [(1, 0, 1)])  # x ∂/∂y of y²
    {(1, 1): 2}
    """
    terms: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        for c, a, b in derivation:
            if monomial[b]:
                moved = list(monomial)
                moved[b] -= 1
                moved[a] += 1
                key = tuple(moved)
                terms[key] = terms.get(key, 0) + coefficient * c * monomial[b]
    return {monomial: value for monomial, value in terms.items() if value}


def annihilated(
    monomials: Sequence[Monomial], derivations: Iterable[Derivation]
) -> list[Polynomial]:
    """Basis of the polynomials in the given monomials that all derivations annihilate.

    The basis is reduced: the last monomial of each polynomial has coefficient 1 there and 0 in all
    others.

    Examples
    --------
    >>> (basis,) = annihilated([(2, 0), (1, 1), (0, 2)], [[(1, 0, 1)]])
    >>> list(basis)
    [(2, 0)]
    """
    equations: list[tuple[int, Monomial]] = []
    places: dict[tuple[int, Monomial], int] = {}
    entries: dict[int, dict[int, Any]] = {}
    acting = list(derivations)
    for column, monomial in enumerate(monomials):
        for which, derivation in enumerate(acting):
            for image, value in derived({monomial: 1}, derivation).items():
                key = which, image
                if key not in places:
                    places[key] = len(equations)
                    equations.append(key)
                entries.setdefault(places[key], {})[column] = QQ(value)
    return [
        {monomials[j]: value for j, value in row.items()}
        for row in kernel(entries, (len(equations), len(monomials)))
    ]


def kernel(entries: dict[int, dict[int, Any]], shape: tuple[int, int]) -> list[dict[int, Any]]:
    """Reduced basis of the kernel of a sparse rational matrix {row: {column: entry}}.

    The last entry of each vector is 1, and 0 in all others.

    Examples
    --------
    >>> [dict(vector) for vector in kernel({0: {0: QQ(1), 1: QQ(-1)}}, (1, 2))] == [{0: 1, 1: 1}]
    True
    """
    basis = DomainMatrix(entries, shape, QQ).nullspace(divide_last=True)
    return [dict(sorted(row.items())) for _, row in sorted(basis.to_dod().items())]


def sparse_rank(polynomials: Sequence[Polynomial]) -> int:
    """Dimension of the space that polynomials span.

    Examples
    --------
    >>> sparse_rank([{(1, 0): 1}, {(0, 1): 1}, {(1, 0): 2, (0, 1): 3}])
    2
    """
    places: dict[Monomial, int] = {}
    entries: dict[int, dict[int, Any]] = {}
    for i, polynomial in enumerate(polynomials):
        for monomial, value in polynomial.items():
            column = places.setdefault(monomial, len(places))
            entries.setdefault(i, {})[column] = QQ(value)
    return DomainMatrix(entries, (len(polynomials), len(places)), QQ).rank()


def multiplied(first: Polynomial, second: Polynomial) -> Polynomial:
    """The product of two polynomials.

    Examples
    --------
    >>> multiplied({(1, 0): 1, (0, 1): 1}, {(1, 0): 1, (0, 1): -1})
    {(2, 0): 1, (0, 2): -1}
    """
    terms: Polynomial = {}
    for a, x in first.items():
        for b, y in second.items():
            key = tuple(i + j for i, j in zip(a, b, strict=True))
            terms[key] = terms.get(key, 0) + x * y
    return {monomial: value for monomial, value in terms.items() if value}
