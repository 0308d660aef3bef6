"""A checkpoint spread over several files, with an index that says which tensor is where."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.configuration import json_object
from flagscope.checkpoint.files.checks import is_plain_name, require_files
from flagscope.checkpoint.formats import opened_file
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import CorruptFileError

_AT_ONCE = 8


class ShardedCheckpoint(Checkpoint):
    """A `*.index.json` and the files it names. The index decides what belongs to the model.

    Names are those of the index, with whatever wrappers put into them; see `unwrapped`.

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
        self,
        path: Path | RemotePath,
        *,
        source: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._path = path
        self._where = weight_map(path)
        if isinstance(path, Path):
            require_files(path, set(self._where.values()))
        self._shards: dict[str, Checkpoint] = {}
        try:
            for name, shard in _opened(path.parent, list(dict.fromkeys(self._where.values()))):
                self._shards[name] = shard
            entries = {name: self._entry(path, name, at) for name, at in self._where.items()}
            notes = [
                f"{name}: {note}"
                for name, shard in self._shards.items()
                for note in shard.header_notes
            ]
            super().__init__(source or str(path), entries, config=config, notes=notes)
            self._stamps = self._all_stamps()
        except BaseException:
            self._release()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        opening = functools.partial(ShardedCheckpoint, source=self._source, config=self._config)
        return opening, (self._path,)

    def _entry(self, path: Path | RemotePath, name: str, at: str) -> TensorInfo:
        try:
            return self._shards[at].tensors[name]
        except KeyError:
            raise CorruptFileError(
                f"{path} says that {at} holds {name!r}, but it does not.",
                hint="index and shards are of different checkpoints; fetch all of them again.",
            ) from None

    def _read(self, name: str, index: Index) -> Tensor:
        return self._shards[self._where[name]].read(name, index)

    def memory(self, name: str) -> Hashable | None:
        """Where a tensor lies in its shard."""
        return self._shards[self._where[name]].memory(name)

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """States of the shards, and what the index says."""
        return self._stamps

    def _all_stamps(self) -> dict[str, tuple[str, str]]:
        # Once, since every task of a scan takes them, and an index may have megabytes.
        where = hashlib.blake2b(json.dumps(self._where).encode(), digest_size=16).hexdigest()
        shards = [shard.stamps for shard in self._shards.values()]
        return dict(
            [(str(self._path), (self._path.name, where)), *(i for s in shards for i in s.items())]
        )

    @property
    def is_remote(self) -> bool:
        """Whether the shards are."""
        return any(shard.is_remote for shard in self._shards.values())

    def runs(
        self, wanted: Sequence[tuple[str, int, int]], *, spare: float = math.inf
    ) -> list[bytes] | None:
        """Runs of bytes, each from its shard; None if a shard does not give them."""
        of: dict[str, list[int]] = {}
        for number, (name, _, _) in enumerate(wanted):
            of.setdefault(self._where[name], []).append(number)
        found: list[bytes] = [b""] * len(wanted)
        for shard, numbers in of.items():
            parts = self._shards[shard].runs([wanted[number] for number in numbers], spare=spare)
            if parts is None:
                return None
            for number, part in zip(numbers, parts, strict=True):
                found[number] = part
        return found

    def _release(self) -> None:
        for shard in self._shards.values():
            shard.close()


def _opened(folder: Path | RemotePath, names: Sequence[str]) -> Iterator[tuple[str, Checkpoint]]:
    """The shards by name; those behind a URL several at a time, since each waits for its answer."""
    if isinstance(folder, Path):
        for name in names:
            yield name, opened_file(folder / name, as_stored=True)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        shards = [pool.submit(opened_file, folder / name, as_stored=True) for name in names]
        try:
            for name, shard in zip(names, shards, strict=True):
                yield name, shard.result()
        finally:
            pool.shutdown(cancel_futures=True)


def weight_map(path: Path | RemotePath) -> dict[str, str]:
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
        if isinstance(file, str) and (file in plain or is_plain_name(file)):
            plain.add(file)
        else:
            raise CorruptFileError(
                f"{path} places {name!r} in {file!r}, which is no file of its folder.",
                hint="do not use this checkpoint unless you know where it comes from.",
            )
    return where
