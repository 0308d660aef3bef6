"""Base of checkpoints derived from another one: what is not made anew is passed on."""

from __future__ import annotations

from abc import abstractmethod
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

    def _inner_name(self, stored: str) -> str | None:
        """Name that the inner checkpoint has for a tensor; None for one that is made here."""
        return None if stored in self._made_here else stored

    @abstractmethod
    def _made(self, stored: str, index: Index) -> Tensor:
        """A slice of a tensor that is made here."""

    def _made_scale(self, stored: str, index: Index) -> Tensor | None:  # noqa: ARG002
        """`scale` of a tensor that is made here."""
        return None

    def _made_step(self, stored: str, index: Index) -> Tensor | None:  # noqa: ARG002
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
        return frozenset(
            n for n, stored in self._stored.items() if self._inner_name(stored) in known
        )

    def memory_stored(self, stored: str) -> Hashable | None:
        """Where a tensor lies, by its name; None for one that is made here."""
        name = self._inner_name(stored)
        return None if name is None else self._inner.memory(name)

    def read_runs(self, runs: Sequence[tuple[str, int, int]]) -> list[bytes] | None:
        """Runs of bytes of the inner checkpoint; None where one of its tensors is made here."""
        wanted = []
        for stored, start, stop in runs:
            name = self._inner_name(stored)
            if name is None:
                return None
            wanted.append((name, start, stop))
        return self._inner.runs(wanted)

    def _read(self, stored: str, index: Index) -> Tensor:
        name = self._inner_name(stored)
        return self._made(stored, index) if name is None else self._inner.read(name, index)

    def _scale(self, name: str, index: Index) -> Tensor | None:
        stored = self.stored_name(name)
        inner = self._inner_name(stored)
        return self._made_scale(stored, index) if inner is None else self._inner.scale(inner, index)

    def _step(self, name: str, index: Index) -> Tensor | None:
        stored = self.stored_name(name)
        inner = self._inner_name(stored)
        return self._made_step(stored, index) if inner is None else self._inner.step(inner, index)

    def _release(self) -> None:
        self._inner.close()
