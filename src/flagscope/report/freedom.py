"""What is known of the changes of a pair's shared space, and the labels that rest on it."""

from __future__ import annotations

from collections.abc import Mapping

from flagscope.records import Label, PairRecord, ScanResult

UNKNOWN = "unknown"
"""Freedom of a pair of which what lies between the maps is not known."""


def freedom_word(pair: PairRecord) -> str:
    """The freedom of a pair; where no activation is known, it is not known that there is none."""
    return UNKNOWN if pair.between == "unknown" and pair.freedom == "none" else pair.freedom


def labels_of(result: ScanResult, pair: PairRecord) -> Mapping[str, Label]:
    """Labels by observable; none where the freedom is not known."""
    return {} if freedom_word(pair) == UNKNOWN else result.labels.get(pair.freedom, {})
