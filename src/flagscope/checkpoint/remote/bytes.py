"""Bytes of a file behind a URL by their place, as `PlacedBytes` gives those of a local one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from flagscope.checkpoint.remote.path import RemotePath


class RemoteBytes:
    """A file behind a URL that must stay as it was when it was opened.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    MissingFileError, MissingExtraError, SourceError
        If there is no such file, or it cannot be reached.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path, self.size = path, path.size

    @property
    def stamp(self) -> tuple[str, str]:
        """Name, and the state that the store gives; see `RemotePath.stamp`."""
        return self.path.name, self.path.stamp

    def check(self) -> None:
        """Nothing: the opening asked for the state just now, and every reading asks behind it."""

    def read(self, start: int, stop: int) -> UInt8[Tensor, " bytes"]:
        """Bytes start … stop, one request for each 8 MiB.

        Raises
        ------
        CorruptFileError
            If the store gives fewer, or the file was changed since it was opened.
        SourceError
            If the store does not answer.
        """
        if start == stop:
            return torch.empty(0, dtype=torch.uint8)
        data = self.path.read_range(start, stop)
        self.path.check_unchanged()
        return torch.frombuffer(data, dtype=torch.uint8)

    def read_spans(
        self, spans: Sequence[tuple[int, int]], *, spare: float = math.inf
    ) -> list[bytes]:
        """Bytes of many short spans, in few requests; `spare` as for `RemotePath.read_spans`.

        Raises
        ------
        CorruptFileError, SourceError
            As for `read`.
        """
        parts = self.path.read_spans(spans, spare=spare)
        self.path.check_unchanged()
        return parts
