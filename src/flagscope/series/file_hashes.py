"""Hashes of the files of a step, where they are known without reading them."""

from __future__ import annotations

from flagscope.checkpoint.hub import hash_of_cached, hashes_on_hub
from flagscope.series.step import Step


def file_hashes(step: Step) -> tuple[str, ...] | None:
    """SHA-256 of all files of weights of a step, sorted.

    The hub has them of large files, and its cache names what it holds by them.

    Returns
    -------
    tuple of str or None
        None where that of a file is not known.
    """
    place = step.place
    files = sorted({header.file for header in step.headers.values()})
    if place.revision is not None:
        found = hashes_on_hub(place.source, files, revision=place.revision)
    elif (path := place.path) is not None:
        found = [hash_of_cached(path / file if path.is_dir() else path) for file in files]
    else:
        return None
    known = [one for one in found if one is not None]
    return tuple(sorted(known)) if known and len(known) == len(files) else None
