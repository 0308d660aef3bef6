"""A coefficient of a line through points whose scatter may be correlated, with its interval.

The scatter of a diagnostic over a training is not independent from checkpoint to checkpoint: what
gradients put into the weights fades as slowly as the weights themselves. Least squares alone gives
intervals that are then too narrow. Here y = Xb + e with Gaussian e, and a correlation of
ρ^(gap / mean gap) between consecutive points. b and the size of e are integrated out with flat
priors, and ρ over a grid, with half the weight at ρ = 0 and half spread evenly up to 0.95. What
remains of a coefficient is a mixture of Student t laws.

References
----------
.. [1] A. Zellner, An Introduction to Bayesian Inference in Econometrics (1971), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

_CORRELATIONS = np.linspace(0.0, 0.95, 20)
_PRIOR = np.where(_CORRELATIONS == 0, 0.5, 0.5 / (len(_CORRELATIONS) - 1))
# Below this relative size residuals are round-off, and their correlation means nothing.
_EXACT = 1e-13


@dataclass(frozen=True)
class Coefficient:
    """The coefficient of the highest power.

    Attributes
    ----------
    value
        Its mean.
    low, high
        Ends of its interval.
    correlation
        Mean of ρ.
    """

    value: float
    low: float
    high: float
    correlation: float


def leading_coefficient(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *, order: int, level: float
) -> Coefficient:
    """The coefficient of x^order in a polynomial through the points, with its interval.

    Parameters
    ----------
    x, y
        The points, x ascending; at least order + 2 of them.
    order
        1 for a slope, 2 for a curvature.
    level
        Level of the interval.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(6.0)
    >>> y = -2 * x + np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.1])
    >>> slope = leading_coefficient(x, y, order=1, level=0.95)
    >>> slope.low < -2 < slope.high
    True
    """
    # Centred and of unit size, so that powers do not grow.
    centre, size = x.mean(), np.ptp(x) or 1.0
    design = np.vander((x - centre) / size, order + 1, increasing=True)
    gaps = np.diff(x) / np.diff(x).mean()
    degrees = len(x) - order - 1
    fits = [_fitted(design, y, rho**gaps if rho else 0 * gaps) for rho in _CORRELATIONS]
    means = np.array([fit[0] for fit in fits])
    errors = np.array([max(fit[1], _EXACT * (abs(y).max() + 1)) for fit in fits])
    logs = np.array([fit[2] for fit in fits]) + np.log(_PRIOR)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    value = float(weights @ means)
    tail = (1 - level) / 2
    low, high = (_quantile(p, weights, means, errors, degrees) for p in (tail, 1 - tail))
    scale = size**order
    ends = [float(each / scale) for each in (value, low, high)]
    return Coefficient(*ends, correlation=float(weights @ _CORRELATIONS))


def _fitted(
    design: Float[np.ndarray, "n k"], y: Float[np.ndarray, " n"], links: Float[np.ndarray, " m"]
) -> tuple[float, float, float]:
    """Last coefficient, its standard error, and the log of the marginal density of the points."""
    spread = np.sqrt(1 - links**2)
    # Differences that are independent if neighbours are correlated as `links`.
    white = np.vstack([design[:1], (design[1:] - links[:, None] * design[:-1]) / spread[:, None]])
    seen = np.concatenate([y[:1], (y[1:] - links * y[:-1]) / spread])
    q, r = np.linalg.qr(white)
    coefficients = np.linalg.solve(r, q.T @ seen)
    degrees = len(y) - design.shape[1]
    squares = float(np.square(seen - white @ coefficients).sum())
    squares = max(squares, (_EXACT * (float(np.abs(y).max()) + 1)) ** 2)
    inverse = np.linalg.inv(r)
    error = float(np.sqrt(squares / degrees) * np.linalg.norm(inverse[-1]))
    log_density = -np.log(spread).sum() - np.log(np.abs(np.diag(r))).sum()
    return float(coefficients[-1]), error, float(log_density - degrees / 2 * np.log(squares))


def _quantile(
    p: float,
    weights: Float[np.ndarray, " m"],
    means: Float[np.ndarray, " m"],
    errors: Float[np.ndarray, " m"],
    degrees: int,
) -> float:
    """Quantile of a mixture of Student t laws."""
    ends = means + stats.t.ppf(p, degrees) * errors
    low, high = float(ends.min()), float(ends.max())
    if low == high:
        return low

    def excess(x: float) -> float:
        return float(weights @ stats.t.cdf((x - means) / errors, degrees)) - p

    # Each law has its quantile between the ends, so the mixture has too, up to rounding.
    margin = 1e-6 * (high - low) + 1e-12 * (abs(low) + abs(high))
    root = optimize.brentq(excess, low - margin, high + margin, xtol=1e-9 * float(errors.min()))
    return cast("float", root)
