"""Steps of a series behind a URL: a folder of them, or a pattern, in a store that lists."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from urllib.parse import urlsplit

from flagscope.checkpoint.folder import names_weights, remote_weight_file
from flagscope.checkpoint.remote.path import RemoteEntry, RemotePath
from flagscope.errors import InputError, MissingExtraError, MissingFileError, SourceError
from flagscope.masking import shown_url
from flagscope.series.inside import PATTERN, is_weights, steps_inside
from flagscope.series.step_names import step_name
from flagscope.shortening import listed

_LISTED = 5
_WEB = ("http://", "https://")


def url_steps(url: str) -> list[str]:
    """URLs of the checkpoints that a URL names, by name.

    Parameters
    ----------
    url
        A checkpoint; a folder of checkpoints, or of files of weights, one a step; or a pattern
        (`s3://bucket/runs/*/checkpoint-*`), in which * stands for no slash. A name that exists is
        taken before the pattern that it would be.

    Raises
    ------
    InputError
        If it is a pattern on a web server, which lists nothing, or in the name of a bucket.
    MissingFileError
        If it is a folder without a checkpoint, or nothing matches.
    SourceError, MissingExtraError
        If the store does not let its folders be listed or does not answer, or its driver is not
        installed.

    Notes
    -----
    Each folder that is named or matched is listed once, one request for 1,000 entries; the steps in
    it are not.
    """
    if _on_the_web(url):
        _refuse_folder_of_steps(url)
        return [url]
    if not _has_sign(url):
        return _in_folder(url)
    return [step for found in _matched(url) for step in _in_folder(found)]


def url_weights(url: str) -> tuple[str, list[str]]:
    """Name of a folder behind a URL, and of the files of weights in it itself.

    The list is empty for a pattern, on a web server, and where the folder cannot be listed.
    """
    folder = RemotePath(url)
    if _on_the_web(url) or _has_sign(url):
        return folder.name, []
    try:
        files, _ = _split(folder.entries())
    except SourceError:
        return folder.name, []
    return folder.name, [name for name in files if is_weights(name)]


def _in_folder(url: str) -> list[str]:
    """The one checkpoint that a URL is, or those in the folder."""
    folder = RemotePath(url)
    if names_weights(folder.name):
        return [url]
    said = step_name(folder.name)
    try:
        files, folders = _split(folder.entries())
    except MissingExtraError:
        raise
    except SourceError:
        if said is not None and said.by_word:
            return [url]  # one that is not there, or that may not be read, is a fault of the series
        raise
    steps = steps_inside(files, folders)
    if steps is None or (not steps and (said is not None or not (files or folders))):
        return [url]
    if not steps:
        raise MissingFileError(
            f"{folder} holds no checkpoints whose names say which step they are, as step_500, "
            "checkpoint-500, epoch-3 or one number alone do.",
            hint=f"it holds {listed([*folders, *files], _LISTED)}.",
        )
    return [_inside(url, name) for name in steps]


def _matched(url: str) -> list[str]:
    """What matches a pattern: one part of it after the other, so that few folders are listed."""
    start, parts = _start(url)
    level = [start]
    for place, part in enumerate(parts):
        last = place + 1 == len(parts)
        level = [
            _inside(folder, name)
            for folder in level
            for name in _matching(folder, part, last=last, sure=place == 0)
        ]
    if not level:
        raise MissingFileError(
            f"no checkpoint matches {shown_url(url)}.", hint="check the pattern and its folder."
        )
    return level


def _matching(folder: str, part: str, *, last: bool, sure: bool) -> list[str]:
    """Names in a folder that match one part of a pattern; `sure` if the user named the folder."""
    try:
        files, folders = _split(RemotePath(folder).entries())
    except MissingFileError:
        if sure:
            raise
        return []
    names = sorted({*folders, *(name for name in files if last and is_weights(name))})
    if part in names:
        return [part]
    hidden = part.startswith(".")
    return [
        name for name in names
        if fnmatch.fnmatchcase(name, part) and (hidden or not name.startswith("."))
    ]  # fmt: skip


def _start(url: str) -> tuple[str, list[str]]:
    """The folder in front of the first part with a sign of a pattern, and the parts from it on."""
    front, mark, rest = url.rpartition("://")
    parts = rest.rstrip("/").split("/")
    first = next(place for place, part in enumerate(parts) if _has_sign(part))
    if first == 0:
        raise InputError(
            f"the pattern {shown_url(url)} begins in the name of the bucket",
            hint="name the bucket; a pattern may stand behind it",
        )
    return front + mark + "/".join(parts[:first]), [part for part in parts[first:] if part]


def _split(entries: Iterable[RemoteEntry]) -> tuple[list[str], list[str]]:
    """Names of files, and of folders."""
    sides: tuple[list[str], list[str]] = ([], [])
    for entry in entries:
        sides[entry.is_folder].append(entry.name)
    return sides


def _inside(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _has_sign(text: str) -> bool:
    return any(sign in text for sign in PATTERN)


def _on_the_web(url: str) -> bool:
    """Whether a web server answers, also behind a cache of fsspec (simplecache::https://…)."""
    return url.rpartition("::")[2].lower().startswith(_WEB)


def _refuse_folder_of_steps(url: str) -> None:
    """Refuse a pattern, and a folder that is neither a checkpoint nor named like a step."""
    if any(sign in urlsplit(url.rpartition("::")[2]).path for sign in "*["):
        raise InputError(
            f"{shown_url(url)} is a pattern, and a web server does not list its folders",
            hint="name the URL of each step; * and [ in a name are written %2A and %5B",
        )
    folder = RemotePath(url)
    if names_weights(folder.name) or step_name(folder.name) is not None:
        return
    try:
        remote_weight_file(folder)
    except MissingFileError as error:
        raise MissingFileError(
            f"{folder} is not a checkpoint, and a web server does not list its folders.",
            hint="name the URL of each step.",
        ) from error
