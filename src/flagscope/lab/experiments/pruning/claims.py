"""Claims of the pruning experiment: predictions and rules, fixed before measuring.

The paper does not treat the cost of a head: all claims go beyond it.

The independent units are models: every estimate is a mean over models, of a correlation within each
or of a difference of areas under the curves of loss against heads removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata, spearmanr

from flagscope.lab.claim import Claim
from flagscope.lab.experiment import Estimate, Measured
from flagscope.lab.gpt_alignment import SPACES
from flagscope.lab.intervals import CORRELATION, mean_interval

Values = dict[str, Any]
Models = Sequence[Measured]
Quantity = Callable[[Values], float | None]

# Heads with a high value of these scores should be cheap to remove; of the other scores, costly.
REDUNDANCY = (*(f"overlap_{space}" for space in SPACES), "overlap", "nearest", "membership")


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's ρ; None if one of the two is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.asarray(spearmanr(x, y))[0])


def partial_rank_correlation(
    x: Sequence[float], y: Sequence[float], fixed: Sequence[float]
) -> float | None:
    """Spearman's ρ of x and y with the ranks of a third held fixed.

    References
    ----------
    M. G. Kendall, Partial rank correlation, Biometrika 32 (1942) 277-283.

    Examples
    --------
    >>> common = [1.0, 2.0, 3.0, 4.0]
    >>> round(partial_rank_correlation([1, 2, 4, 3], [2, 1, 3, 4], common), 4)
    -0.1111
    """
    between = rank_correlation(x, y), rank_correlation(x, fixed), rank_correlation(y, fixed)
    if None in between:
        return None
    xy, xz, yz = (float(r or 0) for r in between)
    scale = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / scale**0.5 if scale > 0 else None


def layer_ranks(
    values: Sequence[float] | Float[np.ndarray, " n"], heads: int
) -> Float[np.ndarray, " n"]:
    """Rank of each head within its layer, which removes common effects of a layer."""
    return rankdata(np.reshape(values, (-1, heads)), axis=1).ravel()


def area(curve: Sequence[float]) -> float:
    """Mean excess loss over the numbers of heads removed, from none to all; nats per token."""
    return float(np.mean(curve) - curve[0])


def random_area(values: Values) -> float:
    """Mean area of the random orders of a model."""
    return float(np.mean([area(curve) for curve in values["random_curves"]]))


def _cost(values: Values) -> Float[np.ndarray, " n"]:
    return np.array(values["single"]) - values["base"]


def _across(score: str) -> Quantity:
    return lambda values: rank_correlation(values["scores"][score], _cost(values).tolist())


def _within(score: str) -> Quantity:
    def correlation(values: Values) -> float | None:
        scores = layer_ranks(values["scores"][score], values["heads"])
        cost = layer_ranks(_cost(values), values["heads"])
        if np.ptp(scores) == 0 or np.ptp(cost) == 0:
            return None
        return float(np.corrcoef(scores, cost)[0, 1])

    return correlation


def _beyond(score: str, known: str) -> Quantity:
    return lambda values: partial_rank_correlation(
        values["scores"][score], _cost(values).tolist(), values["scores"][known]
    )


def _interaction(values: Values) -> float | None:
    """Correlation of the overlap of two heads with the cost of both beyond the sum."""
    overlap, beyond = zip(*((o, b) for _, _, o, b in values["interactions"]), strict=True)
    return rank_correlation(overlap, beyond)


def _saved(worse: str, better: str) -> Quantity:
    def of(values: Values, name: str) -> float:
        return random_area(values) if name == "random" else area(values["curves"][name])

    return lambda values: of(values, worse) - of(values, better)


def _correlations(quantities: dict[str, Quantity]) -> Callable[[Models], list[Estimate]]:
    """Means of correlations over the models in which they are defined."""
    return _means(quantities, CORRELATION)


def _means(
    quantities: dict[str, Quantity], bounds: tuple[float, float] | None = None
) -> Callable[[Models], list[Estimate]]:
    """Means of quantities over the models in which they are defined."""

    def estimates(models: Models) -> list[Estimate]:
        intervals = []
        for name, quantity in quantities.items():
            known = [v for v in (quantity(model.values) for model in models) if v is not None]
            if known:
                intervals.append(mean_interval(name, known, bounds=bounds))
        return intervals

    return estimates


def _foretells(
    score: str, name: str, symbol: str | None = None
) -> Callable[[Models], list[Estimate]]:
    """Correlation of a score with the cost, and the saving of its order over random orders."""
    correlations = _correlations({f"ρ, {symbol or name}": _across(score)})
    areas = _means({f"random less {name}, nats": _saved("random", score)})
    return lambda models: correlations(models) + areas(models)


def _predicts_cheapness(text: str, score: str) -> Claim[Models]:
    return Claim(
        text,
        "Spearman's ρ of redundancy and the cost of removing the head is negative",
        "what `near copies` and `clusters` of a scan suggest",
        _correlations({"ρ, all heads": _across(score), "ρ, within layers": _within(score)}),
        -1.0,
        0.0,
    )


_CLAIMS: tuple[Claim[Models], ...] = (
    _predicts_cheapness("Heads that overlap more with the others cost less to remove.", "overlap"),
    _predicts_cheapness("Heads that have a near copy cost less to remove.", "nearest"),
    _predicts_cheapness("Heads in many shared directions cost less to remove.", "membership"),
    Claim(
        "One space alone tells: heads that overlap more in Q, K, V or O cost less to remove.",
        "Spearman's ρ is negative in each of the four",
        "what `near copies` and `clusters` of a scan suggest",
        _correlations({f"ρ, {space.upper()}": _across(f"overlap_{space}") for space in SPACES}),
        -1.0,
        0.0,
    ),
    Claim(
        "Overlap tells of the cost what magnitude does not.",
        "the partial rank correlation, ‖W_O W_V‖ held fixed, is negative",
        "redundancy is not size",
        _correlations({"partial ρ": _beyond("overlap", "product")}),
        -1.0,
        0.0,
    ),
    Claim(
        "Overlapping heads stand in for each other: removing both costs more than the sum.",
        "Spearman's ρ of overlap and the cost beyond the sum, over head pairs, is positive",
        "the meaning of redundancy",
        _correlations({"ρ, head pairs": _interaction}),
        0.0,
        1.0,
    ),
    Claim(
        "Removing redundant heads first costs less than removing them at random.",
        "area of the random orders less that of the order by redundancy is positive",
        "the use of redundancy",
        _means({f"by {name}, nats": _saved("random", name) for name in ("overlap", "nearest")}),
    ),
    Claim(
        "Removing redundant heads first costs less than removing small ones first.",
        "area by ‖W_O W_V‖ less area by overlap is positive",
        "the use of redundancy beside the simplest baseline",
        _means({"nats": _saved("product", "overlap")}),
    ),
    Claim(
        "Gradient importance, which needs data, does better than redundancy.",
        "area by overlap less area by gradient importance is positive",
        "Michel, Levy, Neubig, NeurIPS 2019",
        _means({"nats": _saved("overlap", "gradient")}),
    ),
    Claim(
        "The measurement can see a predictor: gradient importance foretells the cost.",
        "Spearman's ρ of gradient importance and cost is positive, and its order beats chance",
        "Michel, Levy, Neubig, NeurIPS 2019",
        _foretells("gradient", "gradient"),
    ),
    Claim(
        "Magnitude foretells the cost.",
        "Spearman's ρ of ‖W_O W_V‖ and cost is positive, and its order beats chance",
        "the simplest baseline",
        _foretells("product", "magnitude", "‖W_O W_V‖"),
    ),
)

CLAIMS = tuple(replace(claim, beyond=True) for claim in _CLAIMS)
