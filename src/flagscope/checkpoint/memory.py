"""Tensors that are in memory already, or mapped into it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.dtypes import dtype_name
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.nesting import model_state
from flagscope.checkpoint.packed import unpacked
from flagscope.checkpoint.part_checkpoint import twin_notes
from flagscope.checkpoint.parts import averaged_twins
from flagscope.checkpoint.stored_config import config_below
from flagscope.errors import InputError


def tensor_entries(
    state: Mapping[str, Tensor], *, file: str | None = None
) -> dict[str, TensorInfo]:
    """Headers of tensors that are loaded or mapped."""
    return {
        name: TensorInfo(
            name,
            tuple(tensor.shape),
            dtype_name(tensor.dtype),
            math.prod(tensor.shape) * tensor.element_size(),
            file,
        )
        for name, tensor in state.items()
    }


class StateDictCheckpoint(Checkpoint):
    """A checkpoint over a mapping from names to tensors; nothing is copied."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        *,
        source: str,
        config: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(source, tensor_entries(state), config=config, notes=notes)
        self._state = dict(state)

    def replace_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put other tensors, or a part of them, behind the same headers; gives those before."""
        before, self._state = self._state, state
        return before

    def _read(self, stored: str, index: Index) -> Tensor:
        return self._state[stored][index]

    def _release(self) -> None:
        self._state = {}


def from_state_dict(
    mapping: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    name: str = "state_dict",
    tensors: str | None = None,
) -> Checkpoint:
    """Checkpoint over a state dict in memory, with the interface of the file readers.

    Parameters
    ----------
    mapping
        Names to tensors, as from `module.state_dict()`. A training checkpoint that holds the
        state dict under `state_dict`, `model`, … is opened up; entries that are not dense
        tensors are passed over and counted in `notes`. Tensors are neither copied nor moved.
    config
        The model's configuration, for instance `model.config.to_dict()`.
    name
        What to call it: `Checkpoint.source`.
    tensors
        Which group of tensors to read, where there are several: the keys that lead to it with dots
        between them, or the start that its names share.

    Raises
    ------
    InputError
        If `mapping` is not a mapping, holds no tensors or several models, or tensors without
        values (on the meta device), or there is no group `tensors`.
    SourceError
        If the weights are packed by a quantiser that is not supported.

    Examples
    --------
    >>> import torch
    >>> checkpoint = from_state_dict(torch.nn.Linear(3, 2).state_dict())
    >>> checkpoint.tensors["weight"].shape
    (2, 3)
    >>> checkpoint.read("weight", (slice(0, 1),)).shape
    torch.Size([1, 3])
    """
    if not isinstance(mapping, Mapping):
        raise InputError(
            f"expected a mapping from names to tensors, got {type(mapping).__name__}.",
            hint="pass module.state_dict().",
        )
    found = model_state(mapping, source=name, error=InputError, tensors=tensors)
    state, notes = found.state, found.notes
    if tensors is None:
        twins = averaged_twins({key: tuple(tensor.shape) for key, tensor in state.items()})
        passed = {key for twin in twins for key in twin.names}
        state = {key: tensor for key, tensor in state.items() if key not in passed}
        notes = (*notes, *twin_notes(twins))
    stored, _ = config_below(mapping, found.group)
    checkpoint = StateDictCheckpoint(
        state, source=name, config=stored if config is None else dict(config), notes=notes
    )
    checkpoint.group, checkpoint.stored_config = found.group, stored
    return unpacked(checkpoint)
