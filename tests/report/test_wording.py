"""Lists in sentences."""

import pytest

from flagscope.report.wording import joined


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (2, "0 and 1"), (3, "0, 1 and 2"), (4, "0, 1, 2 and 1 more")],
)
def test_a_list_is_cut_behind_its_limit(count, text):
    assert joined(range(count), limit=3) == text
