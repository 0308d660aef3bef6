"""Findings on exact statements, judged by the share of trials in which each held."""

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
        The claim in the words of its author.
    prediction
        Prediction of the theory, which may be that the claim fails.
    tests
        For each test by name, whether the claim held in each trial. Tests without trials are left
        out; if none is left, the verdict is open.
    words
        Text on the results.

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
