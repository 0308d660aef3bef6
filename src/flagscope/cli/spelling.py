"""Spelling of characters that a terminal's encoding lacks: rho for ρ, cos^2 for cos²."""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata

ERRORS = "flagscope.spelt"
"""Name of the codec error handler that spells out what reaches a stream another way."""

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ᵀᵈ", "0123456789-+Td", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₋₊", "0123456789-+", strict=True))
# Together or not at all: Latin-1 has ³, and no ⁻ to go in front of it.
_RUN = re.compile(f"[{''.join(_RAISED)}]+|[{''.join(_LOWERED)}]+")
_SPELT = {
    "Σ": "sum ", "∑": "sum ", "√": "sqrt ", "∫": "integral ", "∞": "inf", "ℓ": "l", "µ": "u",
    "×": "x", "·": "*", "±": "+/-", "−": "-", "–": "-", "—": "--", "…": "...", "•": "*",
    "≈": "~", "∝": "~", "≤": "<=", "≥": ">=", "≠": "!=", "→": "->", "←": "<-", "‖": "||",
    "⟨": "<", "⟩": ">", "∩": "and", "⊆": "in", "½": "1/2", "‘": "'", "’": "'", "“": '"', "”": '"',
    "\N{NO-BREAK SPACE}": " ", "─": "-", "━": "-", "│": "|", "├": "|", "└": "`",
}  # fmt: skip
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")


def spelt(text: str, encoding: str | None = None) -> str:
    r"""Text as an encoding can hold it, every letter that it lacks written in ASCII.

    Different symbols stay different; of a foreign letter in a name its number is written.

    Parameters
    ----------
    text
        Any.
    encoding
        That of stdout if it is not given.

    Examples
    --------
    >>> spelt("ρ 0.2, ν ≈ 1, Σcos² > 10⁻³¹⁸ • café", "ascii")
    'rho 0.2, nu ~ 1, sum cos^2 > 10^-318 * caf\\xe9'
    >>> spelt("|ρ| · 3³ in R³⁸⁴", "latin-1")
    '|rho| · 3³ in R^384'
    """
    known: str = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    if _encodes(text, known):
        return text
    text = _RUN.sub(lambda run: run[0] if _encodes(run[0], known) else _flat(run[0]), text)
    return "".join(c if _encodes(c, known) else _letter(c) for c in text)


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _flat(run: str) -> str:
    table, sign = (_RAISED, "^") if run[0] in _RAISED else (_LOWERED, "_")
    return sign + "".join(table[c] for c in run)


def _letter(c: str) -> str:
    if c in _SPELT:
        return _SPELT[c]
    if c in _RAISED or c in _LOWERED:
        return _flat(c)
    greek = _GREEK.fullmatch(unicodedata.name(c, ""))
    if greek:
        return greek[2].lower() if greek[1] == "SMALL" else greek[2].capitalize()
    return c.encode("ascii", "backslashreplace").decode("ascii")


def _handled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spelt(error.object[error.start : error.end], "ascii"), error.end


codecs.register_error(ERRORS, _handled)
