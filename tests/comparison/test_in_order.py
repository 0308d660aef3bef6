"""Parts carried out in threads: one order of results and progress, and none after an error."""

from __future__ import annotations

import time

import pytest

from flagscope.comparison.in_order import in_order


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_is_that_of_the_parts(workers):
    def part(place):
        time.sleep(0.01 * (5 - place))
        return place * place

    seen = []
    parts = [(f"part {place}", lambda place=place: part(place)) for place in range(5)]
    found = in_order(
        parts, workers=workers, progress=lambda done, total, name: seen.append((done, total, name))
    )
    assert list(found) == [0, 1, 4, 9, 16]
    assert seen == [(place + 1, 5, f"part {place}") for place in range(5)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_has_not_started_does_not_after_an_error(workers):
    started = []

    def part(place):
        started.append(place)
        if place == 1:
            raise ValueError("broken")
        time.sleep(0.02)

    parts = [(str(place), lambda place=place: part(place)) for place in range(200)]
    with pytest.raises(ValueError, match="broken"):
        list(in_order(parts, workers=workers, progress=None))
    assert len(started) < 20
