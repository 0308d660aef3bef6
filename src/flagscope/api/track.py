"""A series of checkpoints of one training, or of several: `flagscope.track`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flagscope.api.progress import shown_progress
from flagscope.api.scan import scan
from flagscope.api.series_report import SeriesReport
from flagscope.api.sharing import named_paths
from flagscope.api.source import all_of, check_run, readable
from flagscope.api.track_motion import series_motion
from flagscope.api.tracked_adapters import holds_adapter, tracked_adapters
from flagscope.diagnose import labels
from flagscope.engine import Progress
from flagscope.errors import FlagscopeError, InputError
from flagscope.observables import PAIR_OBSERVABLES, null_band
from flagscope.records import PairRecord, ScanResult
from flagscope.records.series import SeriesCurve, SeriesRecord, StepRecord
from flagscope.records.series_adapter import AdapterCurves
from flagscope.records.series_motion import MapMotion
from flagscope.records.series_onsets import Onset
from flagscope.series.changes import change_points
from flagscope.series.kept import KeptSteps
from flagscope.series.onsets import onsets
from flagscope.series.places import Place, left_out, runs_of
from flagscope.series.runs import Verified, runs_record, together
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
        (`runs/a/step_*`), a hub name with a pattern of revisions (`org/name@step*`), or several of
        these, and single checkpoints. They are put in the order of the numbers in their names.
    verify
        Look at integrity alone.
    layers, kinds, config, family, heads, workers, memory
        As for `flagscope.scan`, of every step.
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
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    wanted: dict[str, Any] = {
        "layers": all_of(layers), "kinds": all_of(kinds), "family": family, "heads": heads
    }  # fmt: skip
    kept = None if store is None else KeptSteps(store)
    with shown_progress(progress) as step:
        steps = {one.place: one for one in read_steps(given, kept=kept, wait=wait, progress=step)}
        read = {
            name: [steps[place] for place in inside]
            for name, inside in runs_of(list(steps)).items()
        }
        runs: dict[str, Verified] = {}
        for name, inside in read.items():
            integrity, series = verified(inside)
            runs[name] = Verified(integrity, series, step_records(inside, series))
        if len(runs) > 1:
            integrity, records, shared = together(runs)
        else:
            (integrity, _, records), shared = next(iter(runs.values())), None
        notes = left_out(given)
        adapters: list[AdapterCurves] = []
        motion: list[MapMotion] = []
        scans: dict[str, list[list[PairRecord]]] = {}
        if not verify:
            scans = {name: [] for name in read}
            extra = {"config": config, "workers": workers, "memory": memory}
            for name, one in ((name, one) for name, inside in read.items() for one in inside):
                scans[name].append(_scanned(one, name, wanted, extra, kept, notes))
                if step is not None:
                    done = sum(map(len, scans.values()))
                    step(done, len(steps), f"measuring {_named(name, one.place)}")
            for name, inside in read.items():
                run = {"run": name or None}
                adapters += [
                    one.model_copy(update=run) for one in tracked_adapters(inside, kept, notes)
                ]
                motion += [
                    one.model_copy(update=run)
                    for one in series_motion(
                        inside, (runs[name].integrity, runs[name].series), wanted=wanted,
                        config=config, kept=kept, notes=notes, progress=step,
                    )
                ]  # fmt: skip
    curves = _curves([pairs for inside in scans.values() for pairs in inside])
    result = SeriesRecord(
        version=version("flagscope"),
        sources=[readable(os.fspath(one)) for one in given],
        integrity=integrity,
        steps=[_readable(record) for record in records],
        curves=curves,
        adapters=adapters,
        motion=motion,
        onsets=[
            one for name, inside in scans.items() for one in _onsets(records, inside, name or None)
        ],
        change_points=[change_points(records, curves, run=name or None) for name in scans],
        runs=None if shared is None else runs_record(runs, records, curves, shared),
        notes=notes,
    )
    return SeriesReport(result, given=named_paths(*given, config, family, store))


def _onsets(
    records: Sequence[StepRecord], scans: Sequence[Sequence[PairRecord]], run: str | None
) -> list[Onset]:
    return onsets([one for one in records if one.run == run], scans, run=run)


def _named(run: str, place: Place) -> str:
    return f"{run}/{place.name}" if run else place.name


def _readable(record: StepRecord) -> StepRecord:
    return record.model_copy(update={"source": readable(record.source)})


def _scanned(
    step: Step,
    run: str,
    wanted: dict[str, Any],
    extra: dict[str, Any],
    kept: KeptSteps | None,
    notes: list[str],
) -> list[PairRecord]:
    """Records of the pairs of one step; none where it cannot be measured, and a note says why."""
    place = step.place
    if step.fault is not None or place.unfinished:
        return []
    if holds_adapter(step):  # measured from its factors, without its base
        return []
    key = {**wanted, "config": extra["config"], "version": version("flagscope")}
    known = None if kept is None else kept.result(place, key)
    if known is not None:
        return _slim(ScanResult.model_validate_json(known).pairs)
    try:
        only: tuple[Part, ...] = ("pairs",)
        report = scan(
            place.source, revision=place.revision, only=only, edges=0, progress=False,
            **wanted, **extra,
        )  # fmt: skip
    except InputError:
        raise
    except FlagscopeError as error:
        notes.append(f"{_named(run, place)} was not measured: {error}")
        return []
    if kept is not None:
        kept.keep(place, key, report.result.model_dump_json(by_alias=True))
    return _slim(report.result.pairs)


def _slim(pairs: Sequence[PairRecord]) -> list[PairRecord]:
    """Pairs without the lists that no curve needs: those of all steps are held at once."""
    left = {"incidence": None, "profile": None, "functional": None, "balanced": None}
    return [pair.model_copy(update=left) for pair in pairs]


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
