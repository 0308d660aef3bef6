"""The data types a stored tensor may have, by PyTorch's names."""

from __future__ import annotations

import torch

from flagscope.errors import UnknownDtypeError

_NAMES = (
    *("float64", "float32", "float16", "bfloat16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    *("complex128", "complex64"),
)

# A PyTorch older than a type simply lacks it; a tensor of that type is then listed, not read.
_BY_NAME: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in _NAMES if hasattr(torch, name)
}


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a data type without the `torch.` in front."""
    return str(dtype).removeprefix("torch.")


def torch_dtype(name: str) -> torch.dtype | None:
    """PyTorch data type of a name; None where a stored tensor cannot have it."""
    return _BY_NAME.get(name)


def stored_dtype(name: str, *, tensor: str) -> torch.dtype:
    """PyTorch data type that a stored tensor has.

    Parameters
    ----------
    name
        The type's name, as in `TensorInfo.dtype`.
    tensor
        The tensor's name, for the message.

    Raises
    ------
    UnknownDtypeError
        If elements of this type cannot be read one by one: packed types below a byte, types of a
        quantiser, or types that the installed PyTorch does not have.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UnknownDtypeError(
            f"tensor {tensor!r} is stored as {name}, which cannot be read exactly.",
            hint="dequantise the checkpoint to float32, float16, bfloat16 or float8 first.",
        ) from None
