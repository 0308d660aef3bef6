"""What a config or a tensor's shape may ask for: no list is as long as a number in a file says."""

from __future__ import annotations

import re
from typing import Any

from flagscope.arch.maps import LinearMap
from flagscope.errors import ArchitectureError

LARGEST_NUMBER = 1e12
"""No size, number of heads or fraction of a network is larger."""

LONGEST_NAME = 500
"""Letters of a tensor's name; those of real networks have fewer than 200."""

LAYER_NUMBER = r"[0-9]{1,6}"
"""The number of a layer in a name: no network has a million, so that more is something else."""

SIZE = re.compile(r"[0-9]{1,12}")
"""A size that a family file writes out."""

# Heads of a layer and experts of an MLP each get records of their own. The widest models have some
# hundred heads and some hundred experts.
_MOST_MEMBERS = 1 << 14


def check_count(map_: LinearMap, what: str) -> None:
    """Refuse a map of more parts than any network has.

    Raises
    ------
    ArchitectureError
        If it has more than 16,384.
    """
    if map_.count > _MOST_MEMBERS:
        raise ArchitectureError(
            f"{map_.tensor!r} of shape {map_.shape} would hold {map_.count:,} {what}; more than "
            f"{_MOST_MEMBERS:,} are not measured",
            hint="check the config (--config F), or give the number of heads (--heads N)",
        )


def brief(value: Any) -> str:
    """A value of a config as far as a message has room for it.

    Examples
    --------
    >>> brief("x" * 300)[-3:], brief(10**400)
    ('xx…', 'an integer of 1329 bits')
    """
    if isinstance(value, int) and not abs(value) <= LARGEST_NUMBER:
        return f"an integer of {value.bit_length()} bits"  # Python prints none of 5,000 digits
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


_LONGEST_VALUE = 200
