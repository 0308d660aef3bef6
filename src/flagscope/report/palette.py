"""Colours by name, for light and dark, safe for the common kinds of colour blindness.

Figures name colours as ``"$raw"`` or ``"$d7"``; ``resolve`` puts in the values of a theme, and the
page does the same when its theme changes. The series colours are those of Okabe and Ito; the
diverging scale runs blue - neutral - orange.
"""

from __future__ import annotations

from typing import Any, Literal

Theme = Literal["light", "dark"]

_DIVERGING_LIGHT = (
    "#08306b", "#1b5a9a", "#4389c2", "#85b5dc", "#c3d9ec", "#f4f2ee",
    "#f9dcb8", "#f2b36b", "#df8227", "#b35806", "#7a3a02",
)  # fmt: skip
_DIVERGING_DARK = (
    "#a9d3f5", "#7db8e8", "#4f97d1", "#35719f", "#264a66", "#23262d",
    "#5c4125", "#92602a", "#c98231", "#eda54c", "#ffd08a",
)  # fmt: skip

PALETTES: dict[Theme, dict[str, str]] = {
    "light": {
        "ink": "#1b1f27", "muted": "#5a6270", "grid": "#e6e4de", "axis": "#b9b6ad",
        "paper": "#ffffff", "band": "rgba(90, 98, 112, 0.16)", "chance": "#6b7280",
        "raw": "#0b61a4", "points": "rgba(11, 97, 164, 0.34)", "spread": "rgba(11, 97, 164, 0.14)",
        "balanced": "#c4540a", "strong": "#c4540a",
        "q": "#0b61a4", "k": "#c4540a", "v": "#00795a", "o": "#a8437f",
        "up": "#a8437f", "gate": "#7d6608", "other": "#5a6270",
    }
    | {f"d{i}": colour for i, colour in enumerate(_DIVERGING_LIGHT)},
    "dark": {
        "ink": "#e8e6e1", "muted": "#a4a9b3", "grid": "#2d323c", "axis": "#4b525f",
        "paper": "#191c22", "band": "rgba(164, 169, 179, 0.20)", "chance": "#9aa1ad",
        "raw": "#6bb6f0", "points": "rgba(107, 182, 240, 0.36)",
        "spread": "rgba(107, 182, 240, 0.16)",
        "balanced": "#f3a04b", "strong": "#f3a04b",
        "q": "#6bb6f0", "k": "#f3a04b", "v": "#3cc79b", "o": "#e48bc0",
        "up": "#e48bc0", "gate": "#e3cf57", "other": "#a4a9b3",
    }
    | {f"d{i}": colour for i, colour in enumerate(_DIVERGING_DARK)},
}  # fmt: skip

_STEPS = 5  # colours on either side of the neutral one


def diverging_scale() -> list[list[Any]]:
    """A colour scale that is neutral in the middle."""
    return [[index / (2 * _STEPS), f"$d{index}"] for index in range(2 * _STEPS + 1)]


def resolve(spec: Any, theme: Theme = "light") -> Any:
    """A copy of a figure specification with the colours of a theme.

    Examples
    --------
    >>> resolve({"line": {"color": "$raw"}})
    {'line': {'color': '#0b61a4'}}
    """
    if isinstance(spec, str):
        return PALETTES[theme].get(spec[1:], spec) if spec.startswith("$") else spec
    if isinstance(spec, dict):
        return {key: resolve(value, theme) for key, value in spec.items()}
    if isinstance(spec, list):
        return [resolve(item, theme) for item in spec]
    return spec
