"""A series of checkpoints of one training: `flagscope.track`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flagscope.api.progress import shown_progress
from flagscope.api.scan import scan
from flagscope.api.series_report import SeriesReport
from flagscope.api.sharing import named_paths
from flagscope.api.source import all_of, check_run, readable
from flagscope.checkpoint.lora.settings import ADAPTER_FILES
from flagscope.diagnose import labels
from flagscope.engine import Progress
from flagscope.errors import FlagscopeError, InputError
from flagscope.observables import PAIR_OBSERVABLES, null_band
from flagscope.records import PairRecord, ScanResult
from flagscope.records.series import SeriesCurve, SeriesRecord, StepRecord
from flagscope.series.found_schedule import Rates, checked_given, schedule_of
from flagscope.series.kept import KeptSteps
from flagscope.series.places import left_out
from flagscope.series.rates.schedule import Optimiser
from flagscope.series.series_rates import imbalances, series_rates, sound_steps
from flagscope.series.step import Step
from flagscope.series.verify import step_records, verified
from flagscope.series.waiting import read_steps

if TYPE_CHECKING:
    from flagscope.api.source import Config
    from flagscope.records import Part

_FIELDS = tuple(entry.field for entry in PAIR_OBSERVABLES if entry.profiled)


def track(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    verify: bool = False,
    layers: int | Iterable[int] | None = None,
    kinds: str | Iterable[str] | None = None,
    config: Config | None = None,
    family: str | None = None,
    heads: int | None = None,
    learning_rate: Rates | None = None,
    weight_decay: float | None = None,
    optimiser: Optimiser | None = None,
    momentum: float = 0.0,
    store: str | os.PathLike[str] | None = None,
    wait: float = 0.0,
    workers: int | None = None,
    memory: int = 2_000_000_000,
    progress: Progress | bool | None = None,
) -> SeriesReport:
    """Read a series of checkpoints of one training: what is wrong with it, and its curves.

    Integrity comes first, from headers and samples of less than 1 % of the bytes: equal and
    nearly equal steps, files and steps of another training, a wrong order, gaps, steps that are
    damaged or being written, a restart, a step back. Then each readable step is scanned, one
    after the other.

    Parameters
    ----------
    sources
        A folder of checkpoints (`checkpoint-500`, `step_500.safetensors`), a pattern
        (`runs/a/step_*`), a hub name with a pattern of revisions (`org/name@step*`), or several of
        these, and single checkpoints. They are put in the order of the numbers in their names.
    verify
        Look at integrity alone.
    layers, kinds, config, family, heads, workers, memory
        As for `flagscope.scan`, of every step.
    learning_rate, weight_decay, optimiser, momentum
        Schedule of the training, for rates: η (a number, one for each update, by number of
        updates done, or a function of an update's number), λ, "sgd" (L2) or "adamw" (decoupled
        decay), and the momentum of SGD. By default it is read from what lies next to the
        checkpoints, and λ and the optimiser stand in for what is not there.
    store
        A folder in which what was read and computed of each step is kept: a longer series then
        costs its new steps, and a run that was stopped goes on.
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
    with shown_progress(progress) as step:
        steps = read_steps(given, kept=kept, wait=wait, progress=step)
        integrity, series = verified(steps)
        records = step_records(steps, series)
        curves: list[SeriesCurve] = []
        rates = None
        notes = left_out(given)
        if not verify:
            extra = {"config": config, "workers": workers, "memory": memory}
            scans = []
            for count, one in enumerate(steps):
                scans.append(_scanned(one, wanted, extra, kept, notes))
                if step is not None:
                    step(count + 1, len(steps), f"measuring {one.place.name}")
            curves = _curves(scans)
            sound = sound_steps(steps, integrity.faults)
            schedule, reason = schedule_of(
                sound, rates=learning_rate, decay=weight_decay, optimiser=optimiser,
                momentum=momentum,
            )  # fmt: skip
            by_name = {one.place.name: scan for one, scan in zip(steps, scans, strict=True)}
            rates = series_rates(
                sound, by_name, series, schedule, reason=reason,
                read=partial(_imbalances, kept=kept, key={**wanted, "config": config}),
            )  # fmt: skip
    result = SeriesRecord(
        version=version("flagscope"),
        sources=[readable(os.fspath(one)) for one in given],
        integrity=integrity,
        steps=[_readable(record) for record in records],
        curves=curves,
        rates=rates,
        notes=notes,
    )
    return SeriesReport(result, given=named_paths(*given, config, family, store))


def _readable(record: StepRecord) -> StepRecord:
    return record.model_copy(update={"source": readable(record.source)})


def _scanned(
    step: Step,
    wanted: dict[str, Any],
    extra: dict[str, Any],
    kept: KeptSteps | None,
    notes: list[str],
) -> list[PairRecord]:
    """Records of the pairs of one step; none where it cannot be measured, and a note says why."""
    place = step.place
    if step.fault is not None or place.unfinished:
        return []
    if any(header.file in ADAPTER_FILES for header in step.headers.values()):
        note = "Adapters are compared by their samples; their products with the base are not."
        if note not in notes:
            notes.append(note)
        return []
    key = {**wanted, "config": extra["config"], "version": version("flagscope")}
    known = None if kept is None else kept.result(place, key)
    if known is not None:
        return ScanResult.model_validate_json(known).pairs
    try:
        only: tuple[Part, ...] = ("pairs",)
        report = scan(
            place.source, revision=place.revision, only=only, edges=0, progress=False,
            **wanted, **extra,
        )  # fmt: skip
    except InputError:
        raise
    except FlagscopeError as error:
        notes.append(f"{place.name} was not measured: {error}")
        return []
    if kept is not None:
        kept.keep(place, key, report.result.model_dump_json(by_alias=True))
    return report.result.pairs


def _imbalances(
    step: Step, pairs: Sequence[PairRecord], *, kept: KeptSteps | None, key: dict[str, Any]
) -> dict[str, float]:
    """‖A - B‖ by pair, which is kept as a scan is."""
    own = {**key, "version": version("flagscope"), "what": "imbalances"}
    known = None if kept is None else kept.result(step.place, own)
    if known is not None:
        return json.loads(known)
    found = imbalances(step, pairs)
    if kept is not None:
        kept.keep(step.place, own, json.dumps(found))
    return found


def _curves(scans: Sequence[Sequence[PairRecord]]) -> list[SeriesCurve]:
    """A curve for each pair and number that any step has."""
    names: dict[str, PairRecord] = {}
    for scanned in scans:
        for pair in scanned:
            names.setdefault(pair.name, pair)
    by_name = [{pair.name: pair for pair in scanned} for scanned in scans]
    found = []
    for name, first in names.items():
        pairs = [step.get(name) for step in by_name]
        open_ = first.between == "unknown" and first.freedom == "none"
        label = {} if open_ else labels(first.freedom)
        for field in _FIELDS:
            values = [None if pair is None else getattr(pair, field) for pair in pairs]
            if all(value is None for value in values):
                continue
            bands = [None if pair is None else null_band(pair, field) for pair in pairs]
            found.append(
                SeriesCurve(
                    pair=name,
                    kind=first.kind,
                    layer=first.layer,
                    observable=field,
                    label=label.get(field),
                    values=values,
                    low=[None if band is None else band.low for band in bands],
                    high=[None if band is None else band.high for band in bands],
                )
            )
    return found
