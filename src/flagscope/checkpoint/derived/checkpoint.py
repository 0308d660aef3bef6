"""Base of checkpoints derived from another one: what is not made anew is passed on."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence

from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.indexing import Index


class DerivedCheckpoint(Checkpoint):
    """Tensors of another checkpoint, and such as are made of them. It is closed with this one.

    Parameters
    ----------
    inner
        The checkpoint as stored.
    entries
        The tensors that are listed here.
    made
        Names of those among them that are made here; a tensor of the inner one may have the same.
    notes
        What is said here, the inner one's notes included.
    """

    def __init__(
        self,
        inner: Checkpoint,
        entries: Mapping[str, TensorInfo],
        *,
        made: Collection[str] = (),
        notes: Sequence[str],
    ) -> None:
        self._inner, self._made_here = inner, frozenset(made)
        super().__init__(inner.source, entries, config=inner.config, notes=notes)
        self.group, self.stored_config = inner.group, inner.stored_config

    def _inner_name(self, name: str) -> str | None:
        """Name that the inner checkpoint has for a tensor; None for one that is made here."""
        return None if name in self._made_here else name

    def _made(self, name: str, index: Index) -> Tensor:
        """A slice of a tensor that is made here."""
        raise NotImplementedError(name, index)

    def _made_scale(self, name: str, index: Index) -> Tensor | None:  # noqa: ARG002
        """`scale` of a tensor that is made here."""
        return None

    def _made_step(self, name: str, index: Index) -> Tensor | None:  # noqa: ARG002
        """`step` of a tensor that is made here."""
        return None

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """States of the files as stored."""
        return self._inner.stamps

    @property
    def is_remote(self) -> bool:
        """Whether the files as stored are."""
        return self._inner.is_remote

    @property
    def buffers(self) -> frozenset[str] | None:
        """Those of the inner checkpoint; a tensor made here is not among them."""
        known = self._inner.buffers
        if known is None:
            return None
        return frozenset(name for name in self._tensors if self._inner_name(name) in known)

    def memory(self, name: str) -> Hashable | None:
        """Where a tensor lies; None for one that is made here."""
        inner = self._inner_name(name)
        return None if inner is None else self._inner.memory(inner)

    def runs(
        self, wanted: Sequence[tuple[str, int, int]], *, spare: float = math.inf
    ) -> list[bytes] | None:
        """Runs of bytes of the inner checkpoint; None where one of its tensors is made here."""
        runs = []
        for name, start, stop in wanted:
            inner = self._inner_name(name)
            if inner is None:
                return None
            runs.append((inner, start, stop))
        return self._inner.runs(runs, spare=spare)

    def _read(self, name: str, index: Index) -> Tensor:
        inner = self._inner_name(name)
        return self._made(name, index) if inner is None else self._inner.read(inner, index)

    def _scale(self, name: str, index: Index) -> Tensor | None:
        inner = self._inner_name(name)
        return self._made_scale(name, index) if inner is None else self._inner.scale(inner, index)

    def _step(self, name: str, index: Index) -> Tensor | None:
        inner = self._inner_name(name)
        return self._made_step(name, index) if inner is None else self._inner.step(inner, index)

    def _release(self) -> None:
        self._inner.close()
