"""Verdicts on orbits of maps under ridge: Kempf-Ness, and the moment map."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.lab.experiment import Finding, Prediction
from flagscope.lab.experiments.attractor.records import ROUND_OFF, SOURCE, Run
from flagscope.lab.shares import exact_finding


def kempf_ness_finding(orbits: Sequence[Run], shallow: Sequence[Run]) -> Finding:
    """Whether ridge is the function of Kempf and Ness, least on an orbit where A = B."""
    return exact_finding(
        "Ridge is the function of Kempf and Ness, tr A + tr B, and A - B its moment map.",
        Prediction(
            "its derivative along exp(sX) is 2 tr X(A - B); on an orbit it is least where A = B, "
            "and 2 ‖W2 W1‖_* there; so it is at the end of every run of depth 2",
            1.0,
            f"{SOURCE}; Kempf and Ness (1979)",
        ),
        {
            "random pairs: derivative as predicted": [
                abs(run["derivative"] - run["predicted"]) < ROUND_OFF * run["ridge"]
                for run in orbits
            ],
            "random pairs: 2 ‖W2 W1‖_* at the balanced pair": [
                agree(run["ridge_balanced"], 2 * run["nuclear"]) for run in orbits
            ],
            "random pairs: more at its neighbours": [
                run["ridge_near"] > run["ridge_balanced"] for run in orbits
            ],
            "ends of runs: 2 ‖W2 W1‖_*": [
                abs(run["ridge"] - 2 * run["nuclear"]) < ROUND_OFF for run in shallow
            ],
        },
        "Balancing lowers ridge of random pairs by "
        f"{1 - max(run['ridge_balanced'] / run['ridge'] for run in orbits):.0%} to "
        f"{1 - min(run['ridge_balanced'] / run['ridge'] for run in orbits):.0%}.",
    )


def agree(a: float, b: float) -> bool:
    """Whether two numbers are equal to round-off."""
    return abs(a - b) < ROUND_OFF * abs(b)


def moment_finding(orbits: Sequence[Run]) -> Finding:
    """Whether ridge is the squared norm of the moment map."""
    return exact_finding(
        "Ridge is the squared norm of the moment map.",
        Prediction(
            "no: at a balanced pair the moment map is 0 and ridge is 2 ‖W2 W1‖_* > 0",
            0.0,
            SOURCE,
        ),
        {
            "random pairs with tr A + tr B = ‖A - B‖² within 1 %": [
                abs(run["ridge"] - run["moment"]) < 0.01 * run["ridge"] for run in orbits
            ],
            "balanced pairs at which both vanish": [
                run["ridge_balanced"] < ROUND_OFF * run["ridge"]
                and run["moment_balanced"] < ROUND_OFF * run["moment"]
                for run in orbits
            ],
        },
        "The two are of different degree, 2 and 4 in the weights. Both are least on an orbit where "
        "A = B, which may be why they were taken for each other. ‖A - B‖² falls to "
        f"{max(run['moment_balanced'] / run['moment'] for run in orbits):.0e} or less by "
        "balancing, ridge to no less than "
        f"{min(run['ridge_balanced'] / run['ridge'] for run in orbits):.0%}.",
    )
