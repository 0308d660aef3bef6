"""Scans of the steps of a series: `flagscope.track` reads each of them once, or from its store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flagscope.api.scan import scan
from flagscope.api.tracked_adapters import holds_adapter
from flagscope.diagnose import labels
from flagscope.errors import FlagscopeError, InputError
from flagscope.observables import PAIR_OBSERVABLES, null_band
from flagscope.records import PairRecord, ScanResult
from flagscope.records.series import SeriesCurve
from flagscope.series.head_curves import head_curves
from flagscope.series.health_curves import health_curves
from flagscope.series.kept import KeptSteps
from flagscope.series.over_steps import pairs_over_steps
from flagscope.series.step import Step
from flagscope.series.step_rates import imbalances
from flagscope.series.step_scan import StepScan

if TYPE_CHECKING:
    from flagscope.api.source import Config
    from flagscope.engine import Progress
    from flagscope.records import Part

_FIELDS = tuple(entry.field for entry in PAIR_OBSERVABLES if entry.profiled)


@dataclass(frozen=True)
class Asked:
    """What is asked for of each step of a series.

    Attributes
    ----------
    wanted
        `layers`, `kinds`, `family` and `heads` of a scan.
    only
        Parts of a scan; the motion of maps does not depend on it.
    config
        As for a scan.
    costs
        `workers` and `memory` of a scan.
    kept
        Where what was measured is kept.
    notes
        To which is added what could not be measured.
    progress
        Called with steps done, steps in all, and what is being done.
    """

    wanted: Mapping[str, Any]
    only: tuple[Part, ...]
    config: Config | None
    costs: Mapping[str, Any]
    kept: KeptSteps | None
    notes: list[str] = field(default_factory=list)
    progress: Progress | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What a result hangs on, next to the files of its step."""
        return {**self.wanted, "config": self.config, "version": version("flagscope")}

    @property
    def scan_key(self) -> dict[str, Any]:
        """The same of the scan of a step."""
        return {**self.key, "only": sorted(set(self.only))}

    def note(self, text: str) -> None:
        """Say it once."""
        if text not in self.notes:
            self.notes.append(text)

    def done(self, count: int, total: int, what: str) -> None:
        """Show how far it is."""
        if self.progress is not None:
            self.progress(count, total, what)


def measurable(step: Step) -> bool:
    """Whether a step can be read whole; adapters are measured from their factors alone."""
    return step.fault is None and not step.place.unfinished and not holds_adapter(step)


def scanned(step: Step, run: str, asked: Asked) -> StepScan:
    """What a scan finds in one step; nothing where it cannot be measured, and a note says why."""
    place = step.place
    if not measurable(step):
        return StepScan.none()
    known = None if asked.kept is None else asked.kept.result(place, asked.scan_key)
    if known is not None:
        return StepScan.of(ScanResult.model_validate_json(known))
    try:
        report = scan(
            place.source, revision=place.revision, only=asked.only, edges=0, progress=False,
            config=asked.config, **asked.wanted, **asked.costs,
        )  # fmt: skip
    except InputError:
        raise
    except FlagscopeError as error:
        asked.note(f"{place.in_run(run)} was not measured: {error}")
        return StepScan.none()
    if asked.kept is not None:
        asked.kept.keep(place, asked.scan_key, report.result.model_dump_json(by_alias=True))
    return StepScan.of(report.result)


def step_imbalances(asked: Asked) -> Callable[[Step, Sequence[PairRecord]], dict[str, float]]:
    """‖A - B‖ by pair, of a step and its pairs; kept as a scan is."""
    key = {**asked.scan_key, "what": "imbalances"}

    def read(step: Step, pairs: Sequence[PairRecord]) -> dict[str, float]:
        known = None if asked.kept is None else asked.kept.result(step.place, key)
        if known is not None:
            return json.loads(known)
        found = imbalances(step, pairs)
        if asked.kept is not None:
            asked.kept.keep(step.place, key, json.dumps(found))
        return found

    return read


def curves_of(scans: Sequence[StepScan]) -> list[SeriesCurve]:
    """A curve for each number of the pairs, of the heads and of health that any step has."""
    return [
        *_pair_curves([scan.pairs for scan in scans]),
        *head_curves([scan.heads for scan in scans]),
        *health_curves([scan.health for scan in scans]),
    ]


def _pair_curves(scans: Sequence[Sequence[PairRecord]]) -> list[SeriesCurve]:
    found = []
    for name, pairs in pairs_over_steps(scans).items():
        first = next(pair for pair in pairs if pair is not None)
        open_ = first.between == "unknown" and first.freedom == "none"
        label = {} if open_ else labels(first.freedom)
        for number in _FIELDS:
            values = [None if pair is None else getattr(pair, number) for pair in pairs]
            if all(value is None for value in values):
                continue
            bands = [None if pair is None else null_band(pair, number) for pair in pairs]
            found.append(
                SeriesCurve(
                    pair=name,
                    kind=first.kind,
                    layer=first.layer,
                    observable=number,
                    label=label.get(number),
                    values=values,
                    low=[None if band is None else band.low for band in bands],
                    high=[None if band is None else band.high for band in bands],
                )
            )
    return found
