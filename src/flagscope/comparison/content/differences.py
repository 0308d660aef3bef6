"""How far two tensors are apart: sums over their entries, row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

from flagscope.comparison.content.reading import Rows, Side
from flagscope.null import cosine_significance, sign_agreement
from flagscope.records.comparison.content_parts import Difference

# A scaled copy leaves no more than this of its norm: half steps of bfloat16 leave 0.0017 at most.
_COPY = 2e-3
_HASH_SEED = 20250
NORMAL = NormalDist()


@dataclass
class EntrySums:
    """Sums over the entries that are finite on both sides."""

    entries: int = 0
    equal: int = 0
    not_finite_a: int = 0
    not_finite_b: int = 0
    both: int = 0
    agree: int = 0
    positive_a: int = 0
    positive_b: int = 0
    a: float = 0.0
    b: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    dd: float = 0.0
    aab: float = 0.0
    abb: float = 0.0
    aabb: float = 0.0
    zeros_a: int = 0
    zeros_b: int = 0
    zero_rows_a: int = 0
    zero_rows_b: int = 0
    columns_a: Tensor | None = None
    columns_b: Tensor | None = None
    rows_a: list[Tensor] = field(default_factory=list)
    rows_b: list[Tensor] = field(default_factory=list)

    def add(self, rows: Rows) -> None:
        """Add a run of rows."""
        a, b = rows.a.values, rows.b.values
        self.entries += a.numel()
        if not rows.finite:
            a, b = self._finite_ones(a, b)
        whole_a, whole_b = a, b
        # A few ten thousand numbers: a dot product loses no digits that matter.
        a, b = a.reshape(-1), b.reshape(-1)
        product, difference = a * b, a - b
        self.a += rows.a.total if rows.finite else float(a.sum())
        self.b += rows.b.total if rows.finite else float(b.sum())
        self.aa += float(a.dot(a))
        self.bb += float(b.dot(b))
        self.ab += float(a.dot(b))
        self.dd += float(difference.dot(difference))
        self.aab += float(product.dot(a))
        self.abb += float(product.dot(b))
        self.aabb += float(product.dot(product))
        self.equal += a.numel() - int(torch.count_nonzero(difference))
        both = self._add_signs(a, b, product)
        self._add_zeros(whole_a, whole_b, both)
        if rows.a.values.ndim > 1:
            kind = torch.float32 if rows.a.narrow and rows.b.narrow else torch.float64
            self.rows_a.append(_row_keys(rows.a, kind))
            self.rows_b.append(_row_keys(rows.b, kind))

    def _finite_ones(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides with 0 where one is not finite; counts those."""
        fine_a, fine_b = torch.isfinite(a), torch.isfinite(b)
        self.not_finite_a += a.numel() - int(fine_a.sum())
        self.not_finite_b += b.numel() - int(fine_b.sum())
        fine = fine_a & fine_b
        # What is set to 0 counts as equal below; infinities of one sign are.
        self.equal -= int((~fine & (a != b)).sum())
        return torch.where(fine, a, 0.0), torch.where(fine, b, 0.0)

    def _add_zeros(self, a: Tensor, b: Tensor, both: int) -> None:
        """Count zeros of one side alone, whole rows of them, and what columns hold none else.

        Where all products differ from 0, no entry is.
        """
        dense = both == a.numel()
        if not dense:
            self.zeros_a += int(torch.count_nonzero(b)) - both
            self.zeros_b += int(torch.count_nonzero(a)) - both
        if a.ndim < 2:
            return
        if dense:
            if len(a):
                self.columns_a = self.columns_b = torch.ones(a.shape[1], dtype=torch.bool)
            return
        some_a, some_b = (x.reshape(len(x), x.shape[1], -1).any(2) for x in (a != 0, b != 0))
        rows_a, rows_b = some_a.any(1), some_b.any(1)
        self.zero_rows_a += int((~rows_a & rows_b).sum())
        self.zero_rows_b += int((~rows_b & rows_a).sum())
        columns_a, columns_b = some_a.any(0), some_b.any(0)
        self.columns_a = columns_a if self.columns_a is None else self.columns_a | columns_a
        self.columns_b = columns_b if self.columns_b is None else self.columns_b | columns_b

    def _zero_columns(self) -> tuple[int, int]:
        """Columns that are zero in A alone, and in B alone."""
        a, b = self.columns_a, self.columns_b
        if a is None or b is None:
            return 0, 0
        return int((~a & b).sum()), int((~b & a).sum())

    def _add_signs(self, a: Tensor, b: Tensor, product: Tensor) -> int:
        """Count equal signs; how many entries are 0 on neither side."""
        both = int(torch.count_nonzero(product))
        self.both += both
        self.agree += int(torch.count_nonzero(product > 0))
        of_a, of_b = a > 0, b > 0
        if both < product.numel():
            of_a, of_b = of_a & (product != 0), of_b & (product != 0)
        self.positive_a += int(torch.count_nonzero(of_a))
        self.positive_b += int(torch.count_nonzero(of_b))
        return both

    @property
    def cosine(self) -> float | None:
        """Cosine of the entries."""
        norms = math.sqrt(self.aa) * math.sqrt(self.bb)
        if not (0 < norms < math.inf and math.isfinite(self.ab)):
            return None
        return max(-1.0, min(1.0, self.ab / norms))

    def product_z(self) -> float | None:
        """Sum of the products of centred entries, over the root of the sum of their squares."""
        n = self.entries
        if n < 2:
            return None
        p, q = self.a / n, self.b / n
        total = self.ab - n * p * q
        squares = (
            self.aabb - 2 * q * self.aab + q * q * self.aa - 2 * p * self.abb + p * p * self.bb
            + 4 * p * q * self.ab - 2 * p * q * q * self.a - 2 * p * p * q * self.b
            + n * p * p * q * q
        )  # fmt: skip
        fine = 0 < squares < math.inf and math.isfinite(total)
        return total / math.sqrt(squares) if fine else None

    def effective_entries(self) -> float | None:
        """Independent normal entries with which a correlation shows as much as in the tests.

        The products of n centred entries of variances v and w whose squares sum to s count as
        n² v w / s. Signs cut a normal law at the quantile t of their share p, which leaves the
        share φ(t)² / (p (1 - p)) of a correlation for each side (Pearson's tetrachoric series).
        """
        z = self.product_z()
        if z is None or not self.both:
            return None
        n = self.entries
        total = self.ab - self.a * self.b / n
        spread = (self.aa - self.a**2 / n) * (self.bb - self.b**2 / n)
        if total == 0 or z == 0:
            return None
        products = spread / (total / z) ** 2
        signs = float(self.both)
        for positive in (self.positive_a, self.positive_b):
            share = positive / self.both
            if not 0 < share < 1:
                return None
            signs *= NORMAL.pdf(NORMAL.inv_cdf(share)) ** 2 / (share * (1 - share))
        value = min(float(n), products, signs)
        return value if 0 < value < math.inf else None

    def record(self, *, transposed: bool) -> Difference:
        """The record of it."""
        cosine = self.cosine
        shared = _shared(self.rows_a, self.rows_b)
        rows = sum(len(part) for part in self.rows_a)
        law = None if cosine is None or self.entries < 2 else cosine_significance(
            cosine, self.entries)  # fmt: skip
        columns_a, columns_b = self._zero_columns()
        copied = cosine is not None and 1 - cosine * cosine < _COPY**2 and self.equal < self.entries
        return Difference(
            entries=self.entries, equal=self.equal,
            not_finite_a=self.not_finite_a, not_finite_b=self.not_finite_b,
            relative_a=_ratio(self.dd, self.aa), relative_b=_ratio(self.dd, self.bb),
            cosine=cosine, cosine_log10_p=law.log10_p if law else None,
            agreement=self.agree / self.both if self.both else None,
            agreement_z=sign_agreement(self.agree, self.both, self.positive_a, self.positive_b),
            product_z=self.product_z(), effective_entries=self.effective_entries(),
            scale_a=_factor(self.aa, self.bb, self.ab) if copied else None,
            scale_b=_factor(self.bb, self.aa, self.ab) if copied else None,
            zeros_a=self.zeros_a, zeros_b=self.zeros_b,
            zero_rows_a=self.zero_rows_a, zero_rows_b=self.zero_rows_b,
            zero_columns_a=columns_a, zero_columns_b=columns_b,
            rows_shared=shared,
            rows_permuted=shared is not None and shared == rows > 1 and self.equal < self.entries,
            transposed=transposed,
        )  # fmt: skip


def _ratio(difference: float, norm: float) -> float | None:
    value = math.sqrt(difference / norm) if norm > 0 and math.isfinite(norm) else math.inf
    return value if math.isfinite(value) else None


def _factor(numerator: float, denominator: float, product: float) -> float | None:
    """Ratio of two norms, with the sign of the product."""
    value = math.copysign(math.sqrt(numerator / denominator), product)
    return value if math.isfinite(value) and value else None


def _row_keys(side: Side, kind: torch.dtype) -> Tensor:
    """A number of 64 bits for each row, equal for rows of equal values.

    A sum of the entries' bits times fixed random odd numbers, modulo 2^64 (Dietzfelbinger et al.,
    "A reliable randomized algorithm for the closest-pair problem", J. Algorithms 25, 1997).
    """
    values = side.values if kind == torch.float64 else side.stored.to(kind)
    flat = values.reshape(values.shape[0], -1) + 0.0  # -0 becomes 0
    if kind == torch.float32 and flat.shape[1] % 2:
        flat = torch.nn.functional.pad(flat, (0, 1))
    bits = flat.contiguous().view(torch.int64)  # of float32 two numbers at a time
    # The upper half is folded in: the lower bits of widened numbers are all 0.
    mixed = (bits >> 32).bitwise_xor_(bits)
    return mixed.mul_(_odd_numbers(bits.shape[1])).sum(1)


@lru_cache(maxsize=4)
def _odd_numbers(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(_HASH_SEED)
    return torch.randint(-(2**62), 2**62, (count,), generator=generator) * 2 + 1


def _shared(rows_a: list[Tensor], rows_b: list[Tensor]) -> int | None:
    """Rows of one side that stand on the other, each as often as on both."""
    if not rows_a:
        return None
    keys, where = torch.cat([*rows_a, *rows_b]).unique(return_inverse=True)
    half = sum(len(part) for part in rows_a)
    counts = [torch.bincount(part, minlength=len(keys)) for part in (where[:half], where[half:])]
    return int(torch.minimum(*counts).sum())
