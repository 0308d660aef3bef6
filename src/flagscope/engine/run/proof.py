"""Proofs that a worker read the weights of the scan, checked before its result is accepted.

All checkpoints of a training run have the same names and shapes, and one path may be different
files on two machines. So a result comes with digests of the tensors that it was computed from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.fingerprint import tensor_digest
from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.outcome import TaskResult
from flagscope.records import FailureRecord

Stamps = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Proof:
    """Evidence of what a worker read.

    Attributes
    ----------
    stamps
        Names and states of the files.
    digests
        Digests of the tensors of the task, by name.
    whole
        Whether the digests cover all bytes, or samples.
    """

    stamps: Stamps
    digests: Mapping[str, bytes]
    whole: bool


@dataclass(frozen=True)
class Proven:
    """A result, and the proof of what it was computed from."""

    result: TaskResult
    proof: Proof


def stamps_of(checkpoint: Checkpoint) -> Stamps:
    """Names and states of a checkpoint's files, wherever they are."""
    return tuple(sorted(checkpoint.stamps.values()))


def is_unstamped(checkpoint: Checkpoint) -> bool:
    """Whether a server states only the size of a file, so that a change may go unnoticed.

    Results from such weights cannot be stored: another scan could not recognise the weights.
    """
    return any(state.endswith(" ") for _, state in checkpoint.stamps.values())


def proof_of(checkpoint: Checkpoint, task: Task, stamps: Stamps) -> Proof:
    """The proof for one task, made in the process that ran it.

    Files with the same names, sizes and modification times as those of the scan count as equal if
    samples of each tensor agree. For files behind URLs, whose states are tags of their contents,
    the states suffice. For a copy with other times, all bytes of the tensors are digested.

    Parameters
    ----------
    checkpoint
        The checkpoint that the worker opened.
    task
        The task that was run.
    stamps
        Files of the checkpoint of the scan.
    """
    own = stamps_of(checkpoint)
    alike = own == stamps
    if checkpoint.is_remote and (not alike or not is_unstamped(checkpoint)):
        return Proof(own, {}, whole=False)
    names = tensors_of(task, checkpoint)
    digests = {name: tensor_digest(checkpoint, name, whole=not alike) for name in sorted(names)}
    return Proof(own, digests, whole=not alike)


class Verifier:
    """Compares proofs with the checkpoint of the scan; digests each tensor once at most."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._stamps = checkpoint, stamps_of(checkpoint)
        self._known: dict[tuple[str, bool], bytes] = {}

    def accepted(
        self, task: Task, outcome: TaskResult | FailureRecord | Proven
    ) -> TaskResult | FailureRecord:
        """The result, or the failure of a task whose worker read other weights."""
        if not isinstance(outcome, Proven):
            return outcome
        other = self._other(task, outcome.proof)
        if other is None:
            return outcome.result
        return FailureRecord(
            task=task.name,
            error=f"a worker read other weights than those of the scan: {other}",
            hint="give a path or URL that is the same file on every machine, and wait until it is "
            "written",
        )

    def _other(self, task: Task, proof: Proof) -> str | None:
        """What differed for the worker; None if it read the weights of the scan."""
        if self._checkpoint.is_remote and proof.stamps != self._stamps:
            return f"the state of {self._checkpoint.source} is another one"
        if not proof.digests and self._checkpoint.is_remote:
            return None
        for name in sorted(tensors_of(task, self._checkpoint)):
            if proof.digests.get(name) != self._digest(name, whole=proof.whole):
                return f"{name!r} of {self._checkpoint.source}"
        return None

    def _digest(self, name: str, *, whole: bool) -> bytes:
        if (name, whole) not in self._known:
            self._known[name, whole] = tensor_digest(self._checkpoint, name, whole=whole)
        return self._known[name, whole]


def tensors_of(task: Task, checkpoint: Checkpoint) -> set[str]:
    """Names of the tensors that a task reads, with their scales."""
    named = {text for text in _texts(task) if text in checkpoint.tensors}
    scales = {scale for name in named if (scale := checkpoint.scale_name(name)) is not None}
    return named | scales


def _texts(value: Any) -> Iterator[str]:
    """All strings in a tree of records, among them the names of tensors."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _texts(getattr(value, field.name))
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, (tuple, list, set, frozenset)):
        for entry in value:
            yield from _texts(entry)
