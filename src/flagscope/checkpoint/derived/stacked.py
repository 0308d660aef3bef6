"""A checkpoint in which several tensors count as one: heads that are modules of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.derived.checkpoint import DerivedCheckpoint
from flagscope.checkpoint.indexing import Index, index_shape
from flagscope.errors import ArchitectureError

Stacks = Mapping[str, tuple[str, ...]]


class StackedCheckpoint(DerivedCheckpoint):
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
        self._stacks = dict(stacks)
        members = {name for names in stacks.values() for name in names}
        entries = {name: info for name, info in base.tensors.items() if name not in members}
        entries |= {name: _entry(base, name, parts) for name, parts in stacks.items()}
        super().__init__(base, entries, made=self._stacks, notes=base.notes)
        self._notes = base.notes
        self.recipe = base.recipe and replace(base.recipe, stacks=tuple(self._stacks.items()))

    def __reduce__(self) -> tuple[type[StackedCheckpoint], tuple[Checkpoint, Stacks]]:
        return StackedCheckpoint, (self._inner, self._stacks)

    @property
    def auxiliary(self) -> frozenset[str]:
        """Names of the base's tensors that scale others."""
        return self._inner.auxiliary

    @property
    def scaled(self) -> frozenset[str]:
        """Names of the tensors that have a scale."""
        stacks = {name for name, parts in self._stacks.items() if parts[0] in self._inner.scaled}
        return frozenset((self._inner.scaled & self._tensors.keys()) | stacks)

    def _made(self, name: str, index: Index) -> Tensor:
        which, *rest = index
        parts = self._stacks[name][which]
        if isinstance(parts, str):
            return self._inner.read(parts, tuple(rest))
        return torch.stack([self._inner.read(part, tuple(rest)) for part in parts])

    def _made_scale(self, name: str, index: Index) -> Tensor | None:
        return self._stack_of_factors(name, index, self._inner.scale)

    def _made_step(self, name: str, index: Index) -> Tensor | None:
        return self._stack_of_factors(name, index, self._inner.step)

    def _stack_of_factors(
        self, stored: str, index: Index, get: Callable[[str, Index], Tensor | None]
    ) -> Tensor | None:
        """Scales or steps of the parts, one factor for all of a part spread over it."""
        which, *rest = index
        parts = self._stacks[stored][which]
        if isinstance(parts, str):
            return get(parts, tuple(rest))
        shape = index_shape(tuple(rest), self._inner.tensors[parts[0]].shape) if parts else ()
        found = [get(part, tuple(rest)) for part in parts]
        spread = [one.expand(shape) for one in found if one is not None]
        return torch.stack(spread) if len(spread) == len(found) else None


def _entry(base: Checkpoint, name: str, parts: tuple[str, ...]) -> TensorInfo:
    infos = [base.tensors[part] for part in parts]
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


def stacked_checkpoint(checkpoint: Checkpoint, stacks: Stacks) -> Checkpoint:
    """The checkpoint with these stacks, itself where there are none."""
    return StackedCheckpoint(checkpoint, stacks) if stacks else checkpoint
