"""Tries one task: returns its records, or the failure that is listed instead."""

from __future__ import annotations

import sys
from concurrent.futures import BrokenExecutor, CancelledError

from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.execute import execute
from flagscope.engine.run.outcome import TaskResult
from flagscope.engine.settings import Settings
from flagscope.errors import FlagscopeError
from flagscope.guard import told
from flagscope.records import FailureRecord
from flagscope.shortening import shortened


def attempt(task: Task, tensors: TensorCache, settings: Settings) -> TaskResult | FailureRecord:
    """Run a task; an error that concerns this task alone becomes a failure record."""
    try:
        return execute(task, tensors, settings)
    except FlagscopeError as error:
        return FailureRecord(task=task.name, error=str(error), hint=error.hint)
    except (RuntimeError, MemoryError, OSError) as error:
        # torch raises RuntimeError for a solver that does not converge and for memory it lacks.
        return FailureRecord(
            task=task.name,
            error=shortened(_first_line(error)),
            hint="try --workers 1, --device cpu, or --only to leave this part out",
        )
    except Exception as error:  # an unforeseen error fails this task alone
        return FailureRecord(
            task=task.name,
            error=shortened(f"internal error: {told(error)}"),
            hint="this is a fault of flagscope: report it with `flagscope inspect SOURCE`; "
            "--only may leave this part out",
        )


def worker_failure(task: Task, error: BaseException) -> FailureRecord | None:
    """Failure record if the worker died or was removed; None for any other error."""
    if isinstance(error, CancelledError):
        return FailureRecord(
            task=task.name,
            error="the task was cancelled: the executor was shut down, or its scheduler was lost",
            hint="look at the scheduler's log, and run the scan again",
        )
    # Dask's errors can occur only if Dask runs the scan.
    scheduler = sys.modules.get("distributed.scheduler")
    killed = () if scheduler is None else (scheduler.KilledWorker,)
    if not isinstance(error, (BrokenExecutor, *killed)):
        return None
    # The worker died during the task, for instance killed for its memory use.
    return FailureRecord(
        task=task.name,
        error=_first_line(error),
        hint="a worker died, perhaps for lack of memory: try fewer workers, or larger ones",
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
