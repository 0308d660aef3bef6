"""Part of another checkpoint, under names of its own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.parts import Twin, averaged_twins, named_part
from flagscope.errors import InputError

_LISTED = 20


class PartCheckpoint(Checkpoint):
    """Some tensors of another checkpoint. It is closed with this one.

    Parameters
    ----------
    inner
        The other one.
    names
        Names here, and the names that the other one has for them.
    group
        What the part is called; "" for all but what is there twice.
    notes
        What was chosen, in words.
    """

    def __init__(
        self, inner: Checkpoint, names: Mapping[str, str], *, group: str, notes: Sequence[str]
    ) -> None:
        self._inner, self._names = inner, dict(names)
        self._told = (group, tuple(notes))
        entries = {name: replace(inner.tensors[old], name=name) for name, old in names.items()}
        super().__init__(inner.source, entries, config=inner.config, notes=(*inner.notes, *notes))
        self._notes = (*inner.notes, *notes)  # of scales the other one has taken its own
        self.group = ".".join(part for part in (inner.group, group) if part)
        self.stored_config = inner.stored_config

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._inner, self._names, *self._told)

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """States of the other one's files."""
        return self._inner.stamps

    def read_runs(self, runs: Sequence[tuple[str, int, int]]) -> list[bytes] | None:
        """Runs of bytes of the other one."""
        return self._inner.runs([(self._names[name], a, b) for name, a, b in runs])

    def memory_stored(self, stored: str) -> Hashable | None:
        """Where a tensor lies, by the file's name."""
        return self._inner.memory(self._names[stored])

    def _read(self, stored: str, index: Index) -> Tensor:
        return self._inner.read(self._names[stored], index)

    def _scale(self, name: str, index: Index) -> Tensor | None:
        return self._inner.scale(self._names[self.stored_name(name)], index)

    def _step(self, name: str, index: Index) -> Tensor | None:
        return self._inner.step(self._names[self.stored_name(name)], index)

    def _release(self) -> None:
        self._inner.close()


def _again(
    inner: Checkpoint, names: dict[str, str], group: str, notes: tuple[str, ...]
) -> PartCheckpoint:
    return PartCheckpoint(inner, names, group=group, notes=notes)


def part_of(checkpoint: Checkpoint, tensors: str) -> PartCheckpoint:
    """The tensors of a checkpoint whose names start with one text, cut there.

    Raises
    ------
    InputError
        If no name does.
    """
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    names = named_part(shapes, tensors)
    if not names:
        starts = list(dict.fromkeys(name.partition(".")[0] for name in shapes if "." in name))
        shown = ", ".join(start[:60] for start in starts[:_LISTED])
        raise InputError(
            f"{checkpoint.source} holds no group of tensors {tensors!r}.",
            hint=f"those there are: {shown}{', …' if len(starts) > _LISTED else ''}."
            if starts
            else "it holds one state dict alone; leave the group out.",
        )
    note = (
        f"read the {len(names)} tensors of {checkpoint.source} whose names start with {tensors!r}"
    )
    return PartCheckpoint(checkpoint, names, group=tensors, notes=(note,))


def without_twins(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without moving averages of weights that it holds as well."""
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    twins = averaged_twins(shapes)
    if not twins:
        return checkpoint
    passed = {name for twin in twins for name in twin.names}
    names = {name: name for name in shapes if name not in passed}
    return PartCheckpoint(checkpoint, names, group="", notes=twin_notes(twins))


def twin_notes(twins: Sequence[Twin]) -> tuple[str, ...]:
    """What is said of averages that are passed over."""
    return tuple(
        f"{len(twin.names)} tensors {twin.start}* are those of {twin.of}* once more, a moving "
        f"average by their name, and are passed over; tensors={twin.start.rstrip('.')!r} "
        f"(--tensors {twin.start.rstrip('.')}) reads them instead"
        for twin in twins
        if any(twin.names.values())
    )
