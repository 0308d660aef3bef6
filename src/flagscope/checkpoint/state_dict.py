"""Tensors that are in memory already, or mapped into it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from flagscope.checkpoint.arrays import with_tensors
from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.deepspeed import refuse_empty
from flagscope.checkpoint.derived.parametrized import whole_weights
from flagscope.checkpoint.derived.part import twin_notes
from flagscope.checkpoint.derived.tensor import DerivedTensor
from flagscope.checkpoint.dtypes import dtype_name
from flagscope.checkpoint.groups.model_state import model_state
from flagscope.checkpoint.groups.parts import averaged_twins
from flagscope.checkpoint.indexing import Index, strided_runs
from flagscope.checkpoint.quantised.formats import unpacked
from flagscope.checkpoint.torch.settings import config_below
from flagscope.checkpoint.wrapper_prefixes import unwrapped_names
from flagscope.errors import InputError

_DISPATCH = "__torch_dispatch__"


def tensor_entries(
    state: Mapping[str, Tensor | DerivedTensor], *, file: str | None = None
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


def place_in_memory(tensor: Tensor) -> Hashable | None:
    """Equal for two tensors of the same elements, whatever the order of their axes.

    Examples
    --------
    >>> import torch
    >>> weight = torch.zeros(3, 2)
    >>> place_in_memory(weight) == place_in_memory(weight.T), place_in_memory(weight[1:])[-1]
    (True, ((1, 4),))
    """
    if not tensor.numel():
        return None
    try:
        start = tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # a wrapper around others has no place of its own
        return None
    if not start:
        return None
    runs = strided_runs(tensor.shape, tensor.stride())
    return str(tensor.device), tensor.dtype, start, runs


class StateDictCheckpoint(Checkpoint):
    """A checkpoint over a mapping from names to tensors; nothing is copied.

    What wrappers of the model put into the names is taken out.

    Parameters
    ----------
    state
        The tensors by name.
    source, config, notes
        As for `Checkpoint`.
    buffers
        Names in `state` of those that are not parameters, where that is known.

    Attributes
    ----------
    given
        Names in `state`, by the names that the tensors have here.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor | DerivedTensor],
        *,
        source: str,
        config: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
        buffers: Iterable[str] | None = None,
    ) -> None:
        self.given, kept = unwrapped_names(state)
        self._state = {name: state[given] for name, given in self.given.items()}
        super().__init__(source, tensor_entries(self._state), config=config, notes=(*notes, *kept))
        self._buffers: frozenset[str] | None = None
        if buffers is not None:
            known = frozenset(buffers)
            self._buffers = frozenset(name for name, given in self.given.items() if given in known)

    @property
    def buffers(self) -> frozenset[str] | None:
        """Names of what a module declares not to be parameters; None for a plain mapping."""
        return self._buffers

    def replace_state(
        self, state: dict[str, Tensor | DerivedTensor]
    ) -> dict[str, Tensor | DerivedTensor]:
        """Put other tensors, or a part of them, behind the same headers; gives those before."""
        before, self._state = self._state, state
        return before

    def _read(self, name: str, index: Index) -> Tensor:
        return self._state[name][index]

    def memory(self, name: str) -> Hashable | None:
        """Where a tensor lies."""
        tensor = self._state[name]
        return None if isinstance(tensor, DerivedTensor) else place_in_memory(tensor)

    def _release(self) -> None:
        self._state = {}


def from_state_dict(
    mapping: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    name: str = "state_dict",
    buffers: Iterable[str] | None = None,
    tensors: str | None = None,
) -> Checkpoint:
    """Checkpoint over a state dict in memory, with the interface of the file readers.

    Parameters
    ----------
    mapping
        Names to tensors, as from `module.state_dict()`. A training checkpoint that holds the
        state dict under `state_dict`, `model`, … is opened up; entries that are not dense
        tensors are passed over and counted in `notes`. Tensors are neither copied nor moved.
        Arrays of NumPy, and others that offer `__array__` or `__dlpack__`, are taken as tensors.
    config
        The model's configuration, for instance `model.config.to_dict()`.
    name
        What to call it: `Checkpoint.source`.
    buffers
        Names of the tensors that are not parameters, where a module says which those are.
    tensors
        Which group of tensors to read, where there are several: the keys that lead to it with dots
        between them, or the start that its names share.

    Raises
    ------
    InputError
        If `mapping` is not a mapping, holds no tensors or several models, or tensors whose values
        cannot be had (on the meta device, not initialised, of a quantiser's own class), or there is
        no group `tensors`.
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
    found = model_state(with_tensors(mapping), source=name, error=InputError, tensors=tensors)
    state, notes = found.state, found.notes
    check_values(state, source=name)
    refuse_empty(
        {key: tuple(tensor.shape) for key, tensor in state.items()}, source=name, path=None
    )
    if tensors is None:
        twins = averaged_twins({key: tuple(tensor.shape) for key, tensor in state.items()})
        passed = {key for twin in twins for key in twin.names}
        state = {key: tensor for key, tensor in state.items() if key not in passed}
        notes = (*notes, *twin_notes(twins))
    settings, _ = config_below(mapping, found.group)
    stored = StateDictCheckpoint(
        state,
        source=name,
        config=settings if config is None else dict(config),
        notes=notes,
        buffers=buffers,
    )
    stored.group, stored.stored_config = found.group, settings
    return whole_weights(unpacked(stored))


def check_values(state: Mapping[str, Any], *, source: str) -> None:
    """Refuse tensors whose values are not simply there.

    Raises
    ------
    InputError
        If a tensor is not initialised, or of a class that computes with something else than its
        elements (quantised, spread over processes).
    """
    for name, tensor in state.items():
        kind = type(tensor)
        if not isinstance(tensor, Tensor):
            continue
        if is_lazy(tensor):
            raise InputError(
                f"{source} holds parameters that have no shape yet (of a lazy module): {name!r}.",
                hint="run the module once on an example, so that its layers are initialised.",
            )
        if tensor.is_nested:
            raise InputError(
                f"{source} holds {name!r}, a nested tensor, which is several of unlike shapes.",
                hint="give each of them a name of its own.",
            )
        if tensor.is_quantized:
            raise InputError(
                f"{source} holds {name!r} quantised by PyTorch ({tensor.dtype}).",
                hint="give it as numbers: tensor.dequantize().",
            )
        if getattr(kind, _DISPATCH, None) != getattr(Tensor, _DISPATCH, None):
            spread = hasattr(tensor, "full_tensor")
            way = (
                "get the whole tensors with full_tensor(), or with get_model_state_dict of "
                "torch.distributed.checkpoint.state_dict (full_state_dict=True)."
                if spread
                else "turn it into a plain tensor first (dequantize()), or scan the model from "
                "before the quantisation."
            )
            raise InputError(
                f"{source} holds {name!r}, a {kind.__name__}, whose elements cannot be read as "
                f"they are{' (it is spread over processes)' if spread else ''}.",
                hint=way,
            )
