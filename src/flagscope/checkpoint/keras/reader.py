"""Reader of Keras files: `.keras`, `.h5` and `.weights.h5`, and of any HDF5 file's arrays."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.files.checks import DAMAGED, checked_start
from flagscope.checkpoint.files.placed import Checksum, PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.files.zip_members import BROKEN_ZIP, data_begin
from flagscope.checkpoint.indexing import Index, read_turned
from flagscope.checkpoint.keras.hdf5 import Hdf5Store
from flagscope.checkpoint.keras.layers import Layer, parsed_model
from flagscope.checkpoint.keras.names import NamedArray, named_arrays
from flagscope.checkpoint.keras.wiring import keras_wiring
from flagscope.errors import CorruptFileError, SourceError

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_LONGEST_CONFIG = 2**26
_LISTED = 4


class KerasFile(FileCheckpoint):
    """One Keras model or file of weights; a slice of an array is read alone.

    Arrays are named after their layers (`dense_1.kernel`) and lie as Keras keeps them: (in, out)
    for dense layers, (height, width, in, out) for convolutions. Where the file holds the model's
    configuration, it says which layer feeds which. Nothing in it is built or run.

    Raises
    ------
    MissingExtraError
        If h5py is not installed.
    CorruptFileError
        If it refers to other files, or would unpack to far more than it is.
    SourceError
        If its weights are packed in a way that is not read.

    References
    ----------
    The HDF5 file format specification, version 3.0; keras/src/saving/saving_lib.py.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        start, placed = checked_start(path), PlacedBytes(path)
        if start.startswith(b"PK\x03\x04"):
            text, member = _archive(placed)
            self._store = Hdf5Store(placed, member)
            listing = self._store.listing()
        else:
            self._store = Hdf5Store(placed)
            listing = self._store.listing()
            text = listing.attributes.get("model_config")
        model, notes = _model(text)
        named, more = named_arrays(listing.arrays, model)
        notes += more
        if listing.passed_over:
            notes.append(
                f"passed over {len(listing.passed_over)} entries of {path} that are not arrays of "
                f"numbers: {', '.join(listing.passed_over[:_LISTED])}"
            )
        self._arrays: dict[str, NamedArray] = {}
        entries = {}
        for one in named:
            if one.name in entries:
                raise CorruptFileError(
                    f"{path} has two arrays named {one.name!r}.",
                    hint="save the model again under names that differ.",
                )
            self._arrays[one.name] = one
            entries[one.name] = TensorInfo(
                one.name, _shape(one), one.array.dtype, one.array.nbytes, os.fspath(path)
            )
        super().__init__(path, entries, files=[placed], source=source, config=config, notes=notes)
        if model is not None:
            self.wiring = keras_wiring(model, entries)

    def _read(self, name: str, index: Index) -> Tensor:
        one = self._arrays[name]
        if one.shape is not None:
            whole = tuple(slice(0, size) for size in one.array.shape)
            return self._store.read(one.array, whole).reshape(one.shape)[index]
        if one.order is None:
            return self._store.read(one.array, index)
        return read_turned(lambda part: self._store.read(one.array, part), index, one.order)


def _shape(one: NamedArray) -> tuple[int, ...]:
    if one.order is not None:
        return tuple(one.array.shape[axis] for axis in one.order)
    return one.array.shape if one.shape is None else one.shape


def _model(text: str | None) -> tuple[Layer | None, list[str]]:
    """The model that a configuration describes, and a note where there is none."""
    if text is None:
        return None, ["the file holds no configuration of the model: which layer feeds which is "
                      "not known (model.save keeps it, save_weights does not)"]  # fmt: skip
    try:
        model = parsed_model(json.loads(text))
    except (ValueError, RecursionError):
        model = None
    if model is None or not model.layers:
        return None, ["the file's configuration of the model lists no layers (as of a class of "
                      "one's own): which layer feeds which is not known"]  # fmt: skip
    return model, []


def _archive(placed: PlacedBytes) -> tuple[str | None, Checksum]:
    """The configuration in a `.keras` archive, and where in it the weights lie."""
    path = placed.path
    try:
        with placed.opened() as raw, zipfile.ZipFile(raw) as archive:
            names = archive.namelist()
            if _WEIGHTS not in names:
                raise SourceError(
                    f"{path} holds no {_WEIGHTS}: {', '.join(names[:_LISTED]) or 'nothing'}.",
                    hint="give a file that Keras 3 wrote with model.save('model.keras'), in one "
                    "part.",
                )
            info = archive.getinfo(_WEIGHTS)
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise SourceError(
                    f"{path} keeps its weights packed, which Keras does not.",
                    hint="unpack the archive and zip it again without compression (zip -0).",
                )
            text = None
            if _CONFIG in names:
                with archive.open(_CONFIG) as file:
                    content = file.read(_LONGEST_CONFIG + 1)
                if len(content) > _LONGEST_CONFIG:
                    raise CorruptFileError(
                        f"{path}: {_CONFIG} is longer than {_LONGEST_CONFIG} bytes.", hint=DAMAGED
                    )
                text = content.decode("utf-8", "replace")
            start = data_begin(raw, info)
            if start + info.file_size > placed.size:
                raise zipfile.BadZipFile("a member reaches beyond the end")
            return text, Checksum(start, start + info.file_size, info.CRC, _WEIGHTS)
    except BROKEN_ZIP as error:
        raise CorruptFileError(f"{path} is not a whole archive: {error}.", hint=DAMAGED) from error
