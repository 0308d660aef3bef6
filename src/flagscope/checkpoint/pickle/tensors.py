"""The calls by which PyTorch pickles tensors, and what they stand for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from flagscope.checkpoint.pickle.machine import Meaning
from flagscope.checkpoint.pickle.records import Global, PickleError, StandIn
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor, stored_tensor, without_values

# Names of PyTorch's classes of storages, and the types of their elements.
_STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt2x4Storage": torch.quint2x4,
}
_UNTYPED = ("UntypedStorage", "_UntypedStorage")
_MODULES = ("torch", "torch.cuda", "torch.storage")


def storage_dtype(what: Any) -> torch.dtype | None:
    """Type of the elements of a class of storages; None for the class without a type.

    Raises
    ------
    PickleError
        If it is not a class of storages.
    """
    if isinstance(what, Global) and what.module in _MODULES:
        if what.name in _STORAGE_TYPES:
            return _STORAGE_TYPES[what.name]
        if what.name in _UNTYPED:
            return None
    raise PickleError("a tensor lies in a storage of no known type")


def describes_tensors(name: str) -> bool:
    """Whether a name in a pickle is one by which PyTorch describes tensors."""
    if name in TENSOR_MEANINGS:
        return True
    module, _, attribute = name.rpartition(".")
    plain = isinstance(getattr(torch, attribute, None), (torch.dtype, torch.layout))
    return module.partition(".")[0] == "torch" and (plain or attribute.endswith("Storage"))


def known_dtype(what: Any) -> torch.dtype | None:
    """The data type that a name in a pickle means, None if it means none that PyTorch has."""
    if isinstance(what, Global) and what.module == "torch" and what.name.isidentifier():
        dtype = getattr(torch, what.name, None)
        return dtype if isinstance(dtype, torch.dtype) else None
    return None


def named_dtype(what: Any) -> torch.dtype:
    """The data type that a name in a pickle means.

    Raises
    ------
    PickleError
        If it is none, or one that the installed PyTorch does not have.
    """
    dtype = known_dtype(what)
    if dtype is None:
        raise PickleError("a tensor has no known data type")
    return dtype


def old_tensor(value: Any) -> StoredTensor | None:
    """The tensor that an object stands for whose class was a type of tensors, before PyTorch 0.4.

    Its state is storage, offset, size and strides.
    """
    if not isinstance(value, StandIn) or not isinstance(value.what, Global):
        return None
    if value.what.module not in _MODULES or not value.what.name.endswith("Tensor"):
        return None
    if not isinstance(value.state, tuple) or len(value.state) != 4:
        return None
    return stored_tensor(*value.state)


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    """storage, offset, size, strides; from version 2 on then requires_grad, hooks, metadata."""
    tensor = stored_tensor(*arguments[:4])
    return _with_metadata(tensor, arguments[6] if len(arguments) > 6 else None)


def _typed_tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    tensor = stored_tensor(*arguments[:4], dtype=named_dtype(arguments[6]))
    return _with_metadata(tensor, arguments[7] if len(arguments) > 7 else None)


def _quantised(arguments: tuple[Any, ...]) -> StoredTensor:
    return stored_tensor(*arguments[:4])


def _without_values(arguments: tuple[Any, ...]) -> StoredTensor:
    return without_values(named_dtype(arguments[0]), arguments[1])


def _first(arguments: tuple[Any, ...]) -> Any:
    """Tensor inside a wrapper that changes no value: a parameter, a copy for another device."""
    return arguments[0] if isinstance(arguments[0], StoredTensor) else NotImplemented


def _of_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor of a class of its own: the function that makes the plain one, class, arguments."""
    function, inner = arguments[0], arguments[2]
    meaning = TENSOR_MEANINGS.get(str(function)) if isinstance(function, Global) else None
    if meaning is None or meaning is _of_type_meaning:
        return NotImplemented
    made = meaning(inner)
    return made if isinstance(made, StoredTensor) else NotImplemented


def _mapping(arguments: tuple[Any, ...]) -> Any:
    """A dict: empty, its items follow; or another one, which is not copied.

    What is made of a list of pairs stays as it is. Copies of one list, made by some bytes each,
    could fill any memory.
    """
    if not arguments:
        return {}
    return arguments[0] if isinstance(arguments[0], dict) else NotImplemented


def _default(arguments: tuple[Any, ...]) -> Any:
    return _mapping(arguments[1:])


def _sequence(arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        return []
    return arguments[0] if isinstance(arguments[0], (list, tuple)) else NotImplemented


def _with_metadata(tensor: StoredTensor, metadata: Any) -> StoredTensor:
    if not isinstance(metadata, dict) or not metadata:
        return tensor
    return StoredTensor(
        tensor.storage,
        tensor.dtype,
        tensor.shape,
        tensor.stride,
        tensor.offset,
        conjugated=metadata.get("conj") is True and tensor.dtype.is_complex,
        negated=metadata.get("neg") is True and tensor.dtype is not torch.bool,
    )


def _checked(meaning: Callable[[tuple[Any, ...]], Any]) -> Meaning:
    """A meaning that answers arguments of another number or kind with PickleError."""

    @functools.wraps(meaning)
    def checked(arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise PickleError("a call has no list of arguments")
        try:
            return meaning(arguments)
        except (IndexError, TypeError) as error:
            raise PickleError("the arguments of a tensor are not those of PyTorch") from error

    return checked


_of_type_meaning = _checked(_of_type)

TENSOR_MEANINGS: dict[str, Meaning] = {
    "torch._utils._rebuild_tensor": _checked(_tensor),
    "torch._utils._rebuild_tensor_v2": _checked(_tensor),
    "torch._utils._rebuild_tensor_v3": _checked(_typed_tensor),
    "torch._utils._rebuild_qtensor": _checked(_quantised),
    "torch._utils._rebuild_meta_tensor_no_storage": _checked(_without_values),
    "torch._utils._rebuild_parameter": _checked(_first),
    "torch._utils._rebuild_parameter_with_state": _checked(_first),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _checked(_first),
    "torch.nn.parameter.Parameter": _checked(_first),
    "torch.nn.parameter.Buffer": _checked(_first),
    "torch._tensor._rebuild_from_type": _of_type_meaning,
    "torch._tensor._rebuild_from_type_v2": _of_type_meaning,
    "torch.tensor._rebuild_from_type": _of_type_meaning,
    "collections.OrderedDict": _checked(_mapping),
    "collections.Counter": _checked(_mapping),
    "collections.defaultdict": _checked(_default),
    "builtins.dict": _checked(_mapping),
    "builtins.list": _checked(_sequence),
    "builtins.set": _checked(_sequence),
    "builtins.frozenset": _checked(_sequence),
    "__builtin__.set": _checked(_sequence),
    "__builtin__.frozenset": _checked(_sequence),
    "torch.Size": _checked(_sequence),
}
"""Functions that a pickle may name and their replacements; see `unpickled`."""
