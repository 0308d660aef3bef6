"""The adapters of a series, measured from their factors one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from flagscope.checkpoint.lora import ADAPTER_FILES, is_adapter, read_adapter
from flagscope.comparison.adapters.step import adapter_step, random_factors
from flagscope.errors import FlagscopeError
from flagscope.records.series_adapter import AdapterCurves, AdapterStep
from flagscope.series.adapters import adapter_curves
from flagscope.series.kept import KeptSteps
from flagscope.series.places import Place
from flagscope.series.step import Step

_FIRST = {"what": "factors that start random"}


def holds_adapter(step: Step) -> bool:
    """Whether a step can be read and is an adapter."""
    readable = step.fault is None and not step.place.unfinished
    return readable and (
        any(header.file in ADAPTER_FILES for header in step.headers.values())
        or is_adapter(step.headers)
    )


def tracked_adapters(
    steps: Sequence[Step], run: str, kept: KeptSteps | None, notes: list[str]
) -> list[AdapterCurves]:
    """Curves of the modules of all steps that are adapters; what was not measured goes to `notes`.

    One adapter is open at a time; the factors that start random are held of the first, or of the
    first without NaN.
    """
    held = [step for step in steps if holds_adapter(step)]
    if not held:
        return []
    first = _First(next((step for step in held if _finite(step)), held[0]).place, kept)
    measured: list[AdapterStep | None] = []
    for step in steps:
        one = _measured(step.place, run, first, kept, notes) if holds_adapter(step) else None
        notes += [said for said in ([] if one is None else one.said) if said not in notes]
        measured.append(one)
    return adapter_curves(measured, [step.place.name for step in steps])


def _finite(step: Step) -> bool:
    return all(bool(np.isfinite(values).all()) for values in step.values.values())


class _First:
    """The factors of the first adapter that start random: read once, where they are needed."""

    def __init__(self, place: Place, kept: KeptSteps | None) -> None:
        self.place, self._kept = place, kept
        self._factors: dict[str, Tensor] | None = None

    @property
    def factors(self) -> dict[str, Tensor]:
        """By module; those of the store where it has them."""
        if self._factors is None:
            known = None if self._kept is None else self._kept.data(self.place, _FIRST)
            self._factors = self._read() if known is None else load(known)
        return self._factors

    def _read(self) -> dict[str, Tensor]:
        with read_adapter(self.place.source) as adapter:
            factors = random_factors(adapter)
        if self._kept is not None:
            self._kept.keep_data(self.place, _FIRST, save(factors))
        return factors


def _measured(
    place: Place, run: str, first: _First, kept: KeptSteps | None, notes: list[str]
) -> AdapterStep | None:
    start = None if kept is None else kept.state(first.place)
    key = {"what": "adapter", "first": start, "version": version("flagscope")}
    known = None if kept is None else kept.result(place, key)
    if known is not None:
        return AdapterStep.model_validate_json(known)
    if place.revision is not None:
        notes.append(f"{place.in_run(run)} was not measured: adapters on the hub are not read.")
        return None
    try:
        with read_adapter(place.source) as adapter:
            found = adapter_step(adapter, first.factors)
    except FlagscopeError as error:
        notes.append(f"{place.in_run(run)} was not measured: {error}")
        return None
    if kept is not None:
        kept.keep(place, key, found.model_dump_json())
    return found
