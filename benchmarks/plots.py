"""Plots of growth, from the results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

_INK, _ACCENT, _SECOND = "#333333", "#1f6f8b", "#c8553d"
_LABELS = {"layers": "layers", "heads": "heads", "d": "d", "workers": "workers"}


def draw(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a PNG for each part that is about growth; none where it was not measured."""
    drawn = []
    parts = content["parts"]
    if "growth" in parts:
        series = {what: points(parts["growth"]["rows"], what) for what in _LABELS}
        drawn.append(_figure({k: v for k, v in series.items() if v}, folder / "growth.png"))
    if "large" in parts:
        series = {"layers": points(parts["large"]["rows"], "layers")}
        if len(series["layers"]) > 1:
            drawn.append(_figure(series, folder / "large.png"))
    return drawn


Point = tuple[int, list[float], list[float]]


def points(rows: Mapping[str, Sequence[float]], what: str) -> list[Point]:
    """Size, seconds and megabytes of every measured point, by size."""
    found = {}
    for name, values in rows.items():
        head, _, kind = name.partition(": ")
        if head.rpartition(" ")[0] == what:
            found.setdefault(int(head.rpartition(" ")[2]), {})[kind] = list(values)
    return [(n, one["seconds"], one["peak_mb"]) for n, one in sorted(found.items())]


def _figure(series: Mapping[str, list[Point]], path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(series), figsize=(max(4.0, 2.8 * len(series)), 4.6), squeeze=False, sharex="col"
    )
    for column, (what, all_points) in enumerate(series.items()):
        sizes = [size for size, _, _ in all_points]
        for row, (values, colour, label) in enumerate((
            ([seconds for _, seconds, _ in all_points], _ACCENT, "time, s"),
            ([memory for _, _, memory in all_points], _SECOND, "memory, MB"),
        )):  # fmt: skip
            axis = axes[row][column]
            middle = [median(one) for one in values]
            low = [m - min(one) for m, one in zip(middle, values, strict=True)]
            high = [max(one) - m for m, one in zip(middle, values, strict=True)]
            axis.errorbar(sizes, middle, yerr=(low, high), color=colour, marker="o", capsize=3)
            axis.set_ylim(0, 1.15 * max(map(max, values)))
            axis.grid(alpha=0.25)
            axis.tick_params(labelsize=8, colors=_INK)
            axis.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axis.set_ylabel(label, color=_INK)
            if row == 1:
                axis.set_xlabel(_LABELS[what], color=_INK)
                axis.set_xticks(sizes)
                if what == "d" or len(sizes) > 5:
                    axis.tick_params(axis="x", rotation=60)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
