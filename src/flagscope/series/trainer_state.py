"""What a trainer wrote next to the weights of a step: Hugging Face's trainer_state.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flagscope.checkpoint.configuration import json_object
from flagscope.checkpoint.remote.path import RemotePath

TRAINER_STATE = "trainer_state.json"
# A log of every step takes some 180 bytes an entry, five times that where many numbers are logged:
# 300,000 to 1,500,000 steps.
_LARGEST = 2**28


@dataclass(frozen=True)
class TrainerState:
    """Attributes
    ----------
    step
        `global_step`; None where the file has no whole number there.
    log
        (step, key, number) of what was logged, in the order of the file.
    """

    step: int | None
    log: tuple[tuple[int, str, float], ...]

    @property
    def steps(self) -> list[int]:
        """Steps in the order in which they were logged."""
        return [step for step, key, _ in self.log if key == "learning_rate"]


def trainer_state(weights: str | None) -> TrainerState | None:
    """The state next to a file of weights, or in a folder; None where there is none.

    Raises
    ------
    CorruptFileError, SourceError
        If it is not JSON, too large, or cannot be read.
    """
    if weights is None:
        return None
    if "://" in weights:
        place: Path | RemotePath = RemotePath(weights)
    else:
        place = Path(weights).expanduser()
    folder = place if isinstance(place, Path) and place.is_dir() else place.parent
    path = folder / TRAINER_STATE
    if not path.is_file():
        return None
    return _state(trainer_content(path))


def trainer_content(path: Path | RemotePath) -> dict[str, Any]:
    """What a trainer_state.json of at most 256 MiB holds.

    Raises
    ------
    MissingFileError, CorruptFileError, SourceError
        As for `json_object`.
    """
    return json_object(path, kind=TRAINER_STATE, largest=_LARGEST)


def _state(content: dict[str, Any]) -> TrainerState:
    step = content.get("global_step")
    rows: list[tuple[int, str, float]] = []
    history = content.get("log_history")
    for entry in history if isinstance(history, list) else []:
        if not isinstance(entry, dict) or not _whole(entry.get("step")):
            continue
        rows += [
            (entry["step"], str(key), float(value))
            for key, value in entry.items()
            if key in ("loss", "learning_rate", "grad_norm")
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
        ]
    return TrainerState(step if _whole(step) else None, tuple(rows))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
