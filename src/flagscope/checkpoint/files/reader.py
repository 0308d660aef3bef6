"""Base of the readers of files."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import CorruptFileError


class OpenedFile(Protocol):
    """A file held to the state in which it was opened: `PlacedBytes` or `RemoteBytes`."""

    @property
    def path(self) -> Path | RemotePath:
        """Where it lies."""
        ...

    @property
    def stamp(self) -> tuple[str, str]:
        """Its name and state."""
        ...

    def check(self) -> None:
        """Raise CorruptFileError if it was changed since it was opened."""
        ...


class FileCheckpoint(Checkpoint, ABC):
    """Base of the readers of files: can be pickled, and then opens them again.

    All readers are called as `Reader(path, source=None, config=None)`: the file, what the user
    named if not the path, and the model's configuration. All raise MissingFileError if the file
    is not there, and CorruptFileError if it is empty, cut short or not consistent. Their own
    docstrings say what else they take and raise.

    Parameters
    ----------
    path
        The file that was named.
    entries, source, config, notes
        As for `Checkpoint`.
    files
        All files that are read, held to the state in which they were when the first was opened.

    Raises
    ------
    CorruptFileError
        If one of them was changed since.
    """

    def __init__(
        self,
        path: Path | RemotePath,
        entries: Mapping[str, TensorInfo],
        *,
        files: Iterable[OpenedFile],
        source: str | None,
        config: dict[str, Any] | None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(source or str(path), entries, config=config, notes=notes)
        self._path = path
        self._stamps: dict[str, tuple[str, str]] = {}
        for file in files:
            file.check()
            self._stamps[str(file.path)] = file.stamp

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """State of each file when it was opened."""
        return self._stamps

    @contextmanager
    def _reading(
        self, name: str, broken: tuple[type[Exception], ...] = (OSError,)
    ) -> Iterator[None]:
        """Say which tensor could not be read where the system or a library fails."""
        try:
            yield
        except broken as error:
            raise CorruptFileError(
                f"cannot read tensor {name!r} of {self._path}: {error}.", hint=DAMAGED
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        opening = functools.partial(type(self), source=self._source, config=self._config)
        return opening, (self._path,)
