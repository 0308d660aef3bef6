"""Executors for tasks: `concurrent.futures`, a Dask client, or the address of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.attempt import worker_failure
from flagscope.engine.run.outcome import Outcome
from flagscope.engine.run.proof import Proven
from flagscope.engine.run.remote_task import RemoteTask, run_remote_task
from flagscope.errors import InputError, MissingExtraError, SourceError
from flagscope.masking import masked

_PATIENCE = "30s"
_DASK = "dask:"
_ADDRESS = re.compile(
    r"((tcp|tls|ws|wss|ucx|ucxx)://)?(\[[0-9A-Fa-f:.%\w]+\]|[\w-][\w.-]*):(?P<port>\d{1,5})/?",
    re.ASCII,
)


@contextmanager
def chosen_executor(executor: Any) -> Iterator[Executor | None]:
    """Resolve the `executor` argument of a scan; None means threads of this process.

    Parameters
    ----------
    executor
        None or "local"; "dask:ADDRESS" of a Dask scheduler (tcp://host:8786 or host:8786), for
        which a client is opened and closed at the end; a `dask.distributed.Client`; or any
        `concurrent.futures.Executor`. The last two are left open.

    Raises
    ------
    InputError
        If it is none of these, or the address cannot be that of a scheduler.
    SourceError
        If no scheduler answers at the address.
    MissingExtraError
        If dask.distributed is not installed.
    """
    if executor is None or executor == "local":
        yield None
    elif isinstance(executor, Executor):
        yield executor
    elif hasattr(executor, "get_executor"):
        yield executor.get_executor(pure=False)
    elif isinstance(executor, str) and executor.startswith(_DASK):
        client = _client(_checked_address(executor.removeprefix(_DASK)))
        try:
            yield client.get_executor(pure=False)
        finally:
            client.close()
    else:
        raise InputError(
            f"executor is {executor!r}",
            hint="give local, dask:ADDRESS of a scheduler, or a concurrent.futures.Executor",
        )


def _checked_address(address: str) -> str:
    """The address of a scheduler; a malformed one is refused before any connection attempt."""
    host = _ADDRESS.fullmatch(address)
    if host is None or not 0 < int(host["port"]) < 2**16:
        raise InputError(
            f"executor is {masked(_DASK + address)!r}, and that is no address of a scheduler",
            hint="give local, or dask:ADDRESS as `dask scheduler` prints it: "
            "dask:HOST:PORT, dask:tcp://HOST:PORT",
        )
    return address


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtraError(
            "scans on a Dask cluster need dask.distributed, which is not installed.",
            hint="pip install 'flagscope[dask]'",
        ) from None
    try:
        return Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            f"no Dask scheduler answers at {address}: {reason}",
            hint="start one with `dask scheduler`, and give the address that it prints",
        ) from error


def max_concurrency(executor: Executor) -> int | None:
    """Number of tasks that an executor runs at once; None if it does not say."""
    client: Any = getattr(executor, "_client", None)
    if client is not None and hasattr(client, "nthreads"):
        return sum(client.nthreads().values()) or None
    most = getattr(executor, "_max_workers", None)
    return most if isinstance(most, int) else None


def threads_per_process(executor: Executor) -> int | None:
    """PyTorch threads of each process of a pool; None to leave the worker's own setting.

    By default each process of a pool would use all cores.
    """
    if not isinstance(executor, ProcessPoolExecutor):
        return None
    return max(1, torch.get_num_threads() // (max_concurrency(executor) or 1))


def submit(executor: Executor, task: RemoteTask) -> Future[Outcome | Proven]:
    """Submit a task; if the executor is broken, return a future that holds its error."""
    try:
        return executor.submit(run_remote_task, task)
    except BrokenExecutor as error:
        broken: Future[Outcome | Proven] = Future()
        broken.set_exception(error)
        return broken


def task_outcome(task: Task, future: Future[Outcome | Proven]) -> Outcome | Proven:
    """Result of a finished future, or the failure to record.

    Raises
    ------
    InputError
        If the workers lack flagscope, or the weights are in memory and too large to travel.
    """
    try:
        return future.result()
    except ModuleNotFoundError as error:
        raise InputError(
            f"a worker lacks a module: {error}",
            hint="install flagscope, the same version and extras, on all machines",
        ) from error
    except BaseException as error:
        failure = worker_failure(task, error)
        if failure is None:
            raise
        return failure
