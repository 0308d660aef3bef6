"""A checkpoint without what wrappers of a model put into the names of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.derived.checkpoint import DerivedCheckpoint
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.wrapper_prefixes import unwrapped_names


class RenamedCheckpoint(DerivedCheckpoint):
    """All tensors of another checkpoint under names of their own. It is closed with this one.

    Parameters
    ----------
    inner
        The checkpoint as stored.
    names
        Names here, and the names that the inner one has for them.
    notes
        What is said of the names, in words.
    """

    def __init__(self, inner: Checkpoint, names: Mapping[str, str], notes: Sequence[str]) -> None:
        self._names, self._told = dict(names), tuple(notes)
        entries = {name: replace(inner.tensors[old], name=name) for name, old in names.items()}
        super().__init__(inner, entries, notes=(*inner.header_notes, *notes))
        if inner.wiring is not None:
            self.wiring = inner.wiring.renamed({old: name for name, old in names.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return RenamedCheckpoint, (self._inner, self._names, self._told)

    def _inner_name(self, name: str) -> str:
        return self._names[name]

    def _scale(self, name: str, index: Index) -> Tensor | None:
        return Checkpoint._scale(self, name, index)  # a scale is known by its name here

    def _step(self, name: str, index: Index) -> Tensor | None:
        step = self._inner.step(self._names[name], index)
        return Checkpoint._step(self, name, index) if step is None else step


def unwrapped(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without wrappers' parts in its names, itself where there are none.

    Examples
    --------
    >>> import torch, tempfile, pathlib
    >>> from flagscope.checkpoint.torch.reader import TorchFile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.pt")
    ...     torch.save({"module.fc.weight": torch.eye(2)}, path)
    ...     list(unwrapped(TorchFile(path)).tensors)
    ['fc.weight']
    """
    names, kept = unwrapped_names(checkpoint.tensors)
    if not kept and all(name == stored for name, stored in names.items()):
        return checkpoint
    return RenamedCheckpoint(checkpoint, names, kept)
