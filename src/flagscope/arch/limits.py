"""Limits on what a config or a shape may request: no list is as long as a file demands."""

from __future__ import annotations

import re
from typing import Any

from flagscope.arch.maps import LinearMap
from flagscope.errors import ArchitectureError

LARGEST_NUMBER = 1e12
"""Upper bound of sizes, numbers of heads and fractions."""

LONGEST_NAME = 500
"""Most characters of a tensor's name; those of real networks have fewer than 200."""

LAYER_NUMBER = r"[0-9]{1,6}"
"""Largest layer number in a name: no network has a million layers, so more is not a layer."""

SIZE = re.compile(r"[0-9]{1,12}")
"""Largest size that a family file may state."""

# Each head of a layer and each expert of an MLP gets a record. The widest models have some hundred
# heads and some hundred experts.
_MOST_MEMBERS = 1 << 14


def check_count(map_: LinearMap, noun: str) -> None:
    """Raise if a map has more parts than any network.

    Raises
    ------
    ArchitectureError
        If it has more than 16,384.
    """
    if map_.count > _MOST_MEMBERS:
        raise ArchitectureError(
            f"{map_.tensor!r} of shape {map_.shape} would hold {map_.count:,} {noun}; more than "
            f"{_MOST_MEMBERS:,} are not measured",
            hint="check the config (--config F), or give the number of heads (--heads N)",
        )


def brief(value: Any) -> str:
    """A value of a config, shortened for a message.

    Examples
    --------
    >>> brief("x" * 300)[-3:], brief(10**400)
    ('xx…', 'an integer of 1329 bits')
    """
    if isinstance(value, int) and not abs(value) <= LARGEST_NUMBER:
        return f"an integer of {value.bit_length()} bits"  # Python refuses to print 5,000 digits
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


_LONGEST_VALUE = 200
