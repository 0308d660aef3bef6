"""Numbers and names as a reader says them: one place for every rounding and every term."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from flagscope.records import PairRecord

SPACE_WORDS = {"q": "query", "k": "key", "v": "value", "o": "output"}
READ_WORDS = {"q": "queries", "k": "keys", "v": "values"}
KIND_WORDS = {
    "qk": "Query–key",
    "ov": "Value–output",
    "mlp": "MLP",
    "sequential": "Sequential",
    "conv": "Convolution",
    "residual": "Residual stream",
    "latent": "Latent attention",
}
# Of the curves of a series, which are of heads and of the network too.
CURVE_WORDS = {
    **KIND_WORDS,
    **{space: f"{word.capitalize()} heads" for space, word in SPACE_WORDS.items()},
    "heads": "Heads",
    "network": "Network",
}
# The first and the second map of a pair, as a reader of the model's code knows them.
MAP_WORDS = {
    "qk": ("W_Q", "W_K"),
    "ov": ("W_V", "W_O"),
    "mlp": ("W_in", "W_out"),
    "sequential": ("the first map", "the second"),
    "conv": ("the first convolution", "the second"),
    "residual": ("the writer", "the reader"),
    "latent": ("the compression", "the expansion"),
}
# Both ways to it: next steps are read on a terminal, in Python and in the JSON.
PAGE = "in the page (--html F, Report.to_html)"
MISSING = "–"
NONE_STANDS = "none stands out"  # of the bulk of singular values
UNCERTAIN = "Counted, but not certain at the error rate of the whole report."
SMALLEST_P = -15  # decimal logarithm: below it a p-value says no more, and z says how far
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """A number to ``digits`` significant digits, whole ones as they are, with a minus sign.

    Examples
    --------
    >>> number(15.2749), number(0.04512), number(12), number(None), number(-0.00001)
    ('15.3', '0.0451', '12', '–', '−1e-05')
    """
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e15:
        return _signed(f"{int(value):,}")
    if 1e-4 <= abs(value) < 1e6:
        return measured(value, digits)
    return _signed(f"{value:.{digits - 1}g}")


def _signed(text: str) -> str:
    """A number with a minus sign in place of a hyphen, which Python writes."""
    return f"−{text[1:]}" if text.startswith("-") else text


def percent(share: float | None, digits: int = 3) -> str:
    """A share in percent, to ``digits`` significant digits.

    Examples
    --------
    >>> percent(0.01234), percent(0.01234, 2), percent(None)
    ('1.23 %', '1.2 %', '–')
    """
    return MISSING if share is None else f"{number(100 * share, digits)} %"


def measured(value: float | None, digits: int = 3) -> str:
    """A measured number: always to ``digits`` significant digits, whole or not.

    Examples
    --------
    >>> measured(1.0), measured(1.0, 2), measured(9.996), measured(0.0), measured(-0.002)
    ('1.00', '1.0', '10.0', '0', '−0.00200')
    """
    if value is None or value == 0 or not 1e-4 <= abs(value) < 1e6:
        return number(value, digits)
    # Of the rounded number: 9.996 is 10.0, and not 10.00.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return _signed(f"{value:,.{max(0, digits - 1 - exponent)}f}")


def p_value(log10_p: float | None) -> str:
    """A p-value from its decimal logarithm; below 10⁻¹⁵ no more than that.

    Smaller ones rest on the tails of a null model further out than any table, or belief, goes. How
    far a number lies from chance is said by its z: see `significance`. The JSON has the logarithm.

    Examples
    --------
    >>> p_value(-1.301), p_value(-7.2), p_value(-318.2), p_value(0.0), p_value(None)
    ('p = 0.05', 'p ≈ 10⁻⁷', 'p < 10⁻¹⁵', 'p = 1', '')
    """
    if log10_p is None:
        return ""
    if log10_p > -4:
        return f"p = {10**log10_p:.2g}"
    if log10_p < SMALLEST_P:
        return f"p < {_power(SMALLEST_P)}"
    return f"p ≈ {_power(math.ceil(log10_p))}"


def adjusted_p(p: float | None) -> str:
    """A p-value adjusted for all tests of a report, by the rule of `p_value`.

    Examples
    --------
    >>> adjusted_p(0.0213), adjusted_p(3e-9), adjusted_p(0.0), adjusted_p(None)
    ('0.021', '3e-09', '< 10⁻¹⁵', '–')
    """
    return f"< {_power(SMALLEST_P)}" if p is not None and p < 10**SMALLEST_P else number(p, 2)


def significance(z: float | None, log10_p: float | None) -> str:
    """z and p of a test, as far as they are known; empty where neither is.

    Examples
    --------
    >>> significance(84.21, -1538.0), significance(None, -2.0), significance(1.3, None)
    ('z = 84.2, p < 10⁻¹⁵', 'p = 0.01', 'z = 1.30')
    """
    known = z is not None and math.isfinite(z)
    return ", ".join(
        part for part in (f"z = {number(z)}" if known else "", p_value(log10_p)) if part
    )


def _power(exponent: int) -> str:
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def euclidean(d: int) -> str:
    """The space R^d.

    Examples
    --------
    >>> euclidean(384)
    'R³⁸⁴'
    """
    return f"R{str(d).translate(_SUPERSCRIPTS)}"


def size(count: float, unit: str = "") -> str:
    """A large count in powers of 1000: thousands, millions and billions, or prefixes of a unit.

    Examples
    --------
    >>> size(22_713_216), size(972), size(812_000_000, "B"), size(1.6e16, "FLOP")
    ('22.7 M', '972', '812 MB', '16 PFLOP')
    """
    large = ((1e15, "P"), (1e12, "T"), (1e9, "G")) if unit else ((1e9, "B"),)
    for factor, prefix in (*large, (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{number(count / factor)} {prefix}{unit}"
    return f"{number(count)} {unit}".strip()


def duration(seconds: float) -> str:
    """A time in the unit that suits it, to two digits.

    Examples
    --------
    >>> duration(0.031), duration(72), duration(4000), duration(260_000)
    ('0.031 s', '72 s', '67 min', '3.0 days')
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{measured(seconds / length, 2)} {unit}"
    return f"{measured(seconds, 2)} s"


def begun(text: str) -> str:
    """Text that begins with a capital, whatever it begins with.

    Examples
    --------
    >>> begun("layer 3"), begun("12 heads"), begun("")
    ('Layer 3', '12 heads', '')
    """
    return f"{text[:1].upper()}{text[1:]}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun in the right number.

    Examples
    --------
    >>> counted(1, "pair"), counted(1200, "pair"), counted(2, "matrix", "matrices")
    ('1 pair', '1,200 pairs', '2 matrices')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def joined(items: Iterable[object], *, limit: int = 6) -> str:
    """Items as a list in a sentence, cut after ``limit``.

    Examples
    --------
    >>> joined([1, 2, 3]), joined(["a"]), joined(range(9), limit=3)
    ('1, 2 and 3', 'a', '0, 1, 2 and 6 more')
    """
    words = [str(item) for item in items]
    if len(words) > limit:
        words = [*words[:limit], f"{len(words) - limit} more"]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def ranges(values: Sequence[int]) -> str:
    """Sorted integers as runs.

    Examples
    --------
    >>> ranges([0, 1, 2, 5, 7, 8])
    '0–2, 5 and 7–8'
    """
    runs: list[list[int]] = []
    for value in sorted(set(values)):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return joined((str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs), limit=8)


def span(values: Sequence[float], digits: int = 3) -> str:
    """The range of some numbers, or the number if there is one.

    Examples
    --------
    >>> span([2.25, 15.27]), span([0.5])
    ('2.25 to 15.3', '0.500')
    """
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


def typical(values: Sequence[float]) -> str:
    """The median of some numbers with their range, or the number if there is one.

    Examples
    --------
    >>> typical([1.29, 2.59, 1.9]), typical([0.887])
    ('median 1.90 (1.29 to 2.59)', '0.887')
    """
    middle, ends = number(median(values)), span(values)
    return middle if middle == ends else f"median {middle} ({ends})"


def share_of(some: int, every: int, noun: str) -> str:
    """How many of all.

    Examples
    --------
    >>> share_of(3, 12, "pair"), share_of(1, 1, "pair"), share_of(1200, 1200, "layer")
    ('3 of 12 pairs', 'the one pair', 'all 1,200 layers')
    """
    if every == 1:
        return f"the one {noun}"
    if some == every:
        return f"all {counted(every, noun)}"
    return f"{some:,} of {every:,} {noun}s"


# What lies between two maps and is linear, a norm, or not known.
_NO_ACTIVATION = ("linear", "identity", "none", "norm", "rope", "relative", "unknown")


def with_activation(pair: PairRecord) -> bool:
    """Whether an activation is known to lie between the two maps of a pair."""
    return pair.kind in ("mlp", "sequential", "conv", "residual") and (
        pair.between not in (pair.kind, *_NO_ACTIVATION)
    )
