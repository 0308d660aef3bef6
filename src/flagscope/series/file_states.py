"""Sizes and times of change of the files of a step."""

from __future__ import annotations

from flagscope.series.places import Place

FileStates = tuple[tuple[str, int, int], ...]
"""Name, bytes and time of change in nanoseconds of each file, by name."""


def file_states(place: Place) -> FileStates | None:
    """States of the files in a step's folder, or of its one file.

    None where there are none to see: behind a URL, on the hub, or where nothing is there.
    """
    path = place.path
    if path is None:
        return None
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        states = [(one.name, one.stat()) for one in files]
    except OSError:
        return None
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


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
