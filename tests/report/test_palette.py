"""Colours that the colour-blind can distinguish, and text that can be read on them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from flagscope.report.palette import PALETTES, Theme

# Machado, Oliveira, Fernandes: A Physiologically-based Model for Simulation of Color Vision
# Deficiency (2009), severity 1, on linear RGB.
_SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]  # noqa: E501
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]  # noqa: E501
    ),
}  # fmt: skip


def _linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _lab(colour: str, sight: str) -> np.ndarray:
    """CIE Lab (D65) of a colour as it is seen."""
    seen = np.clip(_SIGHT[sight] @ _linear(colour), 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = (to_xyz @ seen) / np.array([0.9505, 1.0, 1.089])
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _luminance(colour: str) -> float:
    return float(np.array([0.2126, 0.7152, 0.0722]) @ _linear(colour))


@pytest.mark.parametrize("sight", _SIGHT)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_sides_of_the_scale_differ_and_grow_with_the_number(theme: Theme, sight: str) -> None:
    steps = [_lab(PALETTES[theme][f"d{i}"], sight) for i in range(11)]
    # Equally far on either side of chance: never the same colour.
    for below, above in zip(steps[:5], reversed(steps[6:]), strict=True):
        assert math.dist(below, above) > 20
    # Lightness alone orders each side, whatever hue is seen.
    outward = [steps[5:], list(reversed(steps[:6]))]
    for side in outward:
        lightness = [lab[0] for lab in side]
        falling = lightness == sorted(lightness, reverse=theme == "light")
        assert falling
        assert all(math.dist(a, b) > 5 for a, b in itertools.pairwise(side))


@pytest.mark.parametrize("sight", _SIGHT)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_series_that_meet_in_a_figure_differ(theme: Theme, sight: str) -> None:
    palette = PALETTES[theme]
    for one, two in itertools.combinations(("q", "k", "v", "o"), 2):
        assert math.dist(_lab(palette[one], sight), _lab(palette[two], sight)) > 15, (one, two)
    assert math.dist(_lab(palette["raw"], sight), _lab(palette["balanced"], sight)) > 40


def test_black_or_white_can_be_read_on_every_colour_of_the_scale() -> None:
    for palette in PALETTES.values():
        for i in range(11):
            light = _luminance(palette[f"d{i}"])
            # The rule of map.js: black above 0.179.
            contrast = (light + 0.05) / 0.05 if light > 0.179 else 1.05 / (light + 0.05)
            assert contrast >= 4.5
