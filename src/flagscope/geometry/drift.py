"""How far a random update of a given size turns singular spaces, to first order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError


@dataclass(frozen=True)
class ExpectedDrift:
    """E Σ sin² of a singular space under independent entries of variance 1, and its bounds.

    Attributes
    ----------
    low, high
        Equal where all singular values are known. Where only the leading ones are, what the others
        can contribute lies between them.
    squares
        Sum of the squared contributions of all pairs of directions. Each is its mean times an
        independent χ² variable of one degree of freedom, so that the variance is twice this; the
        values that are not known count as equal.
    """

    low: float
    high: float
    squares: float

    @property
    def middle(self) -> float:
        """Mean of the bounds."""
        return (self.low + self.high) / 2


def expected_drift(
    sigma: Float[Tensor, " k"],
    block: tuple[int, int],
    *,
    shape: tuple[int, int],
    rest: float = 0.0,
    following: float | None = None,
) -> ExpectedDrift:
    """Expected Σ sin² between a left singular space of W and that of W + E, per variance of E.

    For independent entries of variance ε², block I of the singular values σ, and W with p rows,

        E ‖sin Θ‖² ≈ ε² Σ_{i∈I} [Σ_{j∉I} (σ_i² + σ_j²)/(σ_i² - σ_j²)² + max(0, p - m)/σ_i²].

    Parameters
    ----------
    sigma
        Singular values, descending: all of them, or the leading ones.
    block
        First index and the one after the last of the block.
    shape
        Rows and columns (p, m) of W; transpose it for right singular spaces.
    rest
        Sum of squares of the singular values that are not given.
    following
        What none of these exceeds; by default the least one given.

    Returns
    -------
    ExpectedDrift
        Infinite where a value of the block is zero or equals one outside. The contribution of s =
        σ_j² is convex in s, so that of values with a known sum lies between that of their mean and
        that of the chord from 0 to the largest that it may be.

    Raises
    ------
    InputError
        If the block is empty or not within the values.

    Notes
    -----
    First order: it holds where the result times ε² is small against the block's dimension.

    References
    ----------
    G. W. Stewart and J. Sun, Matrix Perturbation Theory (1990), section V.4: the first-order turn
    of u_i towards u_j is (σ_i u_jᵀE v_i + σ_j u_iᵀE v_j)/(σ_i² - σ_j²).

    Examples
    --------
    >>> sigma = torch.tensor([2.0, 1.0], dtype=torch.float64)
    >>> round(expected_drift(sigma, (0, 1), shape=(2, 2)).low, 4)  # 5/9
    0.5556
    >>> round(expected_drift(sigma, (0, 1), shape=(4, 2)).low, 4)  # and 2/4
    1.0556
    """
    start, stop = block
    if not 0 <= start < stop <= len(sigma):
        raise InputError(
            f"block {block} of {len(sigma)} singular values", hint="give indices within them"
        )
    p, m = shape
    squares = sigma.double().square()
    inside, outside = squares[start:stop, None], torch.cat([squares[:start], squares[stop:]])
    turns, beyond = _turn(inside, outside[None]), 1 / inside
    known = float(turns.sum()) + max(0, p - m) * float(beyond.sum())
    spread = float(turns.square().sum()) + max(0, p - m) * float(beyond.square().sum())
    hidden = min(p, m) - len(sigma)
    if hidden <= 0:
        return ExpectedDrift(known, known, spread)
    last = squares[-1:]
    if following is not None:
        last = last.clamp_max(following * following)
    mean = torch.clamp(torch.tensor([max(rest, 0.0) / hidden], dtype=torch.float64), max=last)
    equal = _turn(inside, mean[None])
    low, spread = hidden * float(equal.sum()), spread + hidden * float(equal.square().sum())
    weight = float(mean / last) if float(last) > 0 else 0.0
    ends = _turn(inside, torch.stack([torch.zeros_like(last), last], -1)).sum(0)
    high = hidden * ((1 - weight) * float(ends[0]) + (weight * float(ends[1]) if weight else 0.0))
    return ExpectedDrift(known + low, known + max(low, high), spread)


def _turn(inside: Float[Tensor, "b 1"], outside: Float[Tensor, "1 c"]) -> Float[Tensor, "b c"]:
    return (inside + outside) / (inside - outside).square()
