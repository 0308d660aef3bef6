"""Records of series with known contents, made without weights."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from flagscope.records.series import (
    Integrity,
    SeriesCurve,
    SeriesFault,
    SeriesRecord,
    StepRecord,
)

HALVES = {
    "commutator_ratio": (1.0, 0.4),
    "gram_correlation": (0.0, 0.17),
    "commutation_defect": (1.0, 0.2),
    "overlap_ratio": (1.0, 0.3),
    "imbalance": None,
    "intersection_beyond_chance": (0.0, 0.0),
}
"""Middle and half of the width of what chance gives each number."""


def steps_of(
    numbers: Sequence[int | None], *, names: Sequence[str] | None = None
) -> list[StepRecord]:
    """Sound steps of these numbers, that move away from the first."""
    last = max(len(numbers) - 1, 1)
    return [
        StepRecord(
            name=names[place] if names else f"checkpoint-{number}",
            source=f"runs/a/checkpoint-{number}",
            number=number,
            unit=None if number is None else "step",
            tensors=40,
            dtype="bfloat16",
            bytes_total=10**9,
            bytes_sampled=10**6,
            distance=None if place == 0 else 0.5,
            distance_first=math.sqrt(place / last),
            distance_last=math.sqrt(1 - place / last),
            correlation_first=1 - 0.9 * place / last,
        )
        for place, number in enumerate(numbers)
    ]


def curves_of(
    pairs: Sequence[tuple[str, str, int | None]], steps: int, *, missing: Sequence[int] = ()
) -> list[SeriesCurve]:
    """Curves that leave chance as the steps go on; none at the steps in `missing`."""
    draws = random.Random(0)
    found = []
    for name, kind, layer in pairs:
        for field, band in HALVES.items():
            middle, half = band or (0.5, 0.0)
            size = draws.uniform(0.3, 3)
            values = [
                None if place in missing or (field == "overlap_ratio" and place == 0)
                else _value(field, middle + size * place / steps, draws)
                for place in range(steps)
            ]  # fmt: skip
            ends = [None if place in missing or band is None else half for place in range(steps)]
            found.append(
                SeriesCurve(
                    pair=name, kind=kind, layer=layer, observable=field,
                    label="functional" if kind == "mlp" else "gauge", values=values,
                    low=[None if end is None else middle - end for end in ends],
                    high=[None if end is None else middle + end for end in ends],
                )
            )  # fmt: skip
    return found


def _value(field: str, middle: float, draws: random.Random) -> float:
    if field == "intersection_beyond_chance":
        return float(int(middle))
    noisy = middle + draws.gauss(0, 0.05)
    return math.tanh(noisy) if field in ("gram_correlation", "imbalance") else abs(noisy)


def transformer_pairs(layers: int, heads: int) -> list[tuple[str, str, int | None]]:
    """Names, kinds and layers of the pairs of a transformer."""
    found: list[tuple[str, str, int | None]] = []
    for layer in range(layers):
        for kind in ("qk", "ov"):
            found += [(f"layer.{layer}.head.{head}.{kind}", kind, layer) for head in range(heads)]
        found.append((f"layer.{layer}.mlp", "mlp", layer))
    return found


def record_of(
    steps: Sequence[StepRecord],
    curves: Sequence[SeriesCurve] = (),
    faults: Sequence[SeriesFault] = (),
    *,
    source: str = "runs/a",
    notes: Sequence[str] = (),
) -> SeriesRecord:
    """A series of these."""
    return SeriesRecord(
        version="0.1.0",
        sources=[source],
        integrity=Integrity(
            faults=list(faults), tensors_compared=40, samples=2048, frozen=[], frozen_total=0,
            path_length=0.5 * (len(steps) - 1), displacement=1.0,
            not_looked_at=["No tensor was read whole."],
        ),
        steps=list(steps),
        curves=list(curves),
        notes=list(notes),
    )  # fmt: skip


def faulty(layers: int = 3, heads: int = 2) -> SeriesRecord:
    """Nine steps, of which one cannot be read and two are equal."""
    steps = steps_of(range(0, 900, 100))
    steps[3] = steps[3].model_copy(update={"status": "truncated", "distance": None})
    faults = [
        SeriesFault(code="truncated", steps=["checkpoint-300"], tensors=["h.0.weight"],
                    plain="checkpoint-300 is cut short.", evidence="12 bytes are missing."),
        SeriesFault(code="equal", steps=["checkpoint-500", "checkpoint-600"],
                    plain="checkpoint-500 and checkpoint-600 hold the same weights.",
                    evidence="All of 2,048 samples are equal."),
    ]  # fmt: skip
    curves = curves_of(transformer_pairs(layers, heads), 9, missing=[3])
    return record_of(steps, curves, faults, notes=["checkpoint-300 was not measured."])


def large(layers: int = 12, heads: int = 12, steps: int = 31) -> SeriesRecord:
    """A transformer with a checkpoint every thousand steps."""
    pairs = transformer_pairs(layers, heads)
    return record_of(steps_of(range(0, 1000 * steps, 1000)), curves_of(pairs, steps))
