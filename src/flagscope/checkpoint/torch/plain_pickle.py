"""Plain pickles: of state dicts, of modules, of NumPy arrays; read as those of torch.save are."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from flagscope.checkpoint.files.window import Window
from flagscope.checkpoint.pickle.arrays import held_bytes
from flagscope.checkpoint.pickle.machine import unpickled
from flagscope.checkpoint.pickle.records import Global, PickleError
from flagscope.checkpoint.pickle.stored_tensor import Storage
from flagscope.checkpoint.pickle.tensors import TENSOR_MEANINGS
from flagscope.checkpoint.torch.legacy import is_legacy, legacy_saved

_BYTES_OF_STORAGE = "torch.storage._load_from_bytes"


def pickle_saved(file: BinaryIO, size: int, names: set[Global]) -> Any:
    """Object of a plain pickle. It is read whole: it holds the numbers itself.

    Parameters
    ----------
    file
        The file, open.
    size
        Its size.
    names
        Gets the functions and classes that are named.

    Raises
    ------
    PickleError
        If it is not whole.
    """
    inner: dict[int, tuple[Any, Storage]] = {}

    def storage(arguments: Any) -> Any:
        """The storage that torch.save wrote, in its older format, into some bytes."""
        if not isinstance(arguments, tuple) or len(arguments) != 1:
            raise PickleError("a storage is not made of its bytes")
        told = held_bytes(arguments[0])
        if id(told) not in inner:  # each once, however often it is named
            try:
                data = told.encode("latin-1") if isinstance(told, str) else told
            except UnicodeEncodeError:
                return NotImplemented
            if not isinstance(data, bytes) or not is_legacy(data[:64]):
                return NotImplemented
            made = legacy_saved(io.BytesIO(data), 0, len(data), names)
            if not isinstance(made, Storage):
                raise PickleError("a storage is not made of its bytes")
            made.data = data
            inner[id(told)] = told, made
        return inner[id(told)][1]

    return unpickled(
        Window(file, 0, size),
        meanings={**TENSOR_MEANINGS, _BYTES_OF_STORAGE: storage},
        persistent=_refused,
        names=names,
    )


def _refused(_: Any) -> Any:
    raise PickleError("it refers to objects outside of it")
