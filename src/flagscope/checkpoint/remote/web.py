"""Ranges of a file on a web server, each answer checked: is it the part, and of the same file?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flagscope.errors import CorruptFileError, SourceError

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_VALIDATORS = ("ETag", "Last-Modified")
_AT_ONCE = 8


@dataclass(frozen=True)
class WebState:
    """A file as it was when it was opened.

    Attributes
    ----------
    shown
        Its URL without credentials.
    size
        Its bytes.
    validators
        The ETag and the time of change that the server gave, by the names of their headers.
    """

    shown: str
    size: int
    validators: Mapping[str, str]


def web_state(shown: str, size: int, info: Mapping[str, Any]) -> WebState:
    """State of the file according to the answer to the first request."""
    told = {key: str(info[key]) for key in _VALIDATORS if info.get(key)}
    return WebState(shown, size, told)


def web_parts(
    store: Any, url: str, spans: Sequence[tuple[int, int]], state: WebState
) -> list[bytes]:
    """Bytes of each span, as many requests, some of them at a time.

    Parameters
    ----------
    store
        fsspec's HTTPFileSystem, which keeps the connections.
    url
        Of the file.
    spans
        First byte, and the one behind the last.
    state
        What each answer is compared with.

    Raises
    ------
    SourceError
        If the server sends something else than the range.
    CorruptFileError
        If the file is another one by now, or an answer is cut short.

    References
    ----------
    RFC 9110, HTTP semantics, sections 8.8 (validators) and 14 (range requests).
    """
    from fsspec.asyn import sync

    found: Any = sync(store.loop, _all_parts, store, url, spans, state)
    return found


async def _all_parts(
    store: Any, url: str, spans: Sequence[tuple[int, int]], state: WebState
) -> list[bytes]:
    session = await store.set_session()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def part(start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        headers = {**store.kwargs.get("headers", {}), "Accept-Encoding": "identity",
                   "Range": f"bytes={start}-{stop - 1}"}  # fmt: skip
        options = {**store.kwargs, "headers": headers}
        async with gate, session.get(store.encode_url(url), **options) as answer:
            store._raise_not_found_for_status(answer, url)
            _check(answer.status, answer.headers, start, stop, state)
            try:
                data = await answer.content.readexactly(stop - start)
            except asyncio.IncompleteReadError as error:
                raise CorruptFileError(
                    f"{state.shown} gave {len(error.partial)} bytes of {stop - start} from byte "
                    f"{start} on.",
                    hint="it was cut short or replaced meanwhile; upload it again, or try again.",
                ) from error
            if not answer.content.at_eof() and await answer.content.read(1):
                raise _no_range(state, "more than the part that was asked for")
            return data

    # The first error cancels the others.
    tasks = [asyncio.ensure_future(part(start, stop)) for start, stop in spans]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _check(status: int, headers: Mapping[str, str], start: int, stop: int, state: WebState) -> None:
    for key, known in state.validators.items():
        if headers.get(key, known) != known:
            raise _changed(state, f"its {key} is another one")
    if status != 206:
        raise _no_range(state, "whole files only, not parts of them")
    if headers.get("Content-Encoding", "identity") not in ("identity", ""):
        raise _no_range(state, f"parts packed ({headers['Content-Encoding'][:40]})")
    found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None:
        raise _no_range(state, "parts without saying which")
    if found[3] != "*" and int(found[3]) != state.size:
        raise _changed(state, f"it has {found[3]} bytes, and had {state.size}")
    if (int(found[1]), int(found[2]) + 1) != (start, stop):
        raise _no_range(
            state, f"bytes {found[1]} to {found[2]} where {start} to {stop - 1} were asked for"
        )


def _changed(state: WebState, reason: str) -> CorruptFileError:
    return CorruptFileError(
        f"{state.shown} was changed while it was being read: {reason}.",
        hint="wait until it is uploaded, and start again.",
    )


def _no_range(state: WebState, what: str) -> SourceError:
    return SourceError(
        f"the server of {state.shown} sends {what}.", hint="download the file and give its path."
    )
