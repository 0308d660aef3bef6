"""The tests by which two tensors count as correlated beyond chance, or as the same."""

from __future__ import annotations

from math import log, log10, sqrt

from flagscope.records.comparison.content_parts import ContentNumbers, TensorContent

EVIDENCE_PARTS = ("embedding", "block", "head", "other")
"""Parts whose matrices are independent in independent models. Gains start near 1, biases near 0,
and tables of positions are smooth in every model: strangers agree in them."""

LEAST_COSINE = 0.05
"""A correlated tensor has a cosine of at least this."""

LOG10_LEVEL = -6.0
"""Level of all tests of a comparison together, its decimal logarithm."""

SAME = ("identical", "rounding", "few_entries")


def is_evidence(tensor: TensorContent) -> bool:
    """Whether a tensor's entries say whether two models have a common origin."""
    return tensor.part in EVIDENCE_PARTS


def same(tensor: TensorContent) -> bool:
    """Whether both tensors hold the same numbers, up to rounding and a few entries."""
    return tensor.content in SAME


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
