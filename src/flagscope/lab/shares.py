"""Findings on statements that are exact: judged by the share of trials in which each held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flagscope.lab.experiment import Finding, Prediction
from flagscope.lab.intervals import share_interval


def exact_finding(
    claim: str, prediction: Prediction, tests: Mapping[str, Sequence[bool]], words: str
) -> Finding:
    """Finding on a claim that says "always": one counterexample refutes it.

    Parameters
    ----------
    claim
        As whoever makes it says it.
    prediction
        What the theory says, which may be that the claim fails.
    tests
        Name of each test -> whether the claim held, trial by trial. Tests without trials are left
        out; without any the verdict is open.
    words
        What was found.

    Examples
    --------
    >>> expected = Prediction("each one", 1.0)
    >>> exact_finding("Swans are white.", expected, {"white swans": [True, False]}, "").verdict
    'refuted'
    """
    estimates = tuple(share_interval(name, held) for name, held in tests.items() if held)
    always = all(estimate.value == 1 for estimate in estimates)
    verdict = ("confirmed" if always else "refuted") if estimates else "open"
    return Finding(claim, prediction, estimates, verdict, words)
