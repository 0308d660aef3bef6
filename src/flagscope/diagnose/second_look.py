"""A test that is taken twice: as the weights are, and with the scales of coordinates divided out.

The law of Haar-random spaces holds where all coordinates of the stream are alike. A gain that many
maps share, or coordinates that none of them uses, break it without any map knowing of another. The
larger of the two p-values is valid where either null is true.
"""

from __future__ import annotations

from math import log10

from flagscope.null import Significance

# A p-value above this stands as it is: nothing is claimed by it, nor would be by a larger one.
REASON_TO_LOOK = log10(0.2)


def needs_second_look(raw: Significance | None) -> bool:
    """Whether a test seems to be beyond chance."""
    return raw is not None and raw.log10_p is not None and raw.log10_p <= REASON_TO_LOOK


def second_log10_p(raw: Significance, again: Significance | None) -> float:
    """Log10 p of a test taken again; 0 where that bears nothing out.

    So it is where the dimensions left no freedom (the live coordinates explain everything), and
    where a two-sided test comes out on the other side of chance.
    """
    if again is None or again.log10_p is None:
        return 0.0
    if raw.z is not None and again.z is not None and raw.z * again.z < 0:
        return 0.0
    return again.log10_p


def larger_log10_p(raw: Significance, second: float | None) -> float | None:
    """The larger of both; the first where there was no second look.

    Examples
    --------
    >>> raw = Significance(z=4.0, p=1e-5, log10_p=-5.0)
    >>> larger_log10_p(raw, second_log10_p(raw, Significance(z=1.0, p=0.1, log10_p=-1.0)))
    -1.0
    >>> larger_log10_p(raw, None)
    -5.0
    """
    return raw.log10_p if raw.log10_p is None or second is None else max(raw.log10_p, second)


def p_value(raw: Significance, log10_p: float | None) -> float | None:
    """The p-value of this logarithm; the digits of the first test where it is that."""
    return raw.p if log10_p is None or log10_p == raw.log10_p else 10**log10_p
