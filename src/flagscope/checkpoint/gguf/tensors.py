"""Model tensors of a GGUF file: experts separated, split maps joined."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flagscope.checkpoint.gguf.header import GgufTensor
from flagscope.checkpoint.gguf.names import Change, Naming
from flagscope.errors import CorruptFileError

# More than any model has; a header that lies may say more.
_MOST_EXPERTS = 1 << 16


@dataclass(frozen=True)
class Piece:
    """A tensor of the model: where it lies, in one place or in two, and what happened to it."""

    name: str
    places: tuple[GgufTensor, ...]
    change: Change | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the model."""
        shapes = [place.shape for place in self.places]
        return shapes[0] if self.change is None else self.change.shape(*shapes)


def pieces(
    path: Path, tensors: Sequence[GgufTensor], names: Naming | None, heads: int, kv_heads: int
) -> Iterator[Piece]:
    """The tensors of the model, in the order of the file.

    Parameters
    ----------
    path
        The file, for errors.
    tensors
        As stored.
    names
        Those of the architecture, None if they are not known: all is as stored then.
    heads, kv_heads
        Query and key-value heads of a layer.

    Raises
    ------
    CorruptFileError
        If the shape of a tensor does not fit the metadata.
    """
    halves = {tensor.name: tensor for tensor in tensors} if names and names.latent else {}
    values = {
        half for tensor in tensors
        if names and (half := names.other_half(tensor.name)) in halves
    }  # fmt: skip
    for tensor in tensors:
        if names is None:
            yield Piece(tensor.name, (tensor,), None)
        elif names.stacked(tensor.name):
            yield from _experts(path, tensor, names)
        elif (half := names.other_half(tensor.name)) in halves and half is not None:
            both = (tensor, halves[half])
            _check_halves(path, *both)
            yield Piece(names.name(tensor.name), both, Change("latent", heads))
        elif tensor.name not in values:
            change = names.change(tensor.name, heads, kv_heads)
            if change is not None:
                _check_change(path, tensor, change)
            yield Piece(names.name(tensor.name), (tensor,), change)


def _experts(path: Path, stack: GgufTensor, names: Naming) -> Iterator[Piece]:
    count = stack.shape[0]
    if len(stack.shape) < 2 or not 0 < count <= _MOST_EXPERTS:
        raise CorruptFileError(
            f"{stack.name!r} of {path} has shape {stack.shape}, and should be a stack of experts.",
            hint="convert the model again.",
        )
    each = stack.nbytes // count  # experts are whole rows, and those whole blocks
    for expert in range(count):
        at = stack.offset + expert * each
        place = replace(stack, shape=stack.shape[1:], offset=at, nbytes=each)
        yield Piece(names.name(stack.name, expert), (place,), None)


def _check_halves(path: Path, keys: GgufTensor, values: GgufTensor) -> None:
    three = len(keys.shape) == len(values.shape) == 3
    if not three or (keys.shape[0], keys.shape[1]) != (values.shape[0], values.shape[2]):
        raise CorruptFileError(
            f"{keys.name!r} of {os.fspath(path)} has shape {keys.shape}, to which "
            f"{values.name!r} of shape {values.shape} does not belong.",
            hint="convert the model again.",
        )


def _check_change(path: Path, tensor: GgufTensor, change: Change) -> None:
    parts = {"rotary": 2 * change.heads, "thirds": 3 * change.heads}.get(change.kind, 1)
    if tensor.shape[0] % parts:
        raise CorruptFileError(
            f"{tensor.name!r} of {path} has {tensor.shape[0]} rows, which {change.heads} heads do "
            "not divide.",
            hint="its metadata belong to another model; convert it again.",
        )
