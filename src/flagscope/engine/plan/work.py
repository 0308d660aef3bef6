"""Amounts of work by kind and size: counted by `cost`, turned into seconds by `rates`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from flagscope.geometry import EIGH_FLOPS, symmetric_share

Kind = Literal[
    "product", "eigh", "eigvalsh", "svdvals", "qr", "stored", "entries", "pair", "head", "link"
]
# Floating-point operations in units of n³, as LAPACK counts them (LAWN 41): eigenvalues from the
# tridiagonal form, singular values from the bidiagonal one.
_CUBIC = {"eigh": EIGH_FLOPS, "eigvalsh": 4 / 3, "svdvals": 8 / 3}


@dataclass(frozen=True)
class Work:
    """Amounts of work by (kind, size).

    Parameters
    ----------
    amounts
        For "product", the floating-point operations of matrix products by their smallest
        dimension; for "qr", those of QR decompositions by the number of columns; for "eigh",
        "eigvalsh" and "svdvals", the number of problems by their dimension; for "stored", numbers
        read and widened, whose noise is measured; for "entries", float64 numbers that a pass over
        a matrix touches; for "pair", "head" and "link", the number of records. Kinds without a size
        have size 0.

    Examples
    --------
    >>> work = product(2, 3, 4) + eigenproblem(3)
    >>> work.amounts
    {('product', 2): 48.0, ('eigh', 3): 1.0}
    >>> work.flops == 48 + EIGH_FLOPS * 27
    True
    """

    amounts: Mapping[tuple[Kind, int], float] = field(default_factory=dict)

    @property
    def flops(self) -> float:
        """Floating-point operations of the products, decompositions and eigenproblems."""
        total = 0.0
        for (kind, size), amount in self.amounts.items():
            if kind in ("product", "qr"):
                total += amount
            elif kind in _CUBIC:
                total += amount * _CUBIC[kind] * size**3
        return total

    def __add__(self, other: Work) -> Work:
        return total([self, other])

    def times(self, factor: float) -> Work:
        """This work, scaled by `factor`."""
        return Work({key: factor * amount for key, amount in self.amounts.items()})


def amount_of(kind: Kind, n: int) -> float:
    """Amount that `Work` counts for one square problem of size n, for kinds with sizes."""
    return {"product": 2.0 * n**3, "qr": 8 / 3 * n**3}.get(kind, 1.0)


def total(works: Iterable[Work]) -> Work:
    """Sum of several amounts of work."""
    amounts: defaultdict[tuple[Kind, int], float] = defaultdict(float)
    for work in works:
        for key, amount in work.amounts.items():
            amounts[key] += amount
    return Work(dict(amounts))


def product(m: int, k: int, n: int) -> Work:
    """A product of matrices (m, k) and (k, n)."""
    return Work({("product", min(m, k, n)): 2.0 * m * k * n})


def gram(m: int, k: int) -> Work:
    """The Gram matrix X Xᵀ of a matrix (m, k): `diagnose.symmetric`."""
    return product(m, k, m).times(symmetric_share(m))


def eigenproblem(n: int, *, vectors: bool = True) -> Work:
    """A symmetric eigenproblem."""
    return Work({("eigh" if vectors else "eigvalsh", n): 1.0})


def singular_values(m: int, n: int) -> Work:
    """Singular values alone."""
    return Work({("svdvals", min(m, n)): max(m, n) / max(1, min(m, n))})


def triangular(m: int, n: int) -> Work:
    """A reduced QR decomposition with Q formed."""
    short = min(m, n)
    return Work({("qr", short): 4.0 * m * n * short - 4 / 3 * short**3})


def stored(count: float) -> Work:
    """Numbers that are read and widened, and whose storage noise is measured."""
    return Work({("stored", 0): float(count)})


def passes(count: float) -> Work:
    """float64 numbers touched by passes over matrices."""
    return Work({("entries", 0): float(count)})


def records(kind: Literal["pair", "head", "link"], count: float) -> Work:
    """Records, with their nulls."""
    return Work({(kind, 0): float(count)})
