"""Series of checkpoints of a training, or of several: `flagscope.track`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypedDict

from flagscope.api.progress import shown_progress
from flagscope.api.series_report import SeriesReport
from flagscope.api.sharing import named_paths
from flagscope.api.source import all_of, check_run, parts_of, readable
from flagscope.api.track_motion import series_motion
from flagscope.api.tracked_adapters import tracked_adapters
from flagscope.api.tracked_scans import Asked, curves_of, measurable, scanned, step_imbalances
from flagscope.engine import Progress
from flagscope.records import Part
from flagscope.records.series import SeriesRecord, StepRecord
from flagscope.records.series_adapter import AdapterCurves
from flagscope.records.series_motion import MapMotion
from flagscope.records.series_onsets import Onset
from flagscope.records.series_products import ProductMotion
from flagscope.records.series_rates import SeriesRates
from flagscope.series.changes import change_points
from flagscope.series.kept import KeptSteps
from flagscope.series.near_copies import near_copies
from flagscope.series.onsets import onsets
from flagscope.series.places import left_out, runs_of
from flagscope.series.rates.schedule import Optimiser
from flagscope.series.runs import Verified, runs_record, together, with_shared_faults
from flagscope.series.schedules import Decay, Rates, checked_given, schedule_of
from flagscope.series.step import Step
from flagscope.series.step_rates import series_rates, sound_steps
from flagscope.series.step_scan import StepScan
from flagscope.series.verify import step_records, verified
from flagscope.series.waiting import read_steps

if TYPE_CHECKING:
    from flagscope.api.source import Config

FOLLOWED: tuple[Part, ...] = ("health", "pairs", "heads")
"""Parts of the scan of each step by default."""


def track(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    verify: bool = False,
    only: Part | Iterable[Part] = FOLLOWED,
    layers: int | Iterable[int] | None = None,
    kinds: str | Iterable[str] | None = None,
    config: Config | None = None,
    family: str | None = None,
    heads: int | None = None,
    learning_rate: Rates | None = None,
    weight_decay: Decay | None = None,
    optimiser: Optimiser | None = None,
    momentum: float = 0.0,
    store: str | os.PathLike[str] | None = None,
    wait: float = 0.0,
    workers: int | None = None,
    memory: int = 2_000_000_000,
    progress: Progress | bool | None = None,
) -> SeriesReport:
    """Read checkpoints of a training, or of several: what is wrong with them, and their curves.

    Integrity comes first, from headers and samples of less than 1 % of the bytes: equal and
    nearly equal steps, files and steps of another training, a wrong order, gaps, steps that are
    damaged or being written, a restart, a step back. Then each readable step is scanned, one
    after the other, and each map is followed from step to step. Steps of one number in several
    folders are of several trainings: each is looked at by itself, and then next to the others.

    Parameters
    ----------
    sources
        A folder of checkpoints (`checkpoint-500`, `step_500.safetensors`), a pattern
        (`runs/a/step_*`), the URL of either (`s3://bucket/runs/a`), a hub name with a pattern of
        revisions (`org/name@step*`), or several of these, and single checkpoints. They are put in
        the order of the numbers in their names. A web server lists no folders.
    verify
        Look at integrity alone.
    only
        Parts of the scan of each step, of "health", "pairs", "heads" and "residual": as for
        `flagscope.scan`, but that the pairs of the residual stream are measured only if asked for.
    layers, kinds, config, family, heads, workers, memory
        As for `flagscope.scan`, of every step.
    learning_rate, weight_decay, optimiser, momentum
        Schedule of the training, for rates: η (a number, one for each update, by number of
        updates done, or a function of an update's number), λ (a number, or one by names of
        tensors and patterns of them, as `{"h.0.*": 0.1}`), "sgd" (L2) or "adamw" (decoupled
        decay), and the momentum of SGD. By default it is read from what lies next to the
        checkpoints, and λ and the optimiser stand in for what is not there.
    store
        A folder in which what was read and computed of each step is kept: a longer series then
        costs its new steps, and a run that was stopped resumes.
    wait
        Seconds, at most, for which steps that are being written are waited for. Steps that are
        added meanwhile are read too.
    progress
        As for `flagscope.scan`; what is counted are steps.

    Returns
    -------
    SeriesReport

    Raises
    ------
    InputError
        If an argument is wrong.
    MissingFileError
        If a source holds no checkpoint. A checkpoint that cannot be read is a fault of the
        series, and no error.
    SourceError
        If the folder behind a URL cannot be listed.
    StoreError
        If the store cannot be written.

    Examples
    --------
    >>> from flagscope.demo import checkpoints
    >>> report = track(checkpoints(), kinds="mlp")
    >>> report.faults, report.steps["number"].tolist()
    ([], [0, 80, 400, 2000, 10000])
    """
    check_run(workers, memory)
    checked_given(learning_rate, weight_decay, optimiser, momentum)
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    wanted: dict[str, Any] = {
        "layers": all_of(layers), "kinds": all_of(kinds), "family": family, "heads": heads
    }  # fmt: skip
    kept = None if store is None else KeptSteps(store)
    schedule = _Given(
        rates=learning_rate, decay=weight_decay, optimiser=optimiser, momentum=momentum
    )
    with shown_progress(progress) as step:
        read = read_steps(given, kept=kept, wait=wait, progress=step)
        by_place = {one.place: one for one in read}
        runs = {
            name: _Run(name, [by_place[place] for place in places])
            for name, places in runs_of(list(by_place)).items()
        }
        found = {name: run.verified() for name, run in runs.items()}
        if len(runs) > 1:
            integrity, records, shared = together(found)
        else:
            (integrity, _, records), shared = next(iter(found.values())), None
        rest = left_out(given, by_place)
        costs = {"workers": workers, "memory": memory}
        asked = Asked(wanted, parts_of(only), config, costs, kept, rest, step)
        looked_at = found if shared is None else with_shared_faults(found, shared.faults)
        measured = [] if verify else _measured(runs, looked_at, schedule, asked)
    curves = curves_of([scan for one in measured for scan in one.scans])
    result = SeriesRecord(
        version=version("flagscope"),
        sources=[readable(os.fspath(one)) for one in given],
        integrity=integrity,
        steps=[_readable(record) for record in records],
        curves=curves,
        adapters=[curve for one in measured for curve in one.adapters],
        motion=[motion for one in measured for motion in one.motion],
        products=[motion for one in measured for motion in one.products],
        onsets=[onset for one in measured for onset in _onsets(one, records)],
        change_points=[change_points(records, curves, run=one.run) for one in measured],
        rates=[one.rates for one in measured],
        runs=None if shared is None else runs_record(found, records, curves, shared),
        notes=asked.notes,
    )
    return SeriesReport(result, given=named_paths(*given, config, family, store))


class _Given(TypedDict):
    """The schedule of the training, as far as it was given."""

    rates: Rates | None
    decay: Decay | None
    optimiser: Optimiser | None
    momentum: float


@dataclass(frozen=True)
class _Run:
    """One training; its name is empty where there is no other."""

    name: str
    steps: list[Step]

    def verified(self) -> Verified:
        """What is wrong with it, as headers and samples show."""
        integrity, series = verified(self.steps)
        return Verified(integrity, series, step_records(self.steps, series))


@dataclass(frozen=True)
class _Measured:
    """What was measured of one training."""

    run: str | None
    scans: list[StepScan]
    adapters: list[AdapterCurves]
    motion: list[MapMotion]
    products: list[ProductMotion]
    rates: SeriesRates


def _measured(
    runs: Mapping[str, _Run], found: Mapping[str, Verified], given: _Given, asked: Asked
) -> list[_Measured]:
    """Measure all trainings, one step after the other."""
    total = sum(len(run.steps) for run in runs.values())
    scans: dict[str, list[StepScan]] = {name: [] for name in runs}
    for name, step in ((name, step) for name, run in runs.items() for step in run.steps):
        scans[name].append(scanned(step, name, asked))
        done = sum(map(len, scans.values()))
        asked.done(done, total, f"measuring {step.place.in_run(name)}")
    full = any(measurable(step) for run in runs.values() for step in run.steps)
    wanted = {"pairs", "residual"}.intersection(asked.only)
    if full and wanted and not any(scan.pairs for own in scans.values() for scan in own):
        asked.note(
            "No pair of maps was measured: no step that was read has one that was asked for."
        )
    return [_followed(run, found[name], scans[name], given, asked) for name, run in runs.items()]


def _followed(
    run: _Run, found: Verified, scans: list[StepScan], given: _Given, asked: Asked
) -> _Measured:
    """What the steps of one training show together."""
    steps, own = run.steps, {"run": run.name or None}
    adapters = tracked_adapters(steps, run.name, asked.kept, asked.notes)
    motion = series_motion(steps, run.name, (found.integrity, found.series), asked)
    sound = sound_steps(steps, found.integrity.faults)
    schedule, reason = schedule_of(sound, **given)
    by_name = {step.place.name: scan.pairs for step, scan in zip(steps, scans, strict=True)}
    rates = series_rates(
        sound, by_name, found.series, schedule, reason=reason, read=step_imbalances(asked)
    )
    return _Measured(
        run.name or None,
        scans,
        [one.model_copy(update=own) for one in adapters],
        [one.model_copy(update=own) for one in motion.maps],
        [one.model_copy(update=own) for one in motion.products],
        rates.model_copy(update=own),
    )


def _onsets(found: _Measured, records: Sequence[StepRecord]) -> list[Onset]:
    steps = _of(found.run, records)
    pairs, heads = [one.pairs for one in found.scans], [one.heads for one in found.scans]
    return [*onsets(steps, pairs, run=found.run), *near_copies(steps, heads, run=found.run)]


def _of(run: str | None, records: Sequence[StepRecord]) -> list[StepRecord]:
    return [record for record in records if record.run == run]


def _readable(record: StepRecord) -> StepRecord:
    return record.model_copy(update={"source": readable(record.source)})
