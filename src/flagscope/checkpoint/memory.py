"""Tensors that are in memory already, or mapped into it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.deepspeed import refuse_empty
from flagscope.checkpoint.dtypes import dtype_name
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.nesting import model_state
from flagscope.checkpoint.packed import unpacked
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

    Raises
    ------
    InputError
        If `mapping` is not a mapping, holds no tensors or several models, or tensors without
        values (on the meta device).
    SourceError
        If the weights are packed by a quantiser that is not supported, or most of the tensors are
        empty, as DeepSpeed leaves those that it spread over processes.

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
    state, notes = model_state(mapping, source=name, error=InputError)
    refuse_empty(
        {key: tuple(tensor.shape) for key, tensor in state.items()}, source=name, path=None
    )
    return unpacked(
        StateDictCheckpoint(
            state, source=name, config=None if config is None else dict(config), notes=notes
        )
    )
