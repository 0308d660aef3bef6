"""What a trainer wrote next to the weights of a step: Hugging Face's trainer_state.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flagscope.checkpoint.configuration import json_object
from flagscope.checkpoint.folder import names_weights
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import MissingFileError
from flagscope.series.step_names import step_name

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
    """The state next to a file of weights, or in a folder; None where there is none of it.

    One next to a file with a number in its own name is that of the run, and of no step.

    Raises
    ------
    CorruptFileError, SourceError
        If it is not JSON, too large, or cannot be read.
    """
    if weights is None:
        return None
    path = _beside(weights)
    return None if path is None else _state(trainer_content(path))


def _beside(weights: str) -> Path | RemotePath | None:
    """The file next to the weights, or in their folder; None where there is none of theirs."""
    far = "://" in weights
    place: Path | RemotePath = RemotePath(weights) if far else Path(weights).expanduser()
    is_file = names_weights(place.name) if isinstance(place, RemotePath) else not place.is_dir()
    if is_file and step_name(place.name) is not None:
        return None  # one of several steps: what lies next to them is of the run
    if isinstance(place, RemotePath) and not is_file and not place.on_the_web:
        # One request, where asking for a file that is not there takes two.
        try:
            return place / TRAINER_STATE if TRAINER_STATE in place.names() else None
        except MissingFileError:
            return None
    path = (place.parent if is_file else place) / TRAINER_STATE
    return path if path.is_file() else None


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
