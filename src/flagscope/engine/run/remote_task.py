"""A task as sent to a worker: by reference within a process, else pickled in a few kilobytes."""

from __future__ import annotations

import copy
import functools
import io
import os
import threading
from collections import OrderedDict
from importlib.metadata import version
from typing import Any

import torch

from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.opening import reopened
from flagscope.checkpoint.recipe import Recipe
from flagscope.checkpoint.state_dict import StateDictCheckpoint
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.attempt import attempt
from flagscope.engine.run.outcome import TaskResult
from flagscope.engine.run.proof import Proven, proof_of, stamps_of, tensors_of
from flagscope.engine.settings import Settings
from flagscope.errors import FlagscopeError, InputError, SourceError
from flagscope.records import FailureRecord

# Weights in memory are sent with every task that reads them, so several times in all.
_MOST_BYTES = 2 * 2**30
# Checkpoints that a worker keeps open: that of the scan, and of an earlier or concurrent one.
_KEPT = 2


class RemoteTask:
    """A task, and where to find its tensors.

    In the process of the scan it refers to the open checkpoint. When pickled, it carries the recipe
    instead, and the worker opens the checkpoint itself, once for all tasks of a scan. Weights in
    memory have no recipe: those that the task reads are sent with it.

    Parameters
    ----------
    task, checkpoint, settings
        The task, its checkpoint and the settings of the scan.
    threads
        PyTorch threads in another process; None to leave that process's setting.
    tensors, index
        Cache that tasks in the process of the scan share, and the index of this task.
    """

    def __init__(
        self,
        task: Task,
        checkpoint: Checkpoint,
        settings: Settings,
        *,
        threads: int | None,
        tensors: TensorCache | None = None,
        index: int = 0,
    ) -> None:
        self._task, self._settings, self._threads = task, settings, threads
        self._tensors, self._index = tensors or TensorCache(checkpoint, [task]), index
        self._checkpoint: Checkpoint | _Packed | None = checkpoint
        self._recipe = checkpoint.recipe
        self._stamps = stamps_of(checkpoint)
        self._version = _version()
        self._travelled = False

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__, _travelled=True, _checkpoint=None, _tensors=None)
        if self._recipe is None:
            state["_checkpoint"] = _travelling(self._checkpoint, self._task)
        return state

    def outcome(self) -> TaskResult | FailureRecord | Proven:
        """Outcome of the task; in another process, with the proof of what it read."""
        if not self._travelled and self._tensors is not None:
            try:
                return attempt(self._task, self._tensors, self._settings)
            finally:
                self._tensors.finish(self._index)
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        try:
            here = _version()
            if here != self._version:
                raise InputError(
                    f"the scan is run by flagscope {self._version}, and a worker has {here}.",
                    hint="install the same version on all machines.",
                )
            checkpoint = self._arrived()
        except FlagscopeError as error:
            return FailureRecord(task=self._task.name, error=str(error), hint=error.hint)
        with TensorCache(checkpoint, [self._task]) as tensors:
            outcome = attempt(self._task, tensors, self._settings)
        if self._recipe is None or not isinstance(outcome, TaskResult):
            return outcome
        try:
            return Proven(outcome, proof_of(checkpoint, self._task, self._stamps))
        except FlagscopeError as error:
            return FailureRecord(task=self._task.name, error=str(error), hint=error.hint)

    def _arrived(self) -> Checkpoint:
        if self._recipe is not None:
            return open_once(self._recipe)
        if isinstance(self._checkpoint, _Packed):
            return self._checkpoint.unpacked()
        if self._checkpoint is None:
            raise SourceError("a task came without its weights.", hint="run the scan again.")
        return self._checkpoint


@functools.cache
def _version() -> str:
    return version("flagscope")


def run_remote_task(task: RemoteTask) -> TaskResult | FailureRecord | Proven:
    """Run a task: the function that an executor calls."""
    return task.outcome()


class _Opened:
    """Open checkpoints of this process by recipe, the most recently used last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_opening: OrderedDict[str, Checkpoint] = OrderedDict()


_opened = _Opened()


def _reset() -> None:
    """Forget all in a forked process: a lock may be held, and connections cannot be shared."""
    global _opened
    _opened = _Opened()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)


def open_once(recipe: Recipe) -> Checkpoint:
    """The checkpoint of a recipe, opened once in this process.

    An evicted checkpoint stays open until the last task that reads it has ended.
    """
    with _opened.lock:
        checkpoint = _opened.by_opening.pop(recipe.opened, None) or reopened(recipe)
        _opened.by_opening[recipe.opened] = checkpoint
        while len(_opened.by_opening) > _KEPT:
            _opened.by_opening.popitem(last=False)
        return checkpoint


class _Packed:
    """The tensors of a checkpoint in memory that one task reads.

    As bytes of copies: pickled views would send all of the memory that they are views of, or move
    it to shared memory while the caller uses it.
    """

    def __init__(self, checkpoint: StateDictCheckpoint, names: set[str]) -> None:
        self._shell = copy.copy(checkpoint)
        state = self._shell.replace_state({})
        tensors = {name: state[name].detach().cpu().clone() for name in names}
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        self._bytes = buffer.getvalue()

    def unpacked(self) -> Checkpoint:
        checkpoint = copy.copy(self._shell)
        checkpoint.replace_state(torch.load(io.BytesIO(self._bytes), weights_only=True))
        return checkpoint


def _travelling(checkpoint: Checkpoint | _Packed | None, task: Task) -> Checkpoint | _Packed | None:
    """Weights in memory, packed for pickling; other checkpoints pickle themselves."""
    if not isinstance(checkpoint, Checkpoint):  # packed already, and sent on
        return checkpoint
    total = sum(info.nbytes for info in checkpoint.tensors.values())
    if total > _MOST_BYTES:
        raise InputError(
            f"{total / 2**30:.1f} GiB of weights in memory would travel to the workers with their "
            "tasks.",
            hint="save them as safetensors and scan the path, or leave out the executor: threads "
            "share memory.",
        )
    if not isinstance(checkpoint, StateDictCheckpoint):
        return checkpoint
    return _Packed(checkpoint, tensors_of(task, checkpoint))
