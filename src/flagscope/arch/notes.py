"""Notes on assumptions about a model, and on what could not be mapped."""

from __future__ import annotations

from collections.abc import Sequence


class Notes:
    """Notes in plain words; a recurring note is written once, with its places.

    Examples
    --------
    >>> notes = Notes()
    >>> notes.add("no gate", "layer.0")
    >>> notes.add("no gate", "layer.1")
    >>> notes.texts()
    ('no gate (layer.0, layer.1)',)
    """

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._examples: dict[str, str] = {}

    def add(self, text: str, place: str | None = None, *, example: str | None = None) -> None:
        """Add a note, with its place if it has one; the first of several examples is kept."""
        if example is not None:
            self._examples.setdefault(text, f": {example}")
        places = self._places.setdefault(text, [])
        if place is not None and place not in places:
            places.append(place)

    def texts(self) -> tuple[str, ...]:
        """All notes, in the order in which they were first added."""
        return tuple(
            text + (f" ({_shortened(places)})" if places else "") + self._examples.get(text, "")
            for text, places in self._places.items()
        )


def _shortened(places: Sequence[str]) -> str:
    if len(places) <= 4:
        return ", ".join(places)
    return f"{places[0]}, {places[1]}, … {places[-1]}: {len(places)} places"
