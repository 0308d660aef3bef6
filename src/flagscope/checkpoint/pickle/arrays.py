"""NumPy arrays and numbers as they are pickled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.pickle.records import Global, StandIn
from flagscope.errors import CorruptFileError

_DTYPES = {
    "b1": torch.bool,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "c8": torch.complex64,
    "c16": torch.complex128,
}
_MOST_AXES = 64


@dataclass(frozen=True, slots=True, eq=False)
class HeldArray:
    """An array whose bytes a pickle holds itself, so that they are in memory with it.

    Attributes
    ----------
    dtype, shape
        As PyTorch has them.
    data
        The bytes; as text of as many characters where protocol 2 wrote them.
    kind
        The data type as NumPy writes it, with the order of the bytes.
    fortran
        Whether the first axis is the one whose neighbours lie next to each other.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    data: bytes | bytearray | str
    kind: str
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, placed: PlacedBytes, index: Index) -> Shaped[Tensor, "*shape"]:  # noqa: ARG002
        """The part that a resolved index selects.

        Raises
        ------
        CorruptFileError
            If a text stands for bytes that has other characters.
        """
        try:
            data = self.data.encode("latin-1") if isinstance(self.data, str) else self.data
        except UnicodeEncodeError as error:
            raise CorruptFileError(
                "an array's bytes are written as a text of other characters.", hint=DAMAGED
            ) from error
        order = "F" if self.fortran else "C"
        part = np.frombuffer(data, self.kind).reshape(self.shape, order=order)[index]
        # A copy of the part alone, in this machine's order; ascontiguousarray adds an axis to ().
        plain = np.array(part, dtype=part.dtype.newbyteorder("="), order="C")
        return torch.from_numpy(plain)


def held_array(value: Any) -> HeldArray | None:
    """The array that a stand-in stands for, None if for none or one of another kind of numbers.

    Up to protocol 4 it is an empty array, and its state shape, type, order and bytes; in protocol
    5 it is made of its bytes.
    """
    if not isinstance(value, StandIn) or not isinstance(value.what, Global):
        return None
    if value.what.module.partition(".")[0] != "numpy":
        return None
    if value.what.name == "_reconstruct" and isinstance(value.state, tuple):
        if len(value.state) != 5:
            return None
        _, shape, kind, fortran, data = value.state
    elif value.what.name == "_frombuffer" and isinstance(value.arguments, tuple):
        if len(value.arguments) != 4:
            return None
        data, kind, shape, order = value.arguments
        fortran = order == "F"
    else:
        return None
    told, data = _kind(kind), held_bytes(data)
    if told is None or data is None or not isinstance(shape, tuple) or len(shape) > _MOST_AXES:
        return None
    if not all(isinstance(size, int) and 0 <= size < 2**63 for size in shape):
        return None
    array = HeldArray(_DTYPES[told[1:]], shape, data, told, fortran is True)
    return array if len(data) == array.nbytes else None


def numpy_number(value: StandIn) -> int | float | bool | None:
    """The number of a NumPy scalar as it is pickled: its type and its bytes.

    Examples
    --------
    >>> kind = StandIn(Global("numpy", "dtype"), ("f4", False, True))
    >>> numpy_number(StandIn(Global("numpy.core.multiarray", "scalar"), (kind, b"\\0\\0\\x80?")))
    1.0
    """
    name, arguments = value.name, value.arguments
    if not name.startswith("numpy.") or not name.endswith("multiarray.scalar"):
        return None
    if not isinstance(arguments, tuple) or len(arguments) != 2:
        return None
    told, data = _kind(arguments[0]), held_bytes(arguments[1])
    if told is None or told[1] == "c" or data is None or len(data) != int(told[2:]):
        return None
    try:
        data = data.encode("latin-1") if isinstance(data, str) else data
    except UnicodeEncodeError:
        return None
    number = np.frombuffer(data, told)[0].item()
    return number if math.isfinite(number) else None


def _kind(value: Any) -> str | None:
    """The data type as NumPy writes it, None for one of no numbers."""
    if not isinstance(value, StandIn) or value.name != "numpy.dtype":
        return None
    code = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    if not isinstance(code, str) or code not in _DTYPES:
        return None
    state = value.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    return (">" if order == ">" else "<") + code


def held_bytes(value: Any) -> bytes | bytearray | str | None:
    """Bytes, which protocol 2 writes as a text that is to be encoded; None for anything else."""
    if isinstance(value, StandIn) and isinstance(value.arguments, tuple):
        if value.name == "_codecs.encode" and value.arguments:
            value = value.arguments[0]
        elif value.name in ("builtins.bytes", "__builtin__.bytes") and not value.arguments:
            return b""
    if isinstance(value, str):
        return value  # whether its characters are bytes is seen when they are asked for
    return value if isinstance(value, (bytes, bytearray)) else None
