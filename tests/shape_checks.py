"""Annotations checked at run time, shapes of arrays included: a plugin and the checker itself.

    pytest -p shape_checks --jaxtyping-packages=flagscope.geometry,...,shape_checks.checked

The checks are on for tests of the mathematics and off for all others, which call the same functions
from further away. A function inside another is made anew at every call, and so would its checks be,
in a millisecond each: where they are off it is left as it is. A test that hands over wrong types on
purpose meets the checker before the message that it is about: it is run again with the checks off.
What src hands to src has to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintViolation

# PEP 484's numeric tower: an int is a float to every type checker.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

_ROOT = Path(__file__).parent.parent
_ON = tuple(
    _ROOT / name
    for name in (
        "src/flagscope/geometry", "src/flagscope/null", "src/flagscope/diagnose",
        "src/flagscope/arch", "src/flagscope/reparameterize", "src/flagscope/comparison",
        "tests/geometry", "tests/null", "tests/diagnose", "tests/reparameterize",
        "tests/comparison/test_in_order.py",
    )
)  # fmt: skip
# They draw the same calls thousands of times, which other tests make too.
_OFF = (
    "tests/diagnose/test_balanced_null.py",
    "tests/diagnose/test_calibration.py",
    "tests/diagnose/test_combined_test.py::test_planted_directions_of_thin_maps_cost_little",
    "tests/diagnose/test_guard.py",
    "tests/diagnose/test_heads.py::test_scales_of_coordinates_are_not_overlap",
    "tests/geometry/test_scale_profiles.py::test_size_of_rho_and_c_of_correlation_matrices",
    "tests/null/test_cauchy_combination.py::test_size_of_independent_and_of_equal_tests",
    "tests/null/test_commutator.py::test_size_of_estimates",
    "tests/null/test_correlation.py::test_size_of_either_tail_for_spectra_that_decay",
)


_wrapped = jaxtyping.jaxtyped


def _jaxtyped(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """What the import hook puts around every function."""

    def around(function: Any) -> Any:
        inner = "<locals>" in getattr(function, "__qualname__", "")
        if inner and jaxtyping.config.jaxtyping_disable:
            return function
        return _wrapped(function, typechecker=typechecker)

    return around


@pytest.hookimpl
def pytest_configure() -> None:
    """Before any module of the package is imported."""
    jaxtyping.jaxtyped = _jaxtyped


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Switch the checks on or off for one test and its fixtures."""
    on = any(item.path.is_relative_to(place) for place in _ON) and not item.nodeid.startswith(_OFF)
    with _checks(on=on):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Run one test; run it again without checks where its own argument is what does not fit."""
    try:
        return (yield)
    except (jaxtyping.TypeCheckError, BeartypeCallHintViolation) as error:
        if not _handed_over_by_a_test(error):
            raise
    with _checks(on=False):
        item.runtest()


@contextmanager
def _checks(*, on: bool) -> Iterator[None]:
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", not on)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _handed_over_by_a_test(error: BaseException) -> bool:
    """Whether an argument is refused, and the innermost code of the project is a test's."""
    argument = isinstance(error, BeartypeCallHintParamViolation)
    if not argument and "whilst checking the parameters" not in str(error):
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
