"""Arrays of other libraries in a mapping, taken as tensors without a copy where that can be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint.dtypes import torch_dtype

_DEEPEST = 4


def with_tensors(mapping: Mapping[Any, Any], depth: int = _DEEPEST) -> Mapping[Any, Any]:
    """The mapping, its arrays given as tensors; the same one where there are none.

    Parameters
    ----------
    mapping
        Values may be NumPy arrays (ml_dtypes' bfloat16 and float8 among them), or arrays that
        offer `__array__` or `__dlpack__`, such as JAX's. Mappings in it are looked into.
    depth
        How far down.

    Examples
    --------
    >>> with_tensors({"weight": np.ones((1, 2), dtype=np.float32), "epoch": 3})
    {'weight': tensor([[1., 1.]]), 'epoch': 3}
    """
    changed: dict[Any, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            inner = with_tensors(value, depth - 1) if depth > 1 else value
            if inner is not value:
                changed[key] = inner
        elif not isinstance(value, Tensor):
            tensor = _as_tensor(value)
            if tensor is not None:
                changed[key] = tensor
    return {key: changed.get(key, value) for key, value in mapping.items()} if changed else mapping


def _as_tensor(value: Any) -> Tensor | None:
    """An array as a tensor; None for what is none, or of no type that a tensor has."""
    if isinstance(value, np.ndarray):
        return _from_numpy(value)
    # Scalars of NumPy are numbers of a training run (a loss, a step), no weights.
    if isinstance(value, (np.generic, type)):
        return None
    try:
        if not hasattr(value, "shape"):
            return None
        if hasattr(value, "__array__"):
            return _from_numpy(np.asarray(value))
        if hasattr(value, "__dlpack__"):
            return torch.from_dlpack(value)
    except Exception:  # whatever another library raises: no array that can be had
        return None
    return None


def _from_numpy(array: np.ndarray[Any, Any]) -> Tensor | None:
    dtype = torch_dtype(array.dtype.name)
    if dtype is None:
        return None
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(step < 0 or step % native.itemsize for step in native.strides):
        native = native.copy()
    if native.dtype.isbuiltin != 1:  # a type that NumPy itself does not know: the bits are taken
        bits = native.view(f"u{native.itemsize}")
        return _shared(bits).view(dtype)
    return _shared(native)


def _shared(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():
        # An array that may not be written to: weights are only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
