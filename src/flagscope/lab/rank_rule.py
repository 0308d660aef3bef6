"""The laboratory's rule for the dimensions of dominant spaces."""

from __future__ import annotations

from flagscope.geometry import RankRule

# As an argument of `flagscope.scan`. Stated here instead of using the library's default, so that
# published numbers do not change with that default. A change requires raising the `version` of
# every experiment that uses it, and new measurements.
LAB_RULE = "participation"


def lab_rule() -> RankRule:
    """The same rule as an argument of `flagscope.diagnose`.

    Examples
    --------
    >>> str(lab_rule()) == LAB_RULE
    True
    """
    return RankRule.parse(LAB_RULE)
