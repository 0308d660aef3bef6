"""Verdicts on levels under neural collapse, by configuration, and on the order of arrival."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import inf, sqrt

from flagscope.lab.experiment import (
    Estimate,
    Finding,
    Measured,
    Prediction,
    Verdict,
)
from flagscope.lab.intervals import SHARE, mean_interval, share_interval

# Fixed before measuring. A level is reached if its grade is at least 0.9 (the tolerance of
# `alignment_levels`). Collapse is reached if features spread within a class by at most a tenth of
# the distance between classes, and the nearest class mean agrees with the classifier.
REACHED = 0.9
COLLAPSED = {"nc1": (0.0, 0.1), "nc4": (0.99, 1.0)}
# Bands in which each quantity has arrived: (name, least, greatest value).
ARRIVALS = (
    ("NC1", "nc1", 0.0, 0.1),
    ("NC2", "nc2", 0.0, 0.2),
    ("NC3", "nc3", 0.0, 0.2),
    ("NC4", "nc4", 0.99, 1.0),
    ("level 1", "last/rank", REACHED, 1.0),
    ("level 2", "last/subspace", REACHED, 1.0),
    ("level 3", "last/basis", REACHED, 1.0),
)
# Grades besides those of the last pair, which decide the verdict: other pairs, finer readings.
_SHOWN = (
    "/subspace", "/basis", "last/blocks", "last/blocks chance", "last/commutation", "last/within",
    "last/balanced subspace", "last/balanced basis",
)  # fmt: skip
_LABELS = {
    "nc1": "NC1, tr(Σ_W Σ_B⁺)/K",
    "nc2": "NC2, distance of the class means to a simplex",
    "nc3": "NC3, self-duality",
    "nc4": "NC4, agreement with the nearest class mean",
    "rank": "level 1, rank",
    "subspace": "level 2, subspace",
    "basis": "level 3, basis",
    "balanced subspace": "level 2, balanced",
    "balanced basis": "level 3, balanced",
    "commutation": "commutation of the Grams",
    "within": "commutation within the dominant space",
    "blocks": "agreement of blocks",
    "blocks chance": "agreement of blocks by chance",
}
# All other quantities are grades or shares, in [0, 1].
_BOUNDS = {"nc1": None, "nc2": (0.0, sqrt(2)), "nc3": (0.0, 2.0)}
_NAMES = {"mlp": "perceptron", "resnet": "ResNet", "mse": "squared error", "ce": "cross-entropy"}


def _final(m: Measured, quantity: str) -> Estimate:
    """Mean over seeds at the end of training."""
    runs = m.values["series"][quantity]
    pair, _, grade = quantity.rpartition("/")
    label = _LABELS.get(grade, grade) + (f", {pair} pair" if pair else "")
    return mean_interval(label, [run[-1] for run in runs], bounds=_BOUNDS.get(quantity, SHARE))


def configuration_verdict(
    nc1: Estimate, nc4: Estimate, subspace: Estimate, basis: Estimate
) -> Verdict:
    """Whether level 2 was reached and level 3 was not, by 95 % intervals at the end of training.

    Open if collapse itself is not established, or an interval contains the grade at which a level
    counts as reached.

    Examples
    --------
    >>> sure = lambda x: Estimate("", x, x, x, 5)
    >>> configuration_verdict(sure(0.01), sure(1.0), sure(0.99), sure(0.3))
    'confirmed'
    >>> configuration_verdict(sure(0.01), sure(1.0), sure(0.5), sure(0.3))
    'refuted'
    >>> configuration_verdict(sure(0.01), sure(1.0), sure(0.99), sure(0.95))
    'refuted'
    >>> configuration_verdict(sure(2.0), sure(1.0), sure(0.99), sure(0.3))
    'open'
    """
    inside = [
        _within(estimate, *COLLAPSED[name]) for name, estimate in (("nc1", nc1), ("nc4", nc4))
    ]
    if not all(inside):
        return "open"
    second, third = _within(subspace, REACHED, 1.0), _within(basis, REACHED, 1.0)
    if second is False or third is True:
        return "refuted"
    return "confirmed" if second and third is False else "open"


def _within(estimate: Estimate, low: float, high: float) -> bool | None:
    """Whether the true mean is in the band; None if the interval does not decide.

    NC1 is never negative, so an interval that extends below 0 is not a failure.
    """
    if estimate.low is None or estimate.high is None:
        return None
    bottom = max(estimate.low, 0.0)
    if low <= bottom and estimate.high <= high:
        return True
    return False if bottom > high or estimate.high < low else None


def configuration_finding(m: Measured) -> Finding:
    """Whether level 2 is reached and level 3 is not, in one configuration."""
    s = m.cell.settings
    where = f"{_NAMES[s['network']]}, {_NAMES[s['loss']]}, " + (
        f"weight decay {s['decay']:g}" if s["decay"] else "no weight decay"
    )
    claim = f"Level 2 comes and level 3 does not: {where}."
    prediction = Prediction(
        f"given collapse, the grade of level 2 is at least {REACHED} at the end of training and "
        "that of level 3 below it", None, "arXiv 2605.09861; theory §3, levels",
    )  # fmt: skip
    names = ("nc1", "nc2", "nc3", "nc4", "last/rank", "last/subspace", "last/basis")
    blank = [q for q in names if any(run[-1] is None for run in m.values["series"][q])]
    if blank:
        words = f"{where}: in some seed there is no {', '.join(blank)} at the end of training."
        return Finding(claim, prediction, (), "open", words)
    e = {name: _final(m, name) for name in names}
    verdict = configuration_verdict(e["nc1"], e["nc4"], e["last/subspace"], e["last/basis"])
    came = all(_within(e[name], *COLLAPSED[name]) for name in COLLAPSED)
    words = (
        f"{where}: collapse {'came' if came else 'is not established'} (NC1 {e['nc1'].value:.2g}, "
        f"NC4 {e['nc4'].value:.3f}), by which it is judged; {_means_text(e)} At the end level 1 "
        f"stands at {e['last/rank'].value:.2f}, level 2 at {e['last/subspace'].value:.2f}, "
        f"level 3 at {e['last/basis'].value:.2f}."
    )
    others = [
        _final(m, q)
        for q, runs in m.values["series"].items()
        if q.endswith(_SHOWN) and q not in e and all(run[-1] is not None for run in runs)
    ]
    return Finding(claim, prediction, (*e.values(), *others), verdict, words)


def _means_text(e: dict[str, Estimate]) -> str:
    """Text on the distance of class means and classifier from the simplex of full collapse."""
    parts = [
        f"{name} {'fell' if e[quantity].value <= high else 'did not fall'} to {high} "
        f"({e[quantity].value:.2g})"
        for name, quantity, _, high in ARRIVALS
        if quantity in ("nc2", "nc3")
    ]
    return f"{', '.join(parts)}."


def arrivals(m: Measured) -> list[dict[str, float]]:
    """For each seed, the step from which each quantity stays in its band; infinity if never.

    Sorted by arrival.
    """
    by_seed = []
    for i in range(len(m.cell.settings["seeds"])):
        steps = {}
        for name, quantity, low, high in ARRIVALS:
            run = m.values["series"][quantity][i]
            steps[name] = inf
            for step, value in zip(reversed(m.values["steps"]), reversed(run), strict=True):
                if value is None or not low <= value <= high:
                    break
                steps[name] = step
        by_seed.append(dict(sorted(steps.items(), key=lambda item: item[1])))
    return by_seed


def order_finding(measured: Sequence[Measured]) -> Finding:
    """Whether levels are reached in order, over all seeds that reach level 2."""
    orders = [(m.cell.name, a) for m in measured for a in arrivals(m)]
    second = [a for _, a in orders if a["level 2"] < inf]
    ordered = [a["level 1"] <= a["level 2"] <= a["level 3"] for a in second]
    early = [a["NC1"] <= a["level 2"] for a in second]
    verdict: Verdict = "open"
    estimates: tuple[Estimate, ...] = ()
    if second:
        estimates = (
            share_interval("share of seeds with level 1 no later than 2, and 2 than 3", ordered),
            share_interval("share of seeds with NC1 no later than level 2", early),
        )
        share = estimates[0].value
        verdict = "confirmed" if share == 1 else "refuted" if share < 0.5 else "open"
    lines = "; ".join(f"{m.cell.name}: {_orders_text(m)}" for m in measured)
    return Finding(
        claim="The levels are reached in their order: rank, subspace, basis.",
        prediction=Prediction(
            "in every seed that reaches level 2, level 1 came no later and level 3 no earlier",
            1.0, "theory §3, levels",
        ),
        estimates=estimates,
        verdict=verdict,
        words=f"{len(second)} of {len(orders)} seeds reach level 2. "
        f"Order of arrival, with the number of seeds: {lines}.",
    )  # fmt: skip


def order_text(steps: dict[str, float]) -> str:
    """Quantities in order of arrival, with "=" between those first seen at the same measurement.

    Examples
    --------
    >>> order_text({"NC4": 3, "NC1": 8, "level 2": 8, "level 3": inf})
    'NC4 < NC1 = level 2'
    """
    came = [(step, name) for name, step in steps.items() if step < inf]
    groups = [" = ".join(name for _, name in group) for _, group in groupby(came, key=_first)]
    return " < ".join(groups) or "nothing"


def _first(pair: tuple[float, str]) -> float:
    return pair[0]


def _orders_text(m: Measured) -> str:
    """The orders that occur, with the number of seeds."""
    counts = Counter(order_text(a) for a in arrivals(m))
    return ", ".join(f"{order} ({n})" for order, n in counts.most_common())
