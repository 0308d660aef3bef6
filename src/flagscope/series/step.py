"""What is read of one checkpoint of a series before any of its tensors is read whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.opening import open_stored
from flagscope.errors import CorruptFileError, FlagscopeError, MissingFileError
from flagscope.series.places import Place
from flagscope.series.rates.optimisers import OPTIMISER, SavedOptimiser, read_optimiser
from flagscope.series.sampling import sampled
from flagscope.series.trainer_state import TrainerState, trainer_state

_LIGHTNING = (".ckpt", ".pt", ".pth")

Fault = Literal["truncated", "incomplete", "unreadable", "being-written"]


@dataclass(frozen=True)
class Header:
    """Shape, type and file of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    file: str  # name of the file that holds it, without its folder


@dataclass(frozen=True)
class Step:
    """One checkpoint of a series: its headers and samples, or why there are none.

    Attributes
    ----------
    fault, reason
        Why it cannot be read, as a code and in words; None and "" where it can.
    headers, values
        Of each tensor its header, and its samples (`Samples.values`).
    nbytes, bytes_read
        Bytes of all tensors; bytes of samples.
    state
        What the trainer wrote next to it.
    optimiser
        What the optimiser saved of itself with it; None where there is none.
    notes
        What could not be looked at.
    """

    place: Place
    fault: Fault | None = None
    reason: str = ""
    headers: Mapping[str, Header] = field(default_factory=dict)
    values: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    nbytes: int = 0
    bytes_read: int = 0
    state: TrainerState | None = None
    optimiser: SavedOptimiser | None = None
    notes: tuple[str, ...] = ()

    @property
    def optimiser_step(self) -> int | None:
        """Updates that its optimiser has done; None where there is none that counts."""
        return None if self.optimiser is None else self.optimiser.step


def read_step(place: Place) -> Step:
    """Headers and samples of a checkpoint; a fault instead of an error where it cannot be read."""
    notes: list[str] = []
    try:
        state = trainer_state(None if place.revision is not None else place.source)
    except FlagscopeError as error:
        state = None
        notes.append(f"{place.name}: its trainer_state.json cannot be read: {error}")
    optimiser, said = _optimiser(place)
    notes += said
    try:
        with open_stored(place.source, revision=place.revision) as checkpoint:
            samples = sampled(checkpoint)
            return Step(
                place=place,
                headers=_headers(checkpoint),
                values=samples.values,
                nbytes=sum(info.nbytes for info in checkpoint.tensors.values()),
                bytes_read=samples.bytes_read,
                state=state,
                optimiser=optimiser,
                notes=tuple(notes),
            )
    except FlagscopeError as error:
        return Step(
            place=place, fault=_fault(error), reason=str(error), state=state, notes=tuple(notes)
        )


def _optimiser(place: Place) -> tuple[SavedOptimiser | None, list[str]]:
    """That of optimizer.pt in the folder, or of Lightning's file; and what cannot be read."""
    path = place.path
    if path is None:
        return None, []
    file = path / OPTIMISER if path.is_dir() else path
    if not file.is_file() or file.suffix not in _LIGHTNING:
        return None, []
    try:
        return read_optimiser(file), []
    except FlagscopeError as error:
        # A file of weights may hold them alone.
        return None, [f"{place.name}: its {OPTIMISER} cannot be read: {error}"] * path.is_dir()


def _headers(checkpoint: Checkpoint) -> dict[str, Header]:
    return {
        name: Header(info.shape, info.dtype, _file(info.file))
        for name, info in checkpoint.tensors.items()
    }


def _file(path: str | None) -> str:
    return "" if path is None else path.replace("\\", "/").rpartition("/")[2]


def _fault(error: FlagscopeError) -> Fault:
    if isinstance(error, MissingFileError):
        return "incomplete"
    return "truncated" if isinstance(error, CorruptFileError) else "unreadable"
