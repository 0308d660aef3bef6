"""Strata: planted positions, and findings that a wrong number overturns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flagscope.geometry import RelativePosition
from flagscope.lab import Measured, Options
from flagscope.lab.experiments.strata.experiment import EXPERIMENT
from flagscope.lab.experiments.strata.pairs import rank_of_action, slope_excess

VERDICTS = ["confirmed"] * 4 + ["refuted", "confirmed"]


@pytest.fixture(scope="module")
def measured():
    cells = [c for c in EXPERIMENT.cells(Options(seeds=1, quick=True)) if c.settings["d"] < 4]
    return [Measured(c, EXPERIMENT.measure(c, lambda _: None), 0.0) for c in cells]


def tampered(measured, index, **values):
    """The same with one pair changed."""
    rows = [dict(row) for row in measured[-1].values["pairs"]]
    rows[index] |= values
    last = replace(measured[-1], values=measured[-1].values | {"pairs": rows})
    return [*measured[:-1], last]


def verdicts(measured):
    return [finding.verdict for finding in EXPERIMENT.conclude(measured)]


def test_every_part_is_settled(measured):
    assert verdicts(measured) == VERDICTS
    # d = 2: k = 0, 1; d = 3: (1,1), (1,2), (2,2) with two positions each.
    assert [len(m.values["pairs"]) for m in measured] == [2, 6]
    findings = EXPERIMENT.conclude(measured)
    assert set(EXPERIMENT.draw(measured, findings)) == set(dict(EXPERIMENT.figures))
    assert len(EXPERIMENT.table(measured)) == 8


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"rank_of_action": 1}, 0),
        ({"k_after_change": 7}, 1),
        ({"carried_sine": 1e-3}, 1),
        ({"k_on_path": -1}, 2),
        ({"k_limit": 0}, 2),
        ({"sines": [0.5] * 7}, 2),
        ({"k_near": 5}, 2),
        ({"closed_orbit": True}, 3),
    ],
)
def test_one_counterexample_refutes(measured, values, part):
    row = next(i for i, r in enumerate(measured[-1].values["pairs"]) if r["k"] < r["r1"])
    assert verdicts(tampered(measured, row, **values))[part] == "refuted"


def test_flags_that_were_polystable_would_confirm(measured):
    changed = [
        replace(
            m,
            values=m.values
            | {
                "pairs": [
                    r | ({"git": "polystable", "slope_excess": 0.0} if r["closed_orbit"] else {})
                    for r in m.values["pairs"]
                ]
            },
        )
        for m in measured
    ]
    assert verdicts(changed)[4] == "confirmed"


def test_flows_that_contradict_the_ranks_refute(measured):
    flows = [
        [row | {"closed": not row["closed"]} for row in flow]
        for flow in measured[0].values["flows"]
    ]
    first = replace(measured[0], values=measured[0].values | {"flows": flows})
    assert verdicts([first, *measured[1:]])[5] == "refuted"


def test_orbit_dimensions_of_the_theory():
    for k, dimension in enumerate([31, 29, 25, 19]):
        pair = RelativePosition(8, 3, 4, k).representative()
        rank, gap = rank_of_action(*pair)
        assert rank == dimension
        assert gap < 1e-12


@pytest.mark.parametrize(
    ("d", "r1", "r2", "k", "excess"),
    [
        (4, 2, 2, 0, 0.0),  # V ⊕ U = R^4: semistable, all slopes 1
        (4, 1, 2, 1, 2 - 3 / 4),  # a flag: V ∩ U has slope 2
        (5, 2, 2, 0, 1 - 4 / 5),  # V + U of slope 1 in a larger space
        (4, 3, 3, 2, 2 - 6 / 4),
    ],
)
def test_the_largest_slope(d, r1, r2, k, excess):
    pair = RelativePosition(d, r1, r2, k).representative()
    found = slope_excess(pair, torch.Generator().manual_seed(0))
    assert found == pytest.approx(excess, abs=1e-12)
