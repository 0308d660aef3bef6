"""What figures of estimates show: intervals within their bounds."""

from __future__ import annotations

from flagscope.lab.figures import draw_estimates, new_figure
from flagscope.lab.intervals import CORRELATION, SHARE, mean_interval

NEAR_ONE = [0.95, 0.99, 1.0, 1.0]


def limits(estimates) -> tuple[float, float]:
    _, axes = new_figure()
    draw_estimates(axes[0, 0], estimates)
    return axes[0, 0].get_xlim()


def test_the_axis_of_shares_ends_where_they_do():
    left, right = limits([mean_interval("x", NEAR_ONE, bounds=SHARE)])
    assert right == 1
    assert 0 <= left < 0.95
    left, right = limits([mean_interval("x", [-x for x in NEAR_ONE], bounds=CORRELATION)])
    assert left == -1


def test_other_axes_have_a_margin():
    assert limits([mean_interval("x", NEAR_ONE)])[1] > 1
    mixed = [mean_interval("x", NEAR_ONE, bounds=SHARE), mean_interval("y", NEAR_ONE)]
    assert limits(mixed)[1] > 1
