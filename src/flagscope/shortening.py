"""Display form of long names: shortened in the middle, and still distinct."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2s

# Names of real tensors have fewer than 200 letters, file names 255 at most.
LONGEST_WORD = 300
# Letters of one message or note; the longest of flagscope's own have some 600.
LONGEST_TEXT = 2000
# Notes of one report: shards and parts of a file may give one each.
MOST_NOTES = 100
_HEAD, _TAIL = 80, 40
_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def shortened(text: str) -> str:
    """Text that fits a screen, whatever names are in it.

    Words of more than 300 letters keep their beginning and their end, their length, and a digest
    by which two of them differ; of a text of more than 2,000 letters the middle is left out.

    Examples
    --------
    >>> shortened("tensor layers." + "9" * 5000 + ".weight is missing").replace("9" * 73, "9…9")
    'tensor layers.9…9…[5,014 letters, #2812ee]…999999999999999999999999999999999.weight is missing'
    """
    if len(text) > LONGEST_WORD:
        text = _WORD.sub(lambda word: _cut(word[0], _HEAD, _TAIL), text)
    if len(text) > LONGEST_TEXT:
        text = _cut(text, LONGEST_TEXT * 3 // 4, LONGEST_TEXT // 8)
    return text


def listed(names: Sequence[str], most: int, *, letters: int | None = None) -> str:
    """The first names, with commas between; an ellipsis where there are more.

    Parameters
    ----------
    names
        Any number of them.
    most
        How many are shown.
    letters
        How many letters of each; all by default.

    Examples
    --------
    >>> listed(["bias", "weight", "gain"], 2), listed(["weight"], 2, letters=3)
    ('bias, weight, …', 'wei')
    """
    shown = [name[:letters] for name in names[:most]]
    return ", ".join([*shown, "…"] if len(names) > most else shown)


def shortened_notes(notes: Sequence[str]) -> list[str]:
    """Notes that fit a report: each shortened, and the first hundred where there are more."""
    shown = [shortened(note) for note in notes[:MOST_NOTES]]
    left = len(notes) - len(shown)
    return [*shown, f"and {left:,} more notes"] if left else shown


def _cut(text: str, head: int, tail: int) -> str:
    digest = blake2s(text.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()
    return f"{text[:head]}…[{len(text):,} letters, #{digest}]…{text[-tail:]}"
