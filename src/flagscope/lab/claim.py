"""Claims with a predicted range for the 95 % intervals of their estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flagscope.lab.experiment import Estimate, Finding, Prediction
from flagscope.lab.intervals import band_verdict, lies_outside

Data = TypeVar("Data")


@dataclass(frozen=True)
class Claim(Generic[Data]):
    """A claim, its prediction, and the estimates that decide it.

    Confirmed if all intervals lie in the predicted range, refuted if one lies wholly outside at the
    joint level, and open otherwise: the rule of `band_verdict`.

    Attributes
    ----------
    text, prediction, source
        The claim in a sentence, the prediction for the estimates, and its source.
    estimates
        Function from the measured data to the estimates.
    low, high
        The predicted range.
    beyond
        Whether this goes beyond the paper's claims.

    Examples
    --------
    >>> from flagscope.lab.intervals import mean_interval
    >>> claim = Claim("It grows.", "its growth is positive", "theory", lambda data: [
    ...     mean_interval("growth", data)])
    >>> claim.judge([0.9, 1.0, 1.1]).verdict, claim.judge([-1.0, 0.0, 1.0]).verdict
    ('confirmed', 'open')
    """

    text: str
    prediction: str
    source: str
    estimates: Callable[[Data], Sequence[Estimate]]
    low: float = 0.0
    high: float = math.inf
    beyond: bool = False

    def judge(self, data: Data) -> Finding:
        """The finding, by the rule above."""
        estimates = tuple(self.estimates(data))
        return Finding(
            claim=self.text,
            prediction=Prediction(text=self.prediction, source=self.source),
            estimates=estimates,
            verdict=band_verdict(estimates, self.low, self.high),
            words=_words(estimates, self.low, self.high),
            beyond=self.beyond,
        )


def _words(estimates: Sequence[Estimate], low: float, high: float) -> str:
    if not estimates:
        return "Nothing could be estimated."
    known = [(e.low, e.high) for e in estimates if e.low is not None and e.high is not None]
    inside = sum(low <= a and b <= high for a, b in known)
    together = len(estimates)
    outside = sum(lies_outside(e, low, high, together=together) for e in estimates)
    alone = sum(b < low or a > high for a, b in known) - outside
    whole = f"above {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    return (
        f"Of {together} intervals {inside} lie in the predicted range ({whole}), "
        f"{outside} outside of it, {together - inside - outside} undecided"
        + (f", {alone} of these outside by itself, but not as one of {together}" if alone else "")
        + "."
    )
