"""Tensors that are computed when they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor


class LastTensor:
    """The tensor that was computed last, for the next slice of it; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: str | None = None
        self._tensor: Tensor | None = None

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, computed unless it is the one that is kept."""
        with self._lock:
            if self._tensor is None or key != self._key:
                self._tensor = None  # release the old one before the new one takes memory
                with torch.no_grad():
                    self._tensor = compute().detach()
                self._key = key
            return self._tensor

    def clear(self) -> None:
        """Let go of it."""
        with self._lock:
            self._key = self._tensor = None


class DerivedTensor:
    """Stands in a state dict for a tensor that is computed when it is read.

    Parameters
    ----------
    key
        Its name among the tensors that share `last`.
    like
        A tensor of its shape and type.
    compute
        Gives it.
    last
        Where the one that was computed last is kept.
    """

    def __init__(
        self, key: str, like: Tensor, compute: Callable[[], Tensor], last: LastTensor
    ) -> None:
        self.shape, self.dtype = like.shape, like.dtype
        self._key, self._compute, self._last = key, compute, last

    def element_size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    def detach(self) -> Tensor:
        """The tensor."""
        return self._last.get(self._key, self._compute)

    def __getitem__(self, index: tuple[slice | int, ...]) -> Tensor:
        return self.detach()[index]
