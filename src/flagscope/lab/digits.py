"""Rounds estimates to the digits that their intervals support."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

# Two digits of the half width: rounding moves the ends by at most a twentieth of it.
_OF_HALF_WIDTH = 2
# Most digits in all, however narrow the interval; an interval of zero width, or one that is below
# these digits, gets all of them.
_IN_ALL = 6
# Digits of a number without an interval, whose accuracy is not known.
_WITHOUT_INTERVAL = 3
# Magnitudes between these are written without an exponent.
_SMALL, _LARGE = Decimal("1e-4"), Decimal("1e6")


def rounded(value: float, low: float | None, high: float | None) -> tuple[str, str, str]:
    """An estimate and the ends of its interval, as printed.

    All three are rounded at the same decimal place: that of the second digit of the interval's half
    width. Missing ends are empty.

    Parameters
    ----------
    value
        The estimate, finite.
    low, high
        Ends of its interval, or None.

    Returns
    -------
    tuple of str
        Value, low, high.

    Examples
    --------
    >>> rounded(0.84731, 0.6, 1.1)
    ('0.85', '0.60', '1.10')
    >>> rounded(1.1759e-27, 9.61517e-28, 1.39028e-27)
    ('1.18e-27', '9.6e-28', '1.39e-27')
    >>> rounded(-7.0, -7.0, -7.0)
    ('-7', '-7', '-7')
    >>> rounded(0.123456, None, None)
    ('0.123', '', '')
    """
    if low is None or high is None:
        number = Decimal(repr(value))
        power = number.adjusted() + 1 - _WITHOUT_INTERVAL
        return _text(_at(number, power), abs(number), trim=True), "", ""
    numbers = [Decimal(repr(float(x))) for x in (value, low, high)]
    size = max(map(abs, numbers))
    if not size:
        return "0", "0", "0"
    # From a number's leading digit down to its last.
    finest = size.adjusted() + 1 - _IN_ALL
    half = (numbers[2] - numbers[1]) / 2
    power = max(finest, _leading(half) + 1 - _OF_HALF_WIDTH) if half else finest
    shown = [_at(number, power) for number in numbers]
    # Value and ends are equal: trailing zeros would add nothing.
    alike = len(set(shown)) == 1
    first, second, third = (_text(number, size, trim=alike) for number in shown)
    return first, second, third


def interval_text(value: float, low: float | None, high: float | None) -> str:
    """An estimate with its interval in one line.

    Examples
    --------
    >>> interval_text(0.84731, 0.6, 1.1)
    '0.85 [0.60, 1.10]'
    >>> interval_text(0.84731, None, None)
    '0.847'
    """
    number, bottom, top = rounded(value, low, high)
    return f"{number} [{bottom}, {top}]" if bottom else number


def _leading(half: Decimal) -> int:
    """Power of ten of the first digit after rounding: 0.0996 counts as 0.10."""
    return Decimal(f"{half:.{_OF_HALF_WIDTH - 1}e}").adjusted()


def _at(number: Decimal, power: int) -> Decimal:
    """The number rounded to a multiple of 10^place, with that as its last digit."""
    # Via an integer, which also turns -0.00 into 0.00.
    count = int(number.scaleb(-power).to_integral_value(ROUND_HALF_EVEN))
    return Decimal(count).scaleb(power)


def _text(number: Decimal, size: Decimal, *, trim: bool) -> str:
    fixed = _SMALL <= size < _LARGE
    if not number:
        return f"{number:f}" if fixed and not trim else "0"
    if trim:
        number = number.normalize()
    if fixed:
        return f"{number:f}"
    digits = len(number.as_tuple().digits)
    return f"{number:.{digits - 1}e}"
