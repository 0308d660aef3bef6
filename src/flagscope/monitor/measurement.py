"""One measurement: the scan of the weights at one step, and their norms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from flagscope.api.report import Report
from flagscope.api.scan import scan
from flagscope.monitor.lora import RankDirections, rank_directions
from flagscope.monitor.scalars import scalars_of
from flagscope.monitor.schedule import Part
from flagscope.monitor.weights import norms_of


@dataclass(frozen=True)
class Measurement:
    """What was measured at one step.

    Attributes
    ----------
    step
        Number of optimizer steps that were taken.
    part
        What of the network was looked at.
    report
        What `flagscope.scan` of the weights at that step returns.
    norms
        Frobenius norm of each floating-point tensor, by name.
    trainable
        Names of the parameters that the training may change.
    lora
        Rank directions of PEFT's factors.
    seconds
        How long it took.
    """

    step: int
    part: Part
    report: Report
    norms: Mapping[str, float]
    trainable: frozenset[str]
    lora: list[RankDirections]
    seconds: float

    @cached_property
    def scalars(self) -> dict[str, float]:
        """The numbers that go to loggers; see `flagscope.monitor.scalars`."""
        return scalars_of(self.report.result, self.norms)

    def __repr__(self) -> str:
        return f"Measurement(step={self.step}, part={self.part.name!r}, {self.report!r})"


def measured(
    state: Mapping[str, Any],
    *,
    step: int,
    part: Part,
    trainable: frozenset[str],
    settings: Mapping[str, Any],
) -> Measurement:
    """Measure one part of a state dict, without a trace in the training's state.

    Gradients and autocast are off meanwhile: autocast would compute a scan in half precision.
    """
    start = time.perf_counter()
    kinds = {device: torch.autocast(device, enabled=False) for device in ("cpu", "cuda")}
    with torch.no_grad(), kinds["cpu"], kinds["cuda"]:
        report = scan(state, only=part.only, kinds=part.kinds, progress=False, **settings)
        norms, lora = norms_of(state), rank_directions(state)
    seconds = time.perf_counter() - start
    return Measurement(step, part, report, norms, trainable, lora, seconds)
