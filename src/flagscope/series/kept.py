"""What was read of a step, kept in a folder, so that a longer series costs its new steps alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from flagscope.errors import StoreError
from flagscope.masking import shown_url
from flagscope.series.file_states import file_states, url_states
from flagscope.series.places import Place
from flagscope.series.rates.optimisers import SavedOptimiser
from flagscope.series.step import Header, Step, read_step
from flagscope.series.trainer_state import TrainerState
from flagscope.writing import write_whole

_LAYOUT = 5
_OPTIMISER: TypeAdapter[SavedOptimiser | None] = TypeAdapter(SavedOptimiser | None)
FOLDER = "steps"


class KeptSteps:
    """Headers, samples and results of steps by the state of their files, in a folder.

    A step is read again once one of its files has another size or time of change; behind a URL,
    another size or tag (`url_states`). What lies on the hub, and what has no tag, is read again.

    Parameters
    ----------
    folder
        Made if it is not there.

    Raises
    ------
    StoreError
        If it cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser() / FOLDER
        # Of steps behind URLs, which are asked for their state once; before keeping, once more.
        self._asked: dict[Place, str | None] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store {folder} cannot be made: {error.strerror}",
                hint="give a folder, or the name of one that may be made",
            ) from error

    def step(self, place: Place) -> tuple[Step, bool]:
        """The step, and whether it had to be read."""
        key = self._asked[place] = _key(place)
        known = None if key is None else self._read(key + ".bin")
        if known is not None and (step := _from_bytes(known, place)) is not None:
            return step, False
        step = read_step(place)
        if key is not None and step.fault is None and key == _key(place):
            self._write(key + ".bin", _to_bytes(step))
        return step, True

    def result(self, place: Place, settings: Mapping[str, Any]) -> str | None:
        """The text that was kept of a step under these settings, None if there is none."""
        found = self._result(place, settings, ".json")
        return None if found is None else found.decode("utf-8")

    def keep(self, place: Place, settings: Mapping[str, Any], text: str) -> None:
        """Keep a text of a step."""
        self._keep(place, settings, text.encode("utf-8"), ".json")

    def data(self, place: Place, settings: Mapping[str, Any]) -> bytes | None:
        """The bytes that were kept of a step under these settings, None if there are none."""
        return self._result(place, settings, ".bin")

    def keep_data(self, place: Place, settings: Mapping[str, Any], body: bytes) -> None:
        """Keep bytes of a step."""
        self._keep(place, settings, body, ".bin")

    def state(self, place: Place) -> str | None:
        """What changes when a file of a step does; None where that is not known."""
        if "://" not in place.source:
            return _key(place)
        if place not in self._asked:
            self._asked[place] = _key(place)
        return self._asked[place]

    def _result(self, place: Place, settings: Mapping[str, Any], suffix: str) -> bytes | None:
        key = self.state(place)
        return None if key is None else self._read(f"{key}-{_digest(settings)}{suffix}")

    def _keep(self, place: Place, settings: Mapping[str, Any], body: bytes, suffix: str) -> None:
        key = _key(place)
        # Behind a URL the state is that of the look at integrity; a step may be another one by now.
        if key is not None and key == self.state(place):
            self._write(f"{key}-{_digest(settings)}{suffix}", body)

    def _read(self, name: str) -> bytes | None:
        """Content with a right checksum; what is damaged counts as not there."""
        try:
            content = (self._folder / name).read_bytes()
        except OSError:
            return None
        digest, body = content[:16], content[16:]
        return body if hashlib.blake2b(body, digest_size=16).digest() == digest else None

    def _write(self, name: str, body: bytes) -> None:
        try:
            write_whole(self._folder / name, hashlib.blake2b(body, digest_size=16).digest() + body)
        except OSError as error:
            raise StoreError(
                f"the store {self._folder.parent} cannot be written: {error.strerror}",
                hint="free some space, or give another folder",
            ) from error


def _key(place: Place) -> str | None:
    """Digest of the paths, sizes and times, or tags, of the files of a step."""
    if "://" in place.source:
        tagged = url_states(place)
        where = shown_url(place.source).rstrip("/")
        return None if tagged is None else _digest([_LAYOUT, where, place.name, tagged])
    states = file_states(place)
    if states is None:
        return None
    path = Path(place.source).expanduser()
    return _digest([_LAYOUT, str(path.resolve()), place.name, states])


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _to_bytes(step: Step) -> bytes:
    buffer = io.BytesIO()
    said = {
        "headers": {name: asdict(one) for name, one in step.headers.items()},
        "nbytes": step.nbytes,
        "bytes_read": step.bytes_read,
        "state": None if step.state is None else asdict(step.state),
        "optimiser": None if step.optimiser is None else asdict(step.optimiser),
        "notes": step.notes,
        "names": list(step.values),
    }
    arrays = {str(place): values for place, values in enumerate(step.values.values())}
    text = np.frombuffer(json.dumps(said).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, said=text, **arrays)
    return buffer.getvalue()


def _from_bytes(body: bytes, place: Place) -> Step | None:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        said = json.loads(arrays["said"].tobytes())
        values = {name: arrays[str(i)] for i, name in enumerate(said["names"])}
    headers = {
        name: Header(tuple(one["shape"]), one["dtype"], one["file"])
        for name, one in said["headers"].items()
    }
    state = said["state"]
    return Step(
        place=place,
        headers=headers,
        values=values,
        nbytes=said["nbytes"],
        bytes_read=said["bytes_read"],
        state=None
        if state is None
        else TrainerState(state["step"], tuple((a, b, c) for a, b, c in state["log"])),
        optimiser=None
        if said["optimiser"] is None
        else _OPTIMISER.validate_python(said["optimiser"]),
        notes=tuple(said["notes"]),
    )
