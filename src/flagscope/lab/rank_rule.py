"""The rule by which the laboratory chooses the dimensions of dominant spaces."""

from __future__ import annotations

from flagscope.geometry import RankRule

# As `flagscope.scan` takes it. Named here and not left to the library's default, so that published
# numbers stay what they are when that default changes. Whoever changes it raises the `version` of
# every experiment that names it, and measures again.
LAB_RULE = "participation"


def lab_rule() -> RankRule:
    """The same rule as `flagscope.diagnose` takes it.

    Examples
    --------
    >>> str(lab_rule()) == LAB_RULE
    True
    """
    return RankRule.parse(LAB_RULE)
