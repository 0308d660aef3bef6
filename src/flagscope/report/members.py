"""Members of a finding that is about several things: the first ones listed, the rest counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flagscope.records import FindingItem, PairRecord, ScanResult

Entry = TypeVar("Entry")
LISTED = 24  # so that a report of a large model does not grow with its heads


def members(
    entries: Sequence[Entry], text: Callable[[Entry], str], target: Callable[[Entry], str | None]
) -> dict[str, Any]:
    """Keyword arguments of `Finding` that list its members, in the order given.

    Parameters
    ----------
    entries
        What the finding is about, furthest from chance first; one alone needs no list.
    text, target
        Of each entry, as in `FindingItem`.
    """
    if len(entries) < 2:
        return {}
    items = (FindingItem(text=text(one), target=target(one)) for one in entries[:LISTED])
    return {"items": tuple(items), "items_unlisted": max(0, len(entries) - LISTED)}


def pair_members(
    result: ScanResult, pairs: Sequence[PairRecord], number: Callable[[PairRecord], str]
) -> dict[str, Any]:
    """The same of pairs, each with a number of it in words."""
    places = {pair.name: index for index, pair in enumerate(result.pairs)}
    return members(
        pairs,
        lambda pair: f"{pair.name}: {number(pair)}",
        lambda pair: f"pair/{places[pair.name]}",
    )
