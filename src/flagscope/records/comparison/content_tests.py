"""The tests by which two tensors count as correlated beyond chance, or as the same."""

from __future__ import annotations

from math import log, log10, sqrt

from flagscope.records.comparison.content_parts import ContentNumbers, TensorContent

EVIDENCE_PARTS = ("embedding", "block", "head", "other")
"""Parts whose matrices are independent in independent models. Gains start near 1, biases near 0,
and tables of positions are smooth in every model: strangers agree in them."""

LEAST_COSINE = 0.05
"""A correlated tensor has a cosine of at least this."""

LEAST_FACTOR = 1e-3
"""Logarithm of a factor nearer to 1 than which a copy does not count as scaled."""

LOG10_LEVEL = -6.0
"""Level of all tests of a comparison together, its decimal logarithm."""

_SURE = 2.58  # standard deviations; two tests at 99.5 % each

SAME = ("identical", "rounding", "few_entries")


def is_evidence(tensor: TensorContent) -> bool:
    """Whether a tensor's entries say whether two models have a common origin."""
    return tensor.part in EVIDENCE_PARTS


def same(tensor: TensorContent) -> bool:
    """Whether both tensors hold the same numbers, up to rounding and a few entries."""
    return tensor.content in SAME


def is_rearranged(tensor: TensorContent) -> bool:
    """Whether a tensor is the other side's times a factor, turned, or with its rows reordered."""
    difference = tensor.difference
    if difference is None:
        return False
    if difference.transposed:
        return same(tensor)
    if tensor.content != "different" or difference.not_finite_a or difference.not_finite_b:
        return False
    return difference.rows_permuted or (
        factor_between(difference.scale_b)
        and difference.cosine is not None
        and 1 - difference.cosine**2 <= max(_left(tensor.type_a), _left(tensor.type_b)) ** 2
    )


def _left(kind: str) -> float:
    """Share of a norm that rounding a scaled copy to a type leaves at most, sums included."""
    return {"float64": 1e-6, "float32": 1e-6, "float16": 2.0**-11}.get(kind, 2.0**-8)


def factor_between(scale: float | None) -> bool:
    """Whether a factor is further from 1 than rounding may take it, alike from either side."""
    return scale is not None and (scale < 0 or abs(log(scale)) > LEAST_FACTOR)


def is_tested(tensor: TensorContent) -> bool:
    """Whether the tests could be made: not where a side is 0, or has too few finite entries."""
    difference = tensor.difference
    return difference is not None and None not in (
        difference.cosine, difference.agreement_z, difference.product_z
    )  # fmt: skip


def test_count(record: ContentNumbers) -> int:
    """Tensors that are tested."""
    return max(1, sum(is_evidence(tensor) and not same(tensor) for tensor in record.tensors))


def needed_z(tests: int) -> float:
    """Standard deviations that a test must show, a bound of the normal law's inverse tail.

    The upper tail at z is below exp(-z²/2)/2.

    Examples
    --------
    >>> round(needed_z(1), 2)
    5.12
    """
    level = 10.0 ** (LOG10_LEVEL - log10(tests))
    return sqrt(-2 * log(2 * level))


def seen_correlation(tensor: TensorContent, tests: int) -> float:
    """The least correlation of normal entries that the tests see 99 times in 100; 1 for none."""
    difference = tensor.difference
    if difference is None or not difference.effective_entries:
        return 1.0
    least = LEAST_COSINE + _SURE / sqrt(difference.entries)
    return min(1.0, max(least, (needed_z(tests) + _SURE) / sqrt(difference.effective_entries)))


def correlated(tensor: TensorContent, tests: int) -> bool:
    """Whether all tests find entries of two tensors correlated: signs, products and the cosine."""
    difference = tensor.difference
    if difference is None or difference.cosine is None:
        return False
    z = needed_z(tests)
    values = (difference.agreement_z, difference.product_z)
    log10_p = difference.cosine_log10_p
    return (
        difference.cosine >= LEAST_COSINE
        and all(value is not None and value >= z for value in values)
        and log10_p is not None
        and log10_p <= LOG10_LEVEL - log10(tests)
    )
