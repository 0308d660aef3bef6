"""A checkpoint spread over several files, with an index that says which tensor is where."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.configuration import json_object
from flagscope.checkpoint.files import FileCheckpoint
from flagscope.checkpoint.formats import file_reader
from flagscope.checkpoint.indexing import Index
from flagscope.errors import CorruptFileError, MissingFileError

_LISTED = 4


class ShardedCheckpoint(FileCheckpoint):
    """A `*.index.json` and the files it names. The index decides what belongs to the model.

    Parameters
    ----------
    path
        The index.
    source
        What the user named, if not the path.
    config
        The model's configuration.

    Raises
    ------
    MissingFileError
        If the index or files that it names are not there.
    CorruptFileError
        If the index is malformed, names files outside its folder, or names tensors that their
        files do not hold.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        self._where = weight_map(path)
        folder = path.parent
        _require_all(path, set(self._where.values()))
        self._shards: dict[str, FileCheckpoint] = {}
        try:
            for name in dict.fromkeys(self._where.values()):
                self._shards[name] = file_reader(folder / name)(folder / name)
            entries = {name: self._entry(path, name, at) for name, at in self._where.items()}
            notes = [
                f"{name}: {note}" for name, shard in self._shards.items() for note in shard.notes
            ]
            super().__init__(path, entries, source=source, config=config, notes=notes)
        except BaseException:
            self._release()
            raise

    def _entry(self, path: Path, name: str, at: str) -> TensorInfo:
        try:
            return self._shards[at].entry(name)
        except KeyError:
            raise CorruptFileError(
                f"{path} says that {at} holds {name!r}, but it does not.",
                hint="index and shards are of different checkpoints; fetch all of them again.",
            ) from None

    def _read(self, stored: str, index: Index) -> Tensor:
        return self._shards[self._where[stored]].read_stored(stored, index)

    def _release(self) -> None:
        for shard in self._shards.values():
            shard.close()


def weight_map(path: Path) -> dict[str, str]:
    """Tensor names to file names, as an index gives them; the files lie in the index's folder.

    Raises
    ------
    MissingFileError, CorruptFileError
        If there is no such index, it is malformed, or it names files outside its folder.
    """
    where = json_object(path).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CorruptFileError(
            f"{path} has no weight_map, or an empty one.", hint="fetch the index again."
        )
    plain: set[str] = set()  # many tensors lie in few files
    for name, file in where.items():
        if isinstance(file, str) and (file in plain or _is_plain(file)):
            plain.add(file)
        else:
            raise CorruptFileError(
                f"{path} places {name!r} in {file!r}, which is no file of its folder.",
                hint="do not use this checkpoint unless you know where it comes from.",
            )
    return where


def _is_plain(file: str) -> bool:
    """Whether a name stays in the folder, on every system: Windows knows / as well as its own."""
    return file not in ("", ".", "..") and "\0" not in file and PureWindowsPath(file).name == file


def _require_all(index: Path, names: Iterable[str]) -> None:
    missing = sorted(name for name in names if not (index.parent / name).is_file())
    if missing:
        listed = ", ".join(missing[:_LISTED]) + (", …" if len(missing) > _LISTED else "")
        raise MissingFileError(
            f"{index} names {len(missing)} files that are not in its folder: {listed}.",
            hint="fetch the missing files into the same folder.",
        )
