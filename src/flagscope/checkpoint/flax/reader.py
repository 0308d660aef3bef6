"""Reader of Flax's msgpack files, under the names that PyTorch has for the same layers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.dtypes import stored_dtype
from flagscope.checkpoint.files.checks import DAMAGED, checked_start
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.flax.header import FlaxArray, FlaxError, Tree, flax_tree
from flagscope.checkpoint.indexing import Index, covering_span, read_turned
from flagscope.errors import CorruptFileError
from flagscope.wiring import WiredAttention, WiredMap, Wiring

# Flax's names of variables, and PyTorch's.
_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean",
          "var": "running_var"}  # fmt: skip
# From (space …, in, out) to (out, in, space …). A kernel of three axes is turned whole, as
# transformers does, which for a convolution along one axis is the same.
_ORDERS = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}
_WEIGHTS = ("params", "batch_stats")
# What training states call the model inside them.
_MODELS = ("target", "model", "state", "params")
# flax.linen.MultiHeadDotProductAttention.
_ATTENTION = ("query", "key", "value", "out")
_LISTED = 4


class FlaxFile(FileCheckpoint):
    """One .msgpack file that flax.serialization wrote.

    Kernels come turned to (outputs, inputs), as `weight`, and so on for the other names: the rule
    by which transformers loads Flax models in PyTorch. A slice of leading rows of the stored array
    costs its own bytes alone.

    Raises
    ------
    CorruptFileError
        If it is not a msgpack file of arrays.

    References
    ----------
    transformers, `load_flax_weights_in_pytorch_model` in modeling_flax_pytorch_utils.py.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        checked_start(path)
        self._bytes = PlacedBytes(path)
        try:
            with self._bytes.opened() as file:
                tree = flax_tree(file, self._bytes.size)
        except (FlaxError, OSError) as error:
            raise CorruptFileError(
                f"{path} is not a whole Flax msgpack file: {error}.", hint=DAMAGED
            ) from error
        found, notes = _parameters(tree)
        heads = _attention(found)
        self._arrays: dict[str, tuple[FlaxArray, tuple[int, ...] | None]] = {}
        entries = {}
        for parts, array in found.items():
            name = ".".join([*parts[:-1], _NAMES.get(parts[-1], parts[-1])])
            if name in entries:
                raise CorruptFileError(
                    f"{path} has two arrays named {name!r} by PyTorch's names.", hint=DAMAGED
                )
            turned = parts[-1] == "kernel" and parts[:-1] not in heads
            order = _ORDERS.get(len(array.shape)) if turned else None
            shape = tuple(array.shape[axis] for axis in order) if order else array.shape
            self._arrays[name] = array, order
            entries[name] = TensorInfo(name, shape, array.dtype, array.nbytes, os.fspath(path))
        super().__init__(
            path, entries, files=[self._bytes], source=source, config=config, notes=notes
        )
        blocks = {parts[:-1] for parts in heads}
        if blocks:
            self.wiring = _wired(sorted(blocks), entries)

    def _read(self, name: str, index: Index) -> Tensor:
        array, order = self._arrays[name]
        if order is None:
            return self._slice(name, array, index)
        return read_turned(lambda part: self._slice(name, array, part), index, order)

    def _slice(self, name: str, array: FlaxArray, index: Index) -> Tensor:
        dtype = stored_dtype(array.dtype, tensor=name)
        resolved = tuple(
            slice(*entry.indices(size)[:2]) if isinstance(entry, slice) else entry
            for entry, size in zip(index, array.shape, strict=True)
        )
        start, stop, block, rest = covering_span(resolved, array.shape)
        size = dtype.itemsize
        with self._reading(name):
            parts = list(self._runs(array, start * size, stop * size))
        whole = parts[0] if len(parts) == 1 else torch.cat([torch.empty(0).byte(), *parts])
        return whole.view(dtype).reshape(block)[rest]

    def _runs(self, array: FlaxArray, start: int, stop: int) -> Iterator[Tensor]:
        """Bytes start … stop of an array, from each of its chunks."""
        before = 0
        for begin, end in array.runs:
            length = end - begin
            first, last = max(start - before, 0), min(stop - before, length)
            if first < last:
                yield self._bytes.read(begin + first, begin + last)
            before += length


def _parameters(tree: Tree) -> tuple[dict[tuple[str, ...], FlaxArray], list[str]]:
    """The arrays of the model in a file, and notes on what else there is."""
    notes = []
    left: list[str] = []
    while not any(key in tree for key in _WEIGHTS):
        inner = next((tree[key] for key in _MODELS if isinstance(tree.get(key), dict)), None)
        if not isinstance(inner, dict) or not any(key in inner for key in (*_WEIGHTS, *_MODELS)):
            break
        left += [key for key, value in tree.items() if value is not inner]
        tree = inner
    branches: list[Tree] = [tree]
    if any(isinstance(tree.get(key), dict) for key in _WEIGHTS):
        left += [key for key in tree if key not in _WEIGHTS]
        branches = [one for key in _WEIGHTS if isinstance(one := tree.get(key), dict)]
        if len(branches[0]) == 1 and isinstance(inner := branches[0].get("params"), dict):
            branches[0] = inner
    if left:
        notes.append(f"left out what is beside the parameters: {', '.join(left[:_LISTED])}")
    found: dict[tuple[str, ...], FlaxArray] = {}
    for branch in branches:
        found.update(_leaves(branch, ()))
    return found, notes


def _leaves(tree: Tree, base: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FlaxArray]]:
    for key, value in tree.items():
        if isinstance(value, FlaxArray):
            yield (*base, key), value
        elif isinstance(value, dict):
            yield from _leaves(value, (*base, key))


def _attention(found: dict[tuple[str, ...], FlaxArray]) -> set[tuple[str, ...]]:
    """Modules whose kernels have an axis of heads: (d, h, k), and (h, k, d) for the output."""
    blocks = set()
    for parts in found:
        if parts[-2:] != ("query", "kernel"):
            continue
        kernels = [found.get((*parts[:-2], part, "kernel")) for part in _ATTENTION]
        shapes = [one.shape for one in kernels if one is not None and len(one.shape) == 3]
        if len(shapes) == len(_ATTENTION):
            (_, *query), (_, *key), (_, *value), (*out, _) = shapes
            if query == key and value == out and query[0] == value[0]:
                blocks |= {(*parts[:-2], part) for part in _ATTENTION}
    return blocks


def _wired(blocks: list[tuple[str, ...]], tensors: dict[str, TensorInfo]) -> Wiring:
    attention = []
    for block in blocks:
        maps = []
        for part, role in zip(_ATTENTION, "qkvo", strict=True):
            module = ".".join([*block, part])
            bias = f"{module}.bias" if part != "out" and f"{module}.bias" in tensors else None
            layout = "h i o" if part == "out" else "i h o"
            maps.append(WiredMap(f"{module}.weight", layout, module, role, bias))
        # By their names alone it is not known what else acts on queries and keys, next to the maps.
        attention.append(WiredAttention(".".join(block), *maps, cross=False, free=False))
    return Wiring(attention=tuple(attention))
