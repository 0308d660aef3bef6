"""Part of another checkpoint, under names of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.derived.checkpoint import DerivedCheckpoint
from flagscope.checkpoint.groups.parts import Twin, averaged_twins, named_part
from flagscope.errors import InputError
from flagscope.shortening import listed

_LISTED = 20


class PartCheckpoint(DerivedCheckpoint):
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
        self._names = dict(names)
        self._said = {"group": group, "notes": tuple(notes)}
        entries = {name: replace(inner.tensors[old], name=name) for name, old in names.items()}
        super().__init__(inner, entries, notes=(*inner.notes, *notes))
        self._notes = (*inner.notes, *notes)  # of scales the other one has taken its own
        self.group = ".".join(part for part in (inner.group, group) if part)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(PartCheckpoint, **self._said), (self._inner, self._names)

    def _inner_name(self, name: str) -> str:
        return self._names[name]


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
        raise InputError(
            f"{checkpoint.source} holds no group of tensors {tensors!r}.",
            hint=f"those there are: {listed(starts, _LISTED, letters=60)}."
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
    """Note on averages that are passed over."""
    return tuple(
        f"{len(twin.names)} tensors {twin.start}* are those of {twin.of}* once more, a moving "
        f"average by their name, and are passed over; tensors={twin.start.rstrip('.')!r} "
        f"(--tensors {twin.start.rstrip('.')}) reads them instead"
        for twin in twins
        if any(twin.names.values())
    )
