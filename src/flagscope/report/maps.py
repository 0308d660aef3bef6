"""Maps: a number of every head by layer and head, or of every kind of pair by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from flagscope.report.ratio_scale import ratio_limit

MapScale = Literal["ratio", "count", "correlation"]
# [number, words, target] of a cell; None where there is no number.
MapCell = Sequence[Any] | None


@dataclass(frozen=True)
class PageMap:
    """One colouring of a map.

    Parameters
    ----------
    key, title
        Name for the URL of a choice, and for the list of choices.
    group
        Heading of the choices that it belongs to.
    label
        ``"functional"``, ``"gauge"``, or empty where its rows differ.
    row_labels
        The label of each row where they differ; else empty.
    words
        What the colour is, in a sentence.
    scale
        ``"ratio"``: logarithmic, neutral at 1; ``"count"``: from 0; ``"correlation"``: neutral
        at 0.
    limit
        End of the colour scale.
    row_title, column_title
        What rows and columns are.
    rows, columns
        Their names.
    cells
        A list for each row.
    """

    key: str
    title: str
    group: str
    label: str
    words: str
    scale: MapScale
    limit: float
    row_title: str
    column_title: str
    rows: list[str]
    row_labels: list[str]
    columns: list[str]
    cells: Sequence[Sequence[MapCell]]

    def payload(self) -> dict[str, Any]:
        """As in the page's data."""
        return asdict(self)


def scale_limit(scale: MapScale, cells: Sequence[Sequence[MapCell]]) -> float:
    """The end of a colour scale that holds every cell; of a ratio at least 2, at most 32.

    Examples
    --------
    >>> scale_limit("ratio", [[[0.25, "", ""], None]]), scale_limit("count", [])
    (4.0, 1.0)
    """
    values = [float(cell[0]) for row in cells for cell in row if cell is not None]
    if scale == "count":
        return max([1.0, *values])
    if scale == "correlation":
        return max([0.05, *(abs(value) for value in values)])
    return ratio_limit(values)
