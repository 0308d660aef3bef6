"""Sizes and times of change, or tags, of the files of a step."""

from __future__ import annotations

import os
from pathlib import Path

from flagscope.checkpoint.folder import INDEX_SUFFIX, names_weights
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import FlagscopeError
from flagscope.series.places import Place

FileStates = tuple[tuple[str, int, int], ...]
"""Name, bytes and time of change in nanoseconds of each file, by name."""


def file_states(place: Place) -> FileStates | None:
    """States of the files in a step's folder and in folders in it, or of its one file.

    None where there are none to see: behind a URL, on the hub, or where nothing is there.
    """
    path = place.path
    if path is None:
        return None
    try:
        files = [path]
        if path.is_dir():
            inside = sorted(path.iterdir())
            # DeepSpeed and FSDP put the weights one folder further down.
            files = [*inside, *(one for own in inside if own.is_dir() for one in own.iterdir())]
        states = sorted((str(one.relative_to(path)), _stat(one)) for one in files)
    except OSError:
        return None
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


def _stat(path: Path) -> os.stat_result:
    """Of a file; of a link to nothing that of the link."""
    try:
        return path.stat()
    except FileNotFoundError:
        return path.lstat()


def url_states(place: Place) -> tuple[tuple[str, str], ...] | None:
    """Name, and size with tag, of each file of a step behind a URL, by name; one request.

    The tag is the ETag or, where the store gives none, the time of change. None where nothing
    distinguishes two states of a file: the store gives no tag of it or does not list the folder,
    the place is an index alone, or a query is part of the URL.
    """
    path = RemotePath(place.source)
    if path.on_the_web and (path.has_query or not names_weights(path.name)):
        return None
    if path.name.endswith(INDEX_SUFFIX):
        return None
    try:
        if names_weights(path.name):
            path.forget()
            states = [(path.name, path.stamp if path.has_tag else None)]
        else:
            states = [(one.name, one.stamp) for one in path.entries() if not one.is_folder]
    except FlagscopeError:
        return None
    known = tuple((name, stamp) for name, stamp in states if stamp is not None)
    return known if known and len(known) == len(states) else None


def last_change(place: Place) -> float | None:
    """Seconds since 1970 of the last change of any file or of the folder; None as above."""
    path, states = place.path, file_states(place)
    if path is None or states is None:
        return None
    try:
        own = path.stat().st_mtime_ns
    except OSError:
        return None
    return max(own, *(changed for _, _, changed in states), 0) / 1e9
