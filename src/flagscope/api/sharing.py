"""Texts of a report without where on this machine things lie: a report is made to be passed on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flagscope.masking import masked

if TYPE_CHECKING:
    from flagscope.records import ScanResult

# In a snapshot of the hub's cache the name of the model stands three folders further up.
_SNAPSHOTS = "snapshots"


def named_paths(*given: object) -> tuple[str, ...]:
    """A source that may be a path: neither a URL nor weights in memory."""
    texts = (os.fspath(one) for one in given if isinstance(one, (str, os.PathLike)))
    return tuple(
        text.removeprefix("file://")
        for text in texts
        if isinstance(text, str) and text and "://" not in text.removeprefix("file://")
    )


def shareable(given: Iterable[str]) -> Callable[[str], str]:
    """A function of texts that shortens absolute paths, and hides credentials of URLs.

    Of a path that the user gave as absolute the last part is left, of others what was typed; the
    home folder becomes ~. Other texts stay as they are: names of tensors may begin with a slash.

    Parameters
    ----------
    given
        Paths as the user gave them, from `named_paths`.

    Examples
    --------
    >>> short = shareable(["/data/ann/model"])
    >>> short("adapter /data/ann/model/a.bin on /data/ann/model"), short("/model/layers.0/MatMul")
    ('adapter model/a.bin on model', '/model/layers.0/MatMul')
    """
    roots: dict[str, str] = {}
    for text in given:
        typed = Path(text).expanduser()
        roots |= _roots(typed)
        roots |= _roots(Path(os.path.realpath(typed))) if typed.exists() else {}
        if not typed.is_absolute() and typed.exists():
            roots[_ending(Path.cwd())] = ""
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home raises where there is none)
    if Path(home).is_absolute() and home != os.sep:
        roots.setdefault(_ending(Path(home)), "~" + os.sep)
    longest_first = sorted((root for root in roots if root != os.sep), key=len, reverse=True)
    if not longest_first:
        return masked
    # Only where a path begins: not in the middle of another one, or of a name.
    found = re.compile(rf"(?<![\w.~/\\-])(?:{'|'.join(map(re.escape, longest_first))})")
    return lambda text: masked(found.sub(lambda root: roots[root[0]], text))


def shared_name(source: str, given: Iterable[str]) -> str:
    """A source as a repr names it: a notebook keeps what it shows, and is passed on."""
    return shareable((*named_paths(source), *given))(source)


def shared_result(result: ScanResult, given: Iterable[str]) -> ScanResult:
    """A result whose texts are shareable."""
    short = shareable((*named_paths(result.source), *given))
    settings = result.settings.model_copy(
        update={
            key: short(value)
            for key, value in result.settings.stated().items()
            if isinstance(value, str)
        }
    )
    failures = [
        failure.model_copy(
            update={"error": short(failure.error), "hint": failure.hint and short(failure.hint)}
        )
        for failure in result.failures
    ]
    health = result.health
    if health is not None:
        left = [
            one.model_copy(update={"reason": short(one.reason)}) for one in health.not_looked_at
        ]
        health = health.model_copy(update={"not_looked_at": left})
    return result.model_copy(
        update={
            "health": health,
            "source": short(result.source),
            "family": short(result.family),
            "settings": settings,
            "notes": [short(note) for note in result.notes],
            "failures": failures,
        }
    )


def _roots(path: Path) -> dict[str, str]:
    """Part of an absolute path that is left out."""
    if not path.is_absolute() or path == path.parent:
        return {}
    above = path.parent
    if _SNAPSHOTS in path.parts:
        above = Path(*path.parts[: path.parts.index(_SNAPSHOTS)]).parent
    return {_ending(above): ""} if above != above.parent else {os.fspath(path): path.name}


def _ending(folder: Path) -> str:
    return os.fspath(folder).rstrip(os.sep) + os.sep
