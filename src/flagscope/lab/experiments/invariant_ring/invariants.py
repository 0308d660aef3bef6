"""Invariants as kernels of Lie algebras on coordinate rings, exactly over Q.

Characters are not used: sections of O(m) on Gr(r, d) are the polynomials of degree m in every
column of a (d, r) matrix that are invariant under SL(r) on the columns; GL(d) acts on the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import factorial, prod
from typing import Any

from sympy import QQ

from flagscope.lab.experiments.invariant_ring.characters import (
    bounded_compositions,
    compositions,
    partitions,
)
from flagscope.lab.experiments.invariant_ring.polynomials import (
    Derivation,
    Monomial,
    Polynomial,
    annihilated,
    contingency_tables,
    derived,
    kernel,
    multiplied,
    sparse_rank,
)

Weight = tuple[int, ...]
# Matrix of a linear map in reduced bases, by (row, column).
Entries = dict[tuple[int, int], Any]


class Sections:
    """Sections of O(m) on Gr(r, d), degree m in the Plücker coordinates, weight by weight.

    Parameters
    ----------
    d, r
        Dimensions of the Grassmannian.
    degree
        m.

    Examples
    --------
    >>> sections = Sections(d=4, r=2, degree=1)
    >>> len(sections.basis((1, 1, 0, 0)))  # the minor of the first two rows
    1
    """

    def __init__(self, d: int, r: int, degree: int) -> None:
        self.d, self.r, self.degree = d, r, degree
        self._bases: dict[Weight, list[Polynomial]] = {}

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Weights that occur, as degrees in each row."""
        every = bounded_compositions(self.degree * self.r, [self.degree] * self.d)
        return tuple(weight for weight in every if self.basis(weight))

    def basis(self, weight: Weight) -> list[Polynomial]:
        """Reduced basis of a weight space, as polynomials in the entries of V, row by row."""
        if weight not in self._bases:
            tables = list(contingency_tables(weight, [self.degree] * self.r))
            # x_{i,j} ∂/∂x_{i,j+1}: columns are mixed, rows are not.
            columns = [
                [(1, i * self.r + j, i * self.r + j + 1) for i in range(self.d)]
                for j in range(self.r - 1)
            ]
            self._bases[weight] = annihilated(tables, columns)
        return self._bases[weight]

    def raised(self, weight: Weight, i: int) -> Entries:
        """The raising operator E_{i,i+1} on a weight space, in the reduced bases."""
        rows = [(1, i * self.r + j, (i + 1) * self.r + j) for j in range(self.r)]
        target = self.basis(raised_weight(weight, i))
        # The last monomial of a reduced basis polynomial occurs in no other, so it is a coordinate.
        marks = [next(reversed(polynomial)) for polynomial in target]
        entries: Entries = {}
        for column, polynomial in enumerate(self.basis(weight)):
            image = derived(polynomial, rows)
            for row, mark in enumerate(marks):
                if mark in image:
                    entries[row, column] = image[mark]
        return entries


def raised_weight(weight: Weight, i: int) -> Weight:
    """The weight one root higher: one more in row i, one less in row i + 1."""
    moved = list(weight)
    moved[i] += 1
    moved[i + 1] -= 1
    return tuple(moved)


def invariant_dimension(
    write: Sections, read: Sections, *, roots: Sequence[int] | None = None
) -> int:
    """Dimension of the SL(d)-invariants of O(m, n) on Gr(r1, d) × Gr(r2, d).

    Parameters
    ----------
    write, read
        Sections of O(m) on the first and of O(n) on the second Grassmannian.
    roots
        Simple roots whose raising operators must annihilate, 0 … d-2; by default all. Without any,
        this counts the invariants of the torus.

    Examples
    --------
    >>> invariant_dimension(Sections(2, 1, 1), Sections(2, 1, 1))  # det [v | u]
    1
    >>> invariant_dimension(Sections(2, 1, 1), Sections(2, 1, 1), roots=[])
    2
    """
    d = write.d
    power, remainder = divmod(write.degree * write.r + read.degree * read.r, d)
    if remainder:
        return 0
    columns: dict[tuple[Weight, int, int], int] = {}
    spaces: list[tuple[Weight, Weight]] = []
    for weight in write.weights:
        dual = tuple(power - part for part in weight)
        if min(dual) < 0 or not read.basis(dual):
            continue
        spaces.append((weight, dual))
        for a in range(len(write.basis(weight))):
            for b in range(len(read.basis(dual))):
                columns[weight, a, b] = len(columns)
    entries: dict[int, dict[int, Any]] = {}
    places: dict[tuple[int, Weight, int, int], int] = {}
    for i in range(d - 1) if roots is None else roots:
        for weight, dual in spaces:
            for target, first, second, value in _raised_product(write, read, weight, dual, i):
                row = places.setdefault((i, *target), len(places))
                column = columns[weight, first, second]
                line = entries.setdefault(row, {})
                line[column] = line.get(column, QQ(0)) + value
    return len(kernel(entries, (len(places), len(columns))))


def _raised_product(
    write: Sections, read: Sections, weight: Weight, dual: Weight, i: int
) -> Iterator[tuple[tuple[Weight, int, int], int, int, Any]]:
    """Entries of E ⊗ 1 + 1 ⊗ E on one product of weight spaces: (target, column pair, value)."""
    if weight[i + 1]:
        higher = raised_weight(weight, i)
        for (row, a), value in write.raised(weight, i).items():
            for b in range(len(read.basis(dual))):
                yield (higher, row, b), a, b, value
    if dual[i + 1]:
        for (row, b), value in read.raised(dual, i).items():
            for a in range(len(write.basis(weight))):
                yield (weight, a, row), a, b, value


def map_invariants(m: int, *, d: int, inputs: int, outputs: int) -> tuple[int, int]:
    """Dimensions of degree (m, m) of the GL(d)-invariants of (W1, W2), and of those in W2 W1.

    GL(d) acts by (g W1, W2 g⁻¹). The first number is that of all invariant polynomials of degree m
    in W1 and in W2 (no other bidegree has any but 0, by the scalars in GL(d)). The second is that
    of the polynomials of degree m in the entries of W2 W1, written out in the entries of W1, W2.

    Parameters
    ----------
    m
        The degree.
    d, inputs, outputs
        W1 has shape (d, inputs), W2 has shape (outputs, d).

    References
    ----------
    .. [1] H. Weyl, The Classical Groups, Princeton University Press 1939, chapter II.

    Examples
    --------
    >>> map_invariants(2, d=1, inputs=2, outputs=2)  # ten monomials, one relation: det = 0
    (9, 9)
    """
    everything = generated = 0
    # The outer torus splits both spaces; permutations of columns of W1 and rows of W2 give equal
    # dimensions, so descending degrees are enough.
    for columns in partitions(m, inputs):
        for rows in partitions(m, outputs):
            b = (*columns, *[0] * (inputs - len(columns)))
            c = (*rows, *[0] * (outputs - len(rows)))
            alike = _orderings(b) * _orderings(c)
            everything += alike * len(annihilated(*_middle_zero(m, d, b, c)))
            generated += alike * sparse_rank(list(_products(d, b, c)))
    return everything, generated


def _orderings(parts: Sequence[int]) -> int:
    """Number of distinct orders of some numbers."""
    return factorial(len(parts)) // prod(factorial(parts.count(part)) for part in set(parts))


def _middle_zero(
    m: int, d: int, columns: Weight, rows: Weight
) -> tuple[list[Monomial], list[Derivation]]:
    """Monomials of weight zero under the torus of GL(d), and the raising operators of GL(d).

    Variables are the entries of W1 row by row, then those of W2. E_{i,i+1} takes W1 to E W1 and W2
    to -W2 E.
    """
    inputs, outputs = len(columns), len(rows)
    monomials = [
        (*first, *second)
        for middle in compositions(m, d)
        for first in contingency_tables(middle, columns)
        for second in contingency_tables(rows, middle)
    ]
    start = d * inputs
    raising: list[Derivation] = [
        [(1, i * inputs + c, (i + 1) * inputs + c) for c in range(inputs)]
        + [(-1, start + r * d + i + 1, start + r * d + i) for r in range(outputs)]
        for i in range(d - 1)
    ]
    return monomials, raising


def _products(d: int, columns: Weight, rows: Weight) -> Iterator[Polynomial]:
    """Monomials in the entries of W2 W1 of given degrees, as polynomials in those of W1, W2."""
    inputs, outputs = len(columns), len(rows)
    size = d * inputs + outputs * d

    def entry(r: int, c: int) -> Polynomial:
        polynomial: Polynomial = {}
        for k in range(d):
            exponents = [0] * size
            exponents[k * inputs + c] = exponents[d * inputs + r * d + k] = 1
            polynomial[tuple(exponents)] = 1
        return polynomial

    for table in contingency_tables(rows, columns):
        product: Polynomial = {(0,) * size: 1}
        for index, exponent in enumerate(table):
            for _ in range(exponent):
                product = multiplied(product, entry(*divmod(index, inputs)))
        yield product
