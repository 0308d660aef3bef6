"""Rates of all pairs: each answer, and each argument."""

from __future__ import annotations

import math

import pytest

from flagscope.errors import InputError
from flagscope.records.series_rates import RATE_ANSWERS, SeriesRates
from flagscope.series.rates import GroupSchedule, Schedule, given_schedule, known_rates, rates_of

UPDATES = 2000
RATES = known_rates(0.1, updates=UPDATES)
STEPS = range(0, UPDATES + 1, 100)


def falling(rate: float = 0.002, steps=STEPS) -> dict[int, dict[str, float | None]]:
    return {n: {"1-2": 3 * math.exp(-rate * n)} for n in steps}


def two_groups() -> Schedule:
    return given_schedule(RATES, {"maps": 0.01, "last": 0.005, "biases": 0.0})


def test_a_pair_with_a_rate():
    found = rates_of(falling(), given_schedule(RATES, 0.01))
    (rate,) = found.rates
    assert (rate.answer, rate.pair, rate.group) == ("rate", "1-2", "all")
    assert rate.rate == pytest.approx(1, abs=1e-3)
    assert rate.low <= rate.rate <= rate.high
    assert rate.predicted == 1.0
    assert (rate.points, rate.span) == (21, pytest.approx(4, rel=1e-2))
    assert rate.rate_first == pytest.approx(rate.rate_last, rel=1e-6)
    assert (found.optimiser, found.source, found.diagnostic) == ("sgd", "given", "‖A - B‖")
    assert SeriesRates.model_validate_json(found.model_dump_json()) == found


def test_other_optimisers_and_diagnostics_have_no_prediction():
    adamw = rates_of(falling(), given_schedule(RATES, 0.01, optimiser="adamw"))
    assert adamw.rates[0].answer == "rate"
    assert adamw.rates[0].predicted is None
    assert "AdamW" in " ".join(adamw.notes)
    other = rates_of(falling(), given_schedule(RATES, 0.01), diagnostic="C")
    assert (other.diagnostic, other.rates[0].predicted) == ("C", None)


CASES = {
    "no-decay": (falling(), given_schedule(RATES, 0.0), {}),
    "unresolved": (falling(steps=(0, 80, 400)), given_schedule(RATES, 0.01), {}),
    "not-exponential": (
        {n: {"1-2": math.exp(-0.002 * n) + 1} for n in STEPS},
        given_schedule(RATES, 0.01),
        {},
    ),
    "unknown-schedule": (falling(), None, {}),
    "mixed-decay": (falling(), two_groups(), {"groups": {"1-2": ("maps", "last")}}),
    "rate": (falling(), two_groups(), {"groups": {"1-2": "maps"}}),
}


@pytest.mark.parametrize("answer", RATE_ANSWERS)
def test_each_answer(answer):
    values, schedule, options = CASES[answer]
    (rate,) = rates_of(values, schedule, **options).rates
    assert rate.answer == answer
    assert (rate.rate is None) == (answer != "rate") == bool(rate.reason)
    assert rate.pair == "1-2"


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (two_groups(), "which of the groups"),
        (given_schedule(RATES, 0.01, optimiser=None), "optimiser"),
        (Schedule((GroupSchedule("all", RATES, None),), "sgd"), "not known"),
        (given_schedule(known_rates(0.1, updates=1500), 0.01), "ends at step 1500"),
    ],
)
def test_what_of_a_schedule_is_not_known_is_said(schedule, words):
    (rate,) = rates_of(falling(), schedule).rates
    assert rate.answer == "unknown-schedule"
    assert words in rate.reason


def test_all_groups_without_decay_are_no_decay():
    schedule = given_schedule(RATES, {"maps": 0.0, "biases": 0.0})
    assert rates_of(falling(), schedule).rates[0].answer == "no-decay"


def test_maps_of_two_groups_that_decay_alike_have_a_rate():
    schedule = given_schedule(RATES, {"a": 0.01, "b": 0.01})
    (rate,) = rates_of(falling(), schedule, groups={"1-2": ("a", "b")}).rates
    assert (rate.answer, rate.group) == ("rate", "a")


def test_a_floor_leaves_points_out_and_missing_values_are_passed_over():
    values = falling()
    values[300]["1-2"] = None
    del values[500]["1-2"]
    values[0]["2-3"] = 1.0
    first, second = rates_of(values, given_schedule(RATES, 0.01), floors={"1-2": 0.1}).rates
    assert first.points == sum(3 * math.exp(-0.002 * n) > 1 for n in STEPS) - 2
    assert (second.pair, second.answer, second.points) == ("2-3", "unresolved", 1)


def test_steps_need_not_come_in_order():
    values = dict(reversed(falling().items()))
    assert rates_of(values, given_schedule(RATES, 0.01)).rates[0].answer == "rate"


def test_a_group_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no group 'x'"):
        rates_of(falling(), two_groups(), groups={"1-2": "x"})


def test_the_notes_of_the_schedule_are_kept():
    schedule = Schedule((GroupSchedule("all", RATES, 0.01),), "sgd", "here", ("a note",))
    found = rates_of(falling(), schedule)
    assert (found.source, found.notes[0]) == ("here", "a note")
