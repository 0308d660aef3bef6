"""Annotations checked at run time, shapes of arrays included: a plugin and the checker itself.

    pytest -p shape_checks --jaxtyping-packages=flagscope.geometry,...,shape_checks.checked

A test that hands over wrong types on purpose meets the checker before the message that it is about:
it is skipped. What src hands to src has to fit.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation

# PEP 484's numeric tower: an int is a float to every type checker.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

_ROOT = Path(__file__).parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Run one test; skip it where its own argument is what does not fit."""
    try:
        return (yield)
    except (jaxtyping.TypeCheckError, BeartypeCallHintViolation) as error:
        if _handed_over_by_a_test(error):
            pytest.skip("hands over wrong types on purpose")
        raise


def _handed_over_by_a_test(error: BaseException) -> bool:
    """Whether an argument is refused, and the innermost code of the project is a test's."""
    if "parameter" not in str(error):
        return False
    place, traceback = Path(), error.__traceback__
    while traceback is not None:
        file = Path(traceback.tb_frame.f_code.co_filename)
        if (
            file != Path(__file__)
            and file.is_relative_to(_ROOT)
            and "site-packages" not in file.parts
        ):
            place = file
        traceback = traceback.tb_next
    return place.is_relative_to(_ROOT / "tests")
