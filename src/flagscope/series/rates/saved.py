"""Objects saved next to checkpoints (arguments, optimisers), read as plain values and never run."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.pickle.arrays import numpy_number
from flagscope.checkpoint.pickle.records import Global, PickleError, StandIn
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor
from flagscope.checkpoint.torch.contents import torch_contents
from flagscope.errors import CorruptFileError, UnsafeFileError

_LONGEST = 1000  # letters of a text that is a setting


def saved_object(path: str | os.PathLike[str]) -> tuple[Any, PlacedBytes]:
    """The object that a file of torch.save, or a bare pickle, describes; and the file.

    Its instructions are walked, and nothing that it names is imported or called.

    Raises
    ------
    UnsafeFileError
        If it names what reaches the system: no file of settings needs that.
    MissingFileError, CorruptFileError, SourceError
        If it is not there, damaged or of another format.
    """
    placed, names = PlacedBytes(Path(path)), set[Global]()
    try:
        saved = torch_contents(placed, names).saved
    except PickleError as error:
        _refuse(names, path)
        raise CorruptFileError(f"{path} is not a whole pickle: {error}.", hint=DAMAGED) from error
    _refuse(names, path)
    return saved, placed


def _refuse(names: set[Global], path: str | os.PathLike[str]) -> None:
    for name in sorted(names, key=str):
        if name.reaches_the_system:
            raise UnsafeFileError(
                f"{path} asks for {str(name)[:100]!r}, which no settings need; nothing was run.",
                hint="do not use this file unless you know where it comes from.",
            )


def plain(value: Any) -> Any:
    """A number, text or list of them; the value of an enumeration; None for anything else."""
    if isinstance(value, (bool, str)) or value is None:
        return value if not isinstance(value, str) or len(value) <= _LONGEST else None
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, StandIn):
        number = numpy_number(value)
        if number is not None:
            return number
        # An enumeration's member is pickled as its class, called with its value.
        if isinstance(value.arguments, tuple) and len(value.arguments) == 1 and not value.state:
            inner = value.arguments[0]
            return plain(inner) if isinstance(inner, (str, int, float)) else None
    return None


def number(value: Any, placed: PlacedBytes, what: str) -> float | None:
    """A setting that is a finite number, also one kept as a tensor; None if there is none.

    Raises
    ------
    CorruptFileError
        If it is something else.
    """
    if value is None:
        return None
    if isinstance(value, StoredTensor) and value.shape == () and value.storage is not None:
        value = value.read(placed, ()).item()
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CorruptFileError(f"{what} is not a number.", hint=DAMAGED)
    return float(value)
