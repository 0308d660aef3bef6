"""Reader of files that torch.save and torch.jit.save wrote. Nothing in them is ever run."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.dtypes import dtype_name
from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.groups.model_state import model_state
from flagscope.checkpoint.indexing import Index, strided_runs
from flagscope.checkpoint.pickle.arrays import HeldArray
from flagscope.checkpoint.pickle.records import Global, PickleError
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor
from flagscope.checkpoint.pickle.tensors import describes_tensors
from flagscope.checkpoint.torch.contents import torch_contents
from flagscope.checkpoint.torch.settings import config_below
from flagscope.errors import CorruptFileError, SourceError, UnsafeFileError
from flagscope.shortening import listed

SAFE_HINT = (
    "have its owner save the weights alone, torch.save(model.state_dict(), FILE) or safetensors."
)
# A tensor larger than its file can only be one that repeats its elements. Small ones (masks) are
# genuine; a large one is a trap for memory.
_EXPANDED_BYTES = 64 * 2**20
_LISTED = 6
_listed = partial(listed, most=_LISTED, letters=80)


class TorchFile(FileCheckpoint):
    """One file that torch.save wrote, in either of its formats, or torch.jit.save, or pickle.

    Its pickle is read as a description: tensors come from where it says that they lie, and every
    class and function that it names stays a name. So a training checkpoint gives its state dict
    whatever else it holds, and a whole module, pickled or scripted, its `state_dict()`.

    Parameters
    ----------
    path
        The file. A zip file with such files in it (Stable-Baselines3) is read as one with a group
        for each.
    config
        The model's configuration; in its place, settings that the file holds itself.
    tensors
        The group of tensors to read, where the file holds several; see `model_state`.

    Raises
    ------
    UnsafeFileError
        If tensors could only be had by running pickled code.
    CorruptFileError
        If it is of another format, or holds no tensors.
    SourceError
        If it holds several groups of tensors, and none is known to be the model.
    InputError
        If there is no group `tensors`.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str | None = None,
        config: dict[str, Any] | None = None,
        tensors: str | None = None,
    ) -> None:
        shown = os.fspath(path)
        names: set[Global] = set()
        self._bytes = PlacedBytes(path)
        try:
            contents = torch_contents(self._bytes, names)
        except PickleError as error:
            raise CorruptFileError(
                f"{path} is not a whole PyTorch file: {str(error).rstrip('.')}.", hint=DAMAGED
            ) from error
        except MemoryError as error:
            raise SourceError(
                f"the pickle in {path} does not fit into memory.",
                hint="save the state dict alone, or as safetensors.",
            ) from error
        unknown = sorted(map(str, (name for name in names if name.reaches_the_system)))
        if not isinstance(contents.opened, Mapping):
            raise _without_names(path, contents.kind, names)
        if not contents.opened and contents.frozen:
            raise CorruptFileError(
                f"{path} is a frozen TorchScript program, whose weights are constants without "
                "names.",
                hint="save the program before torch.jit.freeze, or the state dict of its module.",
            )
        try:
            found = model_state(
                contents.opened, source=shown, error=CorruptFileError, tensors=tensors
            )
        except CorruptFileError as error:
            if not unknown and not contents.opaque:
                raise
            raise _without_names(path, contents.kind, names) from error
        self._state: dict[str, StoredTensor | HeldArray] = found.state
        stored, keys = config_below(contents.saved, found.group)
        notes = [*contents.notes, *found.notes]
        if unknown:
            notes.append(
                f"{shown} names {_listed(unknown)}, which loading it elsewhere may run; nothing "
                "of it was run here"
            )
        if stored is not None and config is None:
            notes.append(f"settings are taken from the file itself: {_listed(keys)}")
        super().__init__(
            path,
            _entries(self._bytes, self._state),
            files=[self._bytes],
            source=source,
            config=stored if config is None else config,
            notes=notes,
        )
        self.group, self.stored_config = found.group, stored
        self._given = (config, tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        config, tensors = self._given
        opening = functools.partial(type(self), source=self._source, config=config, tensors=tensors)
        return opening, (self._path,)

    def _read(self, name: str, index: Index) -> Tensor:
        with self._reading(name):
            return self._state[name].read(self._bytes, index)

    def memory(self, name: str) -> Hashable | None:
        """Position of a tensor's elements in the file: the same for tied weights."""
        tensor = self._state[name]
        if not isinstance(tensor, StoredTensor) or tensor.storage is None or not tensor.nbytes:
            return None
        runs = strided_runs(tensor.shape, tensor.stride)
        return id(tensor.storage), tensor.dtype, tensor.offset, runs

    def _release(self) -> None:
        self._state = {}


def _entries(
    placed: PlacedBytes, state: Mapping[str, StoredTensor | HeldArray]
) -> dict[str, TensorInfo]:
    limit = max(placed.size, _EXPANDED_BYTES)
    shown = os.fspath(placed.path)
    for name, tensor in state.items():
        if tensor.nbytes > limit:
            raise CorruptFileError(
                f"tensor {name[:100]!r} of {shown} claims {tensor.nbytes} bytes, more than its "
                "file.",
                hint="do not use this checkpoint unless you know where it comes from.",
            )
    return {
        name: TensorInfo(name, tensor.shape, dtype_name(tensor.dtype), tensor.nbytes, shown)
        for name, tensor in state.items()
    }


def _without_names(path: Path, kind: str, names: set[Global]) -> SourceError:
    """The error of a file without tensors by name: is it that code would have to make them?"""
    unknown = sorted(
        {
            str(name)
            for name in names
            if not (describes_tensors(str(name)) or name.module.startswith("__torch__"))
        }
    )
    if unknown:
        return UnsafeFileError(
            f"{path} holds {kind}, and no tensors that can be had without running the code of "
            f"{_listed(unknown)}; nothing of it was run.",
            hint=SAFE_HINT,
        )
    return CorruptFileError(
        f"{path} holds {kind}, not tensors by name.",
        hint="save a state dict: torch.save(model.state_dict(), FILE).",
    )
