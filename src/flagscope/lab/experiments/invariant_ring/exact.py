"""Planted pairs of subspaces and of maps over Q, and their invariants in exact arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import torch
from sympy import QQ, ZZ
from sympy.polys.matrices import DomainMatrix

from flagscope.geometry import RelativePosition

# Entries of random integer matrices lie in -_LARGEST … _LARGEST.
_LARGEST = 3


def exact_matrix(rows: Sequence[Sequence[int]], columns: int) -> DomainMatrix:
    """A rational matrix from rows of integers; `columns` is needed if there are no rows.

    Examples
    --------
    >>> exact_matrix([[1, 2], [2, 4]], 2).rank()
    1
    """
    entries = [[ZZ(int(value)) for value in row] for row in rows]
    return DomainMatrix(entries, (len(rows), columns), ZZ).convert_to(QQ)


def random_matrix(rows: int, columns: int, generator: torch.Generator) -> DomainMatrix:
    """A matrix of random small integers."""
    drawn = torch.randint(-_LARGEST, _LARGEST + 1, (rows, columns), generator=generator)
    return exact_matrix(drawn.tolist(), columns)


def random_invertible(d: int, generator: torch.Generator) -> DomainMatrix:
    """A random element of GL(d) with small integer entries."""
    while (drawn := random_matrix(d, d, generator)).rank() < d:
        pass
    return drawn


def random_unimodular(d: int, generator: torch.Generator) -> DomainMatrix:
    """A random integer matrix of determinant 1: lower times upper triangular, ones on the diagonal.

    Examples
    --------
    >>> random_unimodular(4, torch.Generator().manual_seed(0)).det() == 1
    True
    """
    drawn = torch.randint(-_LARGEST, _LARGEST + 1, (2, d, d), generator=generator)
    identity = torch.eye(d, dtype=drawn.dtype)
    lower, upper = drawn[0].tril(-1) + identity, drawn[1].triu(1) + identity
    return exact_matrix((lower @ upper).tolist(), d)


def planted_pair(position: RelativePosition) -> tuple[DomainMatrix, DomainMatrix]:
    """Bases of (V, U) in a position, spanned by coordinate axes."""
    v, u = position.representative()
    return exact_matrix(v.tolist(), position.r1), exact_matrix(u.tolist(), position.r2)


def meeting(v: DomainMatrix, u: DomainMatrix) -> int:
    """Dimension of the intersection of two spaces given by bases.

    Examples
    --------
    >>> v, u = planted_pair(RelativePosition(4, 2, 3, 1))
    >>> meeting(v, u)
    1
    """
    return v.shape[1] + u.shape[1] - v.hstack(u).rank()


def intersection_basis(v: DomainMatrix, u: DomainMatrix) -> DomainMatrix:
    """A basis of V ∩ U: V x for all (x, y) with V x + U y = 0."""
    related = v.hstack(u).nullspace().transpose()
    return v * related.extract(range(v.shape[1]), range(related.shape[1]))


def span_basis(generators: DomainMatrix) -> DomainMatrix:
    """Columns of a matrix that form a basis of its column space."""
    _, pivots = generators.rref()
    return generators.extract(range(generators.shape[0]), pivots)


def plucker_point(basis: DomainMatrix) -> tuple[Any, ...]:
    """Plücker coordinates of a space, scaled so that the first non-zero one is 1.

    Examples
    --------
    >>> plucker_point(exact_matrix([[2], [4]], 1)) == (1, 2)
    True
    """
    d, r = basis.shape
    minors = [basis.extract(rows, range(r)).det() for rows in combinations(range(d), r)]
    first = next(minor for minor in minors if minor)
    return tuple(minor / first for minor in minors)


def pair_stabiliser(v: DomainMatrix, u: DomainMatrix) -> int:
    """Dimension of the stabiliser of (V, U) in SL(d): X in sl(d) with X V ⊆ V and X U ⊆ U.

    Examples
    --------
    >>> pair_stabiliser(*planted_pair(RelativePosition(2, 1, 1, 0)))  # the diagonal torus
    1
    """
    d = v.shape[0]
    trace = exact_matrix([[int(i % (d + 1) == 0) for i in range(d * d)]], d * d)
    rows = trace
    for space in (v, u):
        normals = space.transpose().nullspace()
        rows = rows.vstack(_kronecker(normals, space.transpose()))
    return d * d - rows.rank()


def map_stabiliser(w1: DomainMatrix, w2: DomainMatrix) -> int:
    """Dimension of the stabiliser of (W1, W2) in GL(d): X with X W1 = 0 and W2 X = 0.

    Examples
    --------
    >>> one = exact_matrix([[1, 0], [0, 0]], 2)
    >>> map_stabiliser(one, one)
    1
    """
    d = w1.shape[0]
    identity = DomainMatrix.eye(d, QQ)
    rows = _kronecker(identity, w1.transpose()).vstack(_kronecker(w2, identity))
    return d * d - rows.rank()


def _kronecker(left: DomainMatrix, right: DomainMatrix) -> DomainMatrix:
    """The matrix of X ↦ left X rightᵀ on the entries of X, row by row."""
    rows = [[x * y for x in p for y in q] for p in left.to_list() for q in right.to_list()]
    return DomainMatrix(rows, (len(rows), left.shape[1] * right.shape[1]), QQ)


def slope_excess(
    v: DomainMatrix, u: DomainMatrix, *, write: int = 1, read: int = 1
) -> tuple[Fraction, str]:
    """Largest slope of V ∩ U, V, U, V + U minus that of the whole space, and its subspace.

    The slope of S is (a dim(V ∩ S) + b dim(U ∩ S)) / dim S with weights a, b. A positive result
    means that S destabilises the pair. The lattice of these four contains the Harder-Narasimhan
    filtration, so no other space has to be tried.

    Examples
    --------
    >>> slope_excess(*planted_pair(RelativePosition(4, 1, 2, 1)))
    (Fraction(5, 4), 'V ∩ U')
    """
    d = v.shape[0]
    tried = {"V ∩ U": intersection_basis(v, u), "V + U": span_basis(v.hstack(u)), "V": v, "U": u}
    whole = Fraction(write * v.shape[1] + read * u.shape[1], d)
    slopes = [
        (Fraction(write * meeting(v, s) + read * meeting(u, s), s.shape[1]) - whole, name)
        for name, s in tried.items()
        if 0 < s.shape[1] < d
    ]
    return max(slopes, key=lambda slope: slope[0])


def planted_maps(d: int, r1: int, r2: int, product: int) -> tuple[DomainMatrix, DomainMatrix]:
    """Square maps (W1, W2) of given ranks whose product W2 W1 has a given rank.

    W1 writes the first r1 axes; W2 reads `product` of them and r2 - `product` others.

    Examples
    --------
    >>> w1, w2 = planted_maps(4, 3, 2, 1)
    >>> w1.rank(), w2.rank(), (w2 * w1).rank()
    (3, 2, 1)
    """
    read = {*range(product), *range(r1, r1 + r2 - product)}
    w1, w2 = (
        exact_matrix([[int(i == j and i in chosen) for j in range(d)] for i in range(d)], d)
        for chosen in (set(range(r1)), read)
    )
    return w1, w2


def kernel_meeting(w1: DomainMatrix, w2: DomainMatrix) -> int:
    """k' = dim(col W1 ∩ ker W2), from bases of both spaces.

    Examples
    --------
    >>> kernel_meeting(*planted_maps(4, 3, 2, 1))
    2
    """
    return meeting(span_basis(w1), w2.nullspace().transpose())
