"""A checkpoint in which several tensors count as one: heads that are modules of their own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.indexing import Index
from flagscope.errors import ArchitectureError

Stacks = Mapping[str, tuple[str, ...]]


class StackedCheckpoint(Checkpoint):
    """The tensors of another checkpoint, some of them joined along a new first axis.

    Parameters
    ----------
    base
        The checkpoint. It is closed with this one.
    stacks
        The tensors of each stack, by the name of the stack. They no longer count by themselves.

    Raises
    ------
    ArchitectureError
        If the tensors of a stack differ in shape or type.

    Examples
    --------
    >>> from flagscope.checkpoint import from_state_dict
    >>> state = {f"q.{head}.weight": torch.full((2, 3), head) for head in range(4)}
    >>> stacks = {"q.*.weight": tuple(state)}
    >>> joined = StackedCheckpoint(from_state_dict(state), stacks)
    >>> joined.tensors["q.*.weight"].shape
    (4, 2, 3)
    >>> joined.read("q.*.weight", (slice(2, 4),))[:, 0, 0].tolist()
    [2, 3]
    """

    def __init__(self, base: Checkpoint, stacks: Stacks) -> None:
        self._base, self._stacks = base, dict(stacks)
        members = {name for names in stacks.values() for name in names}
        entries = {name: info for name, info in base.tensors.items() if name not in members}
        entries |= {name: self._entry_of(name, parts) for name, parts in stacks.items()}
        super().__init__(base.source, entries, config=base.config)
        self._notes = base.notes
        self.group, self.stored_config = base.group, base.stored_config
        self.recipe = base.recipe and replace(base.recipe, stacks=tuple(self._stacks.items()))

    def _entry_of(self, name: str, parts: tuple[str, ...]) -> TensorInfo:
        infos = [self._base.tensors[part] for part in parts]
        first = infos[0]
        if any((one.shape, one.dtype) != (first.shape, first.dtype) for one in infos):
            raise ArchitectureError(
                f"the tensors {name!r} differ in shape or type and cannot be taken together",
                hint="heads of one block are alike; decline the reading with --family none",
            )
        return replace(
            first, name=name, shape=(len(infos), *first.shape),
            nbytes=sum(one.nbytes for one in infos),
        )  # fmt: skip

    def __reduce__(self) -> tuple[type[StackedCheckpoint], tuple[Checkpoint, Stacks]]:
        return StackedCheckpoint, (self._base, self._stacks)

    @property
    def auxiliary(self) -> frozenset[str]:
        """Names of the base's tensors that scale others."""
        return self._base.auxiliary

    @property
    def scaled(self) -> frozenset[str]:
        """Names of the tensors that have a scale."""
        stacks = {name for name, parts in self._stacks.items() if parts[0] in self._base.scaled}
        return frozenset((self._base.scaled & self._tensors.keys()) | stacks)

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """States of the base's remote files."""
        return self._base.stamps

    @property
    def buffers(self) -> frozenset[str] | None:
        """Those of the base."""
        return self._base.buffers

    def memory_stored(self, stored: str) -> Hashable | None:
        """Where a tensor lies, by its name; None for a stack."""
        return None if stored in self._stacks else self._base.memory(stored)

    def read_runs(self, runs: Sequence[tuple[str, int, int]]) -> list[bytes] | None:
        """`Checkpoint.read_runs`, where no stack is among them."""
        if any(name in self._stacks for name, _, _ in runs):
            return None
        return self._base.runs(runs)

    def _read(self, stored: str, index: Index) -> Tensor:
        found = self._of_parts(stored, index, self._base.read)
        if found is None:  # every tensor can be read
            raise AssertionError(stored)
        return found

    def _scale(self, name: str, index: Index) -> Tensor | None:
        return self._of_parts(name, index, self._base.scale, expanded=True)

    def _step(self, name: str, index: Index) -> Tensor | None:
        return self._of_parts(name, index, self._base.step)

    def _of_parts(self, name: str, index: Index, get, *, expanded: bool = False) -> Tensor | None:
        """What `get` gives for a tensor, or for the parts of a stack, joined."""
        if name not in self._stacks:
            return get(name, index)
        which, *rest = index
        parts = self._stacks[name][which]
        if isinstance(parts, str):
            return get(parts, tuple(rest))
        found = [get(part, tuple(rest)) for part in parts]
        if any(one is None for one in found):
            return None
        if expanded and any(one.ndim == 0 for one in found):
            shape = self._base.read(parts[0], tuple(rest)).shape
            found = [one.expand(shape) for one in found]
        return torch.stack(found)

    def _release(self) -> None:
        self._base.close()


def stacked_checkpoint(checkpoint: Checkpoint, stacks: Stacks) -> Checkpoint:
    """The checkpoint with these stacks, itself where there are none."""
    return StackedCheckpoint(checkpoint, stacks) if stacks else checkpoint
