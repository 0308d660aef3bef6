"""Reader of ONNX models: the constants of the graph, under the names that their model had."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.files.checks import DAMAGED, checked_start, is_there
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.onnx.constants import Constants
from flagscope.checkpoint.onnx.names import original_names, turned_parameters
from flagscope.checkpoint.onnx.rules import RULES
from flagscope.checkpoint.onnx.wiring import onnx_wiring
from flagscope.errors import CorruptFileError, MissingExtraError, MissingFileError

# PyTorch's names of ONNX's element types.
_DTYPES = {
    "FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BFLOAT16": "bfloat16",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "BOOL": "bool",
    "FLOAT8E4M3FN": "float8_e4m3fn", "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2", "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_EXTERNAL = 1
_MOST_AXES = 64  # what PyTorch allows


class OnnxFile(FileCheckpoint):
    """One .onnx file; data kept in files next to it are read a tensor at a time.

    Exporters fold the transpose of a linear layer into its weight and name it anew. Where the
    graph says whose it is, it comes under the module's name as (outputs, inputs).

    Raises
    ------
    MissingExtraError
        If the onnx package is not installed.
    MissingFileError
        If a file with its data is not there.
    CorruptFileError
        If it keeps data outside its folder.

    References
    ----------
    The ONNX specification, onnx/onnx, docs/IR.md and docs/ExternalData.md.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        checked_start(path)
        onnx = _package()
        placed = PlacedBytes(path)
        graph = _graph(placed, onnx)
        self._files = {os.fspath(path): placed}
        self._outside: dict[str, tuple[PlacedBytes, int]] = {}
        self._protos: dict[str, Any] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, proto in _constants(graph):
            if not isinstance(name, str):  # the package returns names that are not UTF-8 as bytes
                raise CorruptFileError(f"a name in {path} is no UTF-8.", hint=DAMAGED)
            if name in self._protos:
                raise CorruptFileError(
                    f"{path} has two constants named {name!r}.", hint="export the model again."
                )
            self._protos[name] = proto
            shapes[name] = _shape(path, name, proto)
        found = original_names(graph, shapes)
        self._turned = {one.name for one in found.values() if one.transposed}
        self._names = {one.name: stored for stored, one in found.items()}
        listed = {stored: (one.name, one.transposed) for stored, one in found.items()}
        wiring = onnx_wiring(graph, Constants(graph, self._protos, shapes), listed, RULES)
        # Some exporters write biases as (1, n).
        vectors = wiring.vectors()
        entries = {}
        for stored, proto in self._protos.items():
            name = found[stored].name if stored in found else stored
            shape = shapes[stored][::-1] if name in self._turned else shapes[stored]
            if name in vectors:
                shape = (prod(shape),)
            entries[name] = self._entry(path, name, proto, shape)
        notes = []
        if found:
            notes.append(f"named after the graph: {len(found)} weights that the exporter renamed")
        kept = turned_parameters(graph, shapes)
        if kept:
            notes.append(
                f"{len(kept)} weights keep a parameter's name and are multiplied as (in, out); "
                f"they are listed as stored, such as {kept[0]}"
            )
        super().__init__(
            path,
            entries,
            files=self._files.values(),
            source=source,
            config=config,
            notes=notes,
        )
        self.wiring = wiring

    def _entry(self, path: Path, name: str, proto: Any, shape: tuple[int, ...]) -> TensorInfo:
        kind = _kind(proto)
        dtype = _DTYPES.get(kind, kind)
        size = _size(dtype)
        nbytes = prod(shape) * size
        file = path
        if proto.data_location == _EXTERNAL:
            file, offset, length = _place(path, name, proto)
            outside = self._files.setdefault(os.fspath(file), PlacedBytes(file))
            self._outside[name] = outside, offset
            if size and length not in (None, nbytes):
                raise _wrong_size(path, name)
            if offset + max(nbytes, length or 0) > outside.size:  # a length need not be given
                raise _beyond(path, name, file.name)
        elif size and proto.HasField("raw_data") and len(proto.raw_data) != nbytes:
            raise _wrong_size(path, name)
        return TensorInfo(name, shape, dtype, nbytes, os.fspath(file))

    def _read(self, name: str, index: Index) -> Tensor:
        proto = self._protos[self._names.get(name, name)]
        info = self._tensors[name]
        turned = name in self._turned
        shape = info.shape[::-1] if turned else info.shape
        whole = self._whole(name, proto, info, shape)
        return (whole.T if turned else whole)[index]

    def _whole(self, name: str, proto: Any, info: TensorInfo, shape: tuple[int, ...]) -> Tensor:
        dtype = getattr(torch, info.dtype)
        if proto.data_location == _EXTERNAL:
            file, offset = self._outside[name]
            with self._reading(name):
                part = file.read(offset, offset + info.nbytes)
            return part.view(dtype).reshape(shape)
        if proto.HasField("raw_data"):
            raw = proto.raw_data
        else:
            return self._typed(name, proto, shape).to(dtype)
        if not raw:
            return torch.zeros(shape, dtype=dtype)
        return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)

    def _typed(self, name: str, proto: Any, shape: tuple[int, ...]) -> Tensor:
        """Data in the fields of their own type, as small constants have them."""
        with self._reading(name, (ValueError, TypeError, RuntimeError)):
            array = _package().numpy_helper.to_array(proto)
            return torch.from_numpy(np.array(array, dtype=_numpy_type(array.dtype))).reshape(shape)

    def _release(self) -> None:
        self._protos = {}


def _package() -> ModuleType:
    try:
        import onnx  # pyright: ignore[reportMissingImports]
        import onnx.numpy_helper  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            "ONNX files are read with the onnx package, which is not installed.",
            hint="pip install 'flagscope[onnx]'",
        ) from None
    return onnx


def _graph(placed: PlacedBytes, onnx: ModuleType) -> Any:
    from google.protobuf.message import DecodeError

    path = placed.path
    try:
        with placed.opened() as file:
            graph = onnx.load(file, format="protobuf", load_external_data=False).graph
    except (DecodeError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise CorruptFileError(
            f"{path} is not a whole ONNX model: {reason}.", hint=DAMAGED
        ) from error
    if graph.sparse_initializer:
        raise CorruptFileError(
            f"{path} keeps weights in a sparse form, which is not supported.",
            hint="export the model without sparse initialisers.",
        )
    return graph


def _constants(graph: Any) -> list[tuple[str, Any]]:
    """Initialisers, and the tensors that Constant nodes hold."""
    found = [(proto.name, proto) for proto in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            found += [(node.output[0], a.t) for a in node.attribute if a.HasField("t") and a.t.dims]
    return found


def _shape(path: Path, name: str, proto: Any) -> tuple[int, ...]:
    shape = tuple(proto.dims)
    if len(shape) > _MOST_AXES or any(size < 0 for size in shape):
        raise CorruptFileError(
            f"tensor {name!r} of {path} has the shape {str(shape)[:100]}.", hint=DAMAGED
        )
    return shape


def _kind(proto: Any) -> str:
    try:
        return _package().TensorProto.DataType.Name(proto.data_type)
    except ValueError:
        return f"type {proto.data_type}"


def _size(dtype: str) -> int:
    """Bytes of an element; 0 for types that PyTorch does not have."""
    found = getattr(torch, dtype, None)
    return found.itemsize if isinstance(found, torch.dtype) else 0


def _numpy_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32 for the types that onnx brings along for 8 and 16 bits, which NumPy lacks."""
    return dtype if dtype.kind in "fiub" else np.dtype(np.float32)


def _place(path: Path, name: str, proto: Any) -> tuple[Path, int, int | None]:
    """File, offset and length of data kept outside; the file lies in the model's folder."""
    told = {entry.key: entry.value for entry in proto.external_data}
    location = told.get("location", "")
    if not all(isinstance(value, str) for value in told.values()):
        raise CorruptFileError(f"a name in {path} is no UTF-8.", hint=DAMAGED)
    parts = PurePosixPath(location).parts
    plain = parts and ".." not in parts and "\\" not in location and "\0" not in location
    if not plain or PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive:
        raise CorruptFileError(
            f"{path} places {name!r} in {location!r}, which is no file of its folder.",
            hint="do not use this model unless you know where it comes from.",
        )
    file = path.parent / location
    if not is_there(file):
        raise MissingFileError(
            f"{path} keeps {name!r} in {location}, which is not in its folder.",
            hint="fetch that file into the same folder.",
        )
    try:
        offset, length = int(told.get("offset", 0)), told.get("length")
        size = None if length is None else int(length)
    except ValueError:
        offset, size = -1, None
    if offset < 0 or (size or 0) < 0:
        raise _beyond(path, name, location)
    return file, offset, size


def _beyond(path: Path, name: str, location: str) -> CorruptFileError:
    return CorruptFileError(f"{path} places {name!r} beyond the end of {location}.", hint=DAMAGED)


def _wrong_size(path: Path, name: str) -> CorruptFileError:
    return CorruptFileError(
        f"the data of tensor {name!r} of {path} are not of the size of its shape.", hint=DAMAGED
    )
