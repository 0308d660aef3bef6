"""`AlignmentMonitor`: scans of a model during its training."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from flagscope.api.source import all_of, check_device, check_run, checked_settings, parts_of
from flagscope.errors import InputError
from flagscope.live import own_config
from flagscope.monitor.alerts import Alert, Watch
from flagscope.monitor.calibration import StepTimer, part_seconds, parts_in
from flagscope.monitor.journal import Journal
from flagscope.monitor.measurement import Measurement, measured
from flagscope.monitor.processes import agreed, measures_here
from flagscope.monitor.schedule import Budget, Part, Schedule, fitted_schedule
from flagscope.monitor.weights import block_norms, trainable_names, whole_state
from flagscope.records import PARTS, Depth, PairKind
from flagscope.records import Part as ScanPart
from flagscope.records.monitor_lines import MONITOR_SCHEMA

if TYPE_CHECKING:
    from flagscope.api.source import Config
    from flagscope.monitor.loggers import Logger

_log = logging.getLogger("flagscope.monitor")
_BUDGET = 0.01


class AlignmentMonitor:
    """Measure a model's weights at set steps of its training, and say where they look broken.

    A measurement is what `flagscope.scan(model.state_dict(), config=config)` returns at that
    moment, and so that of a checkpoint saved then. It is made in the calling thread, while the
    training waits. Nothing of the training is changed: no random state, mode, gradient or hook.

    Parameters
    ----------
    model
        The model, also within `DistributedDataParallel`, `torch.compile` or with `fully_shard`. In
        a distributed training each rank makes a monitor and calls `step`; rank 0 measures.
    every
        Measure after each so many optimizer steps. Without it the steps come from `budget`.
    budget
        Share of the training time that measurements may take, 0.01 by default. The first 25 steps
        are timed, then one measurement of each part of the network; that fixes `every`, and
        whether the whole is measured at once or kind after kind. The schedule does not change
        afterwards: where a measurement would exceed the budget it is skipped, and recorded as a
        gap.
    out
        Folder for `monitor.jsonl` and the scan of each measurement; nothing is written without it.
    loggers
        Receivers of numbers, scans and alerts: `flagscope.monitor.TensorBoardLogger` and others.
        Scans are passed on as files, thus only with `out`. A logger that fails is warned of.
    on_alert
        Called with each `Alert` on the process that measures. What it raises ends the training.
    config, family, heads, only, layers, kinds, depth, device, workers
        As for `flagscope.scan`; the configuration is the model's own if it has one.

    Attributes
    ----------
    schedule
        The schedule; None until the calibration.
    latest
        The last measurement; None before the first, and on ranks that do not measure.
    alerts
        All alerts so far.
    gaps
        (step, reason) of measurements that were due and not made.

    Raises
    ------
    InputError
        If an argument is wrong.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with AlignmentMonitor(net, every=2) as monitor:
    ...     for step in range(1, 5):
    ...         optimizer.zero_grad()
    ...         net(torch.ones(1, 8)).square().sum().backward()
    ...         optimizer.step()
    ...         measurement = monitor.step(step)
    >>> monitor.latest.step, monitor.latest.report.pairs["name"].tolist(), monitor.alerts
    (4, ['0-2'], [])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int | None = None,
        budget: float | None = None,
        out: str | os.PathLike[str] | None = None,
        loggers: Iterable[Logger] = (),
        on_alert: Callable[[Alert], Any] | None = None,
        config: Config | None = None,
        family: str | None = None,
        heads: int | None = None,
        only: ScanPart | Iterable[ScanPart] = PARTS,
        layers: int | Iterable[int] | None = None,
        kinds: PairKind | Iterable[PairKind] | None = None,
        depth: Depth = "auto",
        device: str = "auto",
        workers: int | None = None,
    ) -> None:
        _check_pace(model, every, budget)
        check_run(workers, 0)
        chosen = checked_settings(
            only=parts_of(only), layers=all_of(layers), kinds=all_of(kinds), family=family,
            heads=heads, depth=depth, device=device,
        )  # fmt: skip
        check_device(chosen)
        self._model = model
        self._settings = {
            "config": own_config(model) if config is None else config, "family": family,
            "heads": heads, "layers": chosen.layers, "depth": depth, "device": device,
            "workers": workers,
        }  # fmt: skip
        self._whole = Part("all", chosen.only, chosen.kinds)
        self._share = _BUDGET if budget is None and every is None else budget
        self.schedule = None if every is None else Schedule(every, (self._whole,))
        self._timer, self._spending = StepTimer(), None
        self._here = measures_here()
        self._folder = None if out is None else Path(out)
        self._journal = Journal(self._folder) if self._folder is not None and self._here else None
        self._loggers: Sequence[Logger] = tuple(loggers) if self._here else ()
        self._on_alert, self._watch = on_alert, Watch()
        self._last: int | None = None
        self._resumes = True
        self.latest: Measurement | None = None
        self.alerts: list[Alert] = []
        self.gaps: list[tuple[int, str]] = []

    def step(self, step: int | None = None) -> Measurement | None:
        """Say that so many optimizer steps were taken; measure if it is time.

        Call it after `optimizer.step()`, on all ranks. A step that was seen already does nothing,
        so it may be called after each backward pass of accumulated gradients too. `step(0)` before
        the training measures the initial weights.

        Parameters
        ----------
        step
            Number of optimizer steps; by default one more than at the last call.

        Returns
        -------
        Measurement or None
            The measurement, if one was made by this process.

        Raises
        ------
        FlagscopeError
            If the first measurement fails. Where a later one does, that is a gap and a warning,
            and the training continues.
        """
        if step is None:
            step = 1 if self._last is None else self._last + 1
        if self._last is not None and step <= self._last:
            return None
        self._last = step
        if self._resumes:
            self._resumes = False
            if self._journal is not None:
                self._journal.cut_from(step)
        if self.schedule is None:
            seconds = self._timer.tick(time.perf_counter())
            if seconds is not None:
                self._calibrate(step, seconds)
            return None
        part = self.schedule.part_at(step)
        if part is None or not self._affordable(step):
            return None
        return self._measure(step, part)

    def state_dict(self) -> dict[str, Any]:
        """Where the monitor is, for a checkpoint of the training: plain values, JSON too."""
        return {
            "step": self._last,
            "schedule": None if self.schedule is None else self.schedule.to_dict(),
            "watch": self._watch.state_dict(),
            "alerts": [alert.to_dict() for alert in self.alerts],
            "gaps": [list(gap) for gap in self.gaps],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave.

        The calibrated schedule stays. Lines of later steps in `monitor.jsonl`, from before the
        training went back, move to `rolled-back.jsonl`. Without a state, a training that resumes
        in the same folder continues its lines too, and starts the search for alerts anew.
        """
        self._last, self._resumes = state["step"], True
        if state["schedule"] is not None:
            self.schedule = Schedule.from_dict(state["schedule"])
            self._spending = None
        self._watch.load_state_dict(state["watch"])
        self.alerts = [Alert(**alert) for alert in state["alerts"]]
        self.gaps = [(step, reason) for step, reason in state["gaps"]]

    def close(self) -> None:
        """Close the loggers. The model is left as it is."""
        for logger in self._loggers:
            logger.close()
        self._loggers = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        when = "to be calibrated" if self.schedule is None else str(self.schedule)
        return f"AlignmentMonitor({when}; {len(self.alerts)} alerts, {len(self.gaps)} gaps)"

    def _calibrate(self, step: int, step_seconds: float) -> None:
        """Fix the schedule, by the times of the process that measures."""
        start = time.perf_counter()
        state = whole_state(self._model)
        gathering = time.perf_counter() - start
        schedule = None
        if state is not None and self._share is not None:
            parts = parts_in(state, self._whole, self._settings)
            seconds = [gathering + x for x in part_seconds(state, parts, self._settings)]
            schedule = fitted_schedule(
                self._whole, parts, seconds,
                step_seconds=step_seconds, budget=self._share, after=step,
            )  # fmt: skip
        self.schedule = agreed(schedule)
        _log.info("step %d: measurements %s", step, self.schedule)
        if schedule is not None:
            self._note(
                step, "schedule", **schedule.to_dict(), budget=self._share,
                step_seconds=step_seconds,
            )  # fmt: skip

    def _affordable(self, step: int) -> bool:
        """Whether a measurement that is due keeps to the budget; rank 0 decides for all."""
        if self._share is None or self.schedule is None:
            return True
        now = time.perf_counter()
        if self._spending is None:
            self._spending = Budget(self._share, start=now)
        allowed = agreed(self._spending.allows(now))
        if not allowed:
            self._gap(step, f"over the budget of {100 * self._share:g} %")
        return allowed

    def _measure(self, step: int, part: Part) -> Measurement | None:
        start = time.perf_counter()
        state = whole_state(self._model)
        if state is None:
            return None
        try:
            measurement = measured(
                state, step=step, part=part, trainable=trainable_names(self._model),
                settings=self._settings,
            )  # fmt: skip
            path = self._written(measurement)
        except Exception as error:  # a training of days does not end for a measurement
            if self.latest is None:
                raise
            self._gap(step, f"failed: {type(error).__name__}: {error}")
            return None
        self.latest = measurement
        fired = self._watch.alerts(measurement)
        self.alerts += fired
        for alert in fired:
            self._note(step, "alert", code=alert.code, place=alert.place, text=alert.text)
            _log.warning("step %d: %s: %s", step, alert.code, alert.text)
        for logger in self._loggers:
            _send(logger, measurement, path, fired)
        if self._spending is not None:
            self._spending.spend(time.perf_counter() - start)
        for alert in fired:
            if self._on_alert is not None:
                self._on_alert(alert)
        return measurement

    def _written(self, measurement: Measurement) -> Path | None:
        """Keep the scan and the numbers of a measurement; gives the file of the scan."""
        step, path = measurement.step, None
        if self._folder is not None:
            path = self._folder / f"step-{step:09d}.json"
            measurement.report.to_json(path)
        self._note(
            step, "measurement", part=measurement.part.name, seconds=measurement.seconds,
            scalars=measurement.scalars, norms=_finite(block_norms(measurement.norms)),
            scan=None if path is None else path.name,
        )  # fmt: skip
        return path

    def _gap(self, step: int, reason: str) -> None:
        self.gaps.append((step, reason))
        _log.info("step %d: not measured, %s", step, reason)
        if reason.startswith("failed"):
            warnings.warn(f"flagscope: step {step} was not measured, {reason}", stacklevel=4)
        self._note(step, "gap", reason=reason)

    def _note(self, step: int, kind: str, **fields: Any) -> None:
        if self._journal is not None:
            self._journal.append({"schema": MONITOR_SCHEMA, "step": step, "kind": kind, **fields})


def _send(
    logger: Logger, measurement: Measurement, path: Path | None, alerts: Sequence[Alert]
) -> None:
    """Pass a measurement on. A logger that fails, as without a network, is warned of."""
    try:
        logger.log(measurement.step, measurement.scalars)
        if path is not None:
            logger.artifact(path)
        for alert in alerts:
            logger.alert(alert)
    except Exception as error:
        warnings.warn(
            f"flagscope: {type(logger).__name__} failed at step {measurement.step}: {error}",
            stacklevel=5,
        )


def _finite(norms: dict[str, float]) -> dict[str, float | None]:
    """Norms as JSON has them, which knows no NaN."""
    return {name: norm if abs(norm) < float("inf") else None for name, norm in norms.items()}


def _check_pace(model: object, every: int | None, budget: float | None) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"cannot watch a {type(model).__name__}", hint="give the nn.Module that is trained"
        )
    if every is not None and budget is not None:
        raise InputError("every and budget both say how often", hint="give one of them")
    if every is not None and every < 1:
        raise InputError(f"every is {every}", hint="give a number of steps, 1 or more")
    if budget is not None and not 0 < budget < 1:
        raise InputError(f"budget is {budget}", hint="give a share of the training time, like 0.01")
