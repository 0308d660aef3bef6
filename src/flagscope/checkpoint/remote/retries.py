"""Timeouts and retries of requests to stores."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from flagscope.checkpoint.remote.errors import is_lasting, is_timeout
from flagscope.errors import InputError, SourceError

VARIABLE = "FLAGSCOPE_TIMEOUT"
ATTEMPTS = 3
_SECONDS = 10.0  # without a byte
_PAUSE = 0.2  # seconds
# An answer that comes byte by byte is never silent: one of 8 MiB may take this many times as long.
_WHOLE = 30
R = TypeVar("R")

_silent: dict[str, float] = {}
_lock = threading.Lock()


def seconds() -> float:
    """Seconds without a byte after which a store is taken to be silent.

    Raises
    ------
    InputError
        If FLAGSCOPE_TIMEOUT is set to something else than a number of seconds.
    """
    given = os.environ.get(VARIABLE, "")
    if not given:
        return _SECONDS
    try:
        found = float(given)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise InputError(
            f"{VARIABLE} is {given!r}.", hint=f"give seconds, such as {_SECONDS:g}, or unset it."
        )
    return found


def in_all() -> float:
    """Seconds after which a request is not retried."""
    return ATTEMPTS * seconds()


def store_options(url: str) -> dict[str, Any]:
    """Arguments of `fsspec.core.url_to_fs` that limit the waiting, next to what the user set."""
    from fsspec.config import conf

    options: dict[str, Any] = {}
    for part in url.split("::"):
        protocol = part.partition("://")[0]
        given: dict[str, Any] = dict(conf.get(protocol) or {})
        if protocol in ("http", "https"):
            try:
                from aiohttp import ClientTimeout
            except ImportError:
                continue  # said where the store is made
            limit = ClientTimeout(
                total=_WHOLE * seconds(), sock_connect=seconds(), sock_read=seconds()
            )
            options[protocol] = {
                "client_kwargs": {"timeout": limit, **(given.get("client_kwargs") or {})}
            }
        elif protocol in ("s3", "s3a"):
            # Asking again is done here alone: three layers of it would multiply.
            limits = {"connect_timeout": seconds(), "read_timeout": seconds(),
                      "retries": {"total_max_attempts": 1, "mode": "standard"}}  # fmt: skip
            options[protocol] = {"config_kwargs": {**limits, **(given.get("config_kwargs") or {})}}
    return options


def patiently(question: Callable[[], R], *, place: str) -> R:
    """The answer; a question that failed for no lasting reason is asked again, for a time.

    Parameters
    ----------
    question
        Raises what the store's driver raises.
    place
        The server. One that was silent to the end of a question's time is not waited for again
        by the next question, unless that comes later.

    Raises
    ------
    SourceError
        If the server was silent a moment ago.
    """
    begun = time.monotonic()
    with _lock:
        if _silent.get(place, 0.0) > begun:
            raise SourceError(
                f"{place} did not answer a moment ago, and is not asked again yet.", hint=SILENT
            )
    try:
        return retried(question, is_lasting=is_lasting, limit=in_all())
    except Exception as error:
        if is_timeout(error) and not is_lasting(error):
            with _lock:
                _silent[place] = time.monotonic() + in_all()
        raise


def retried(
    question: Callable[[], R],
    *,
    is_lasting: Callable[[Exception], bool],
    limit: float = math.inf,
) -> R:
    """The answer; a question that failed for no lasting reason is asked again, with a pause.

    Parameters
    ----------
    question
        Raises whatever it does; the last error passes.
    is_lasting
        Whether asking again after an error is of no use.
    limit
        Seconds from the first attempt after which none begins.
    """
    begun = time.monotonic()
    for attempt in itertools.count(1):
        try:
            return question()
        except Exception as error:
            pause = max(_PAUSE * attempt, _asked_pause(error))
            late = time.monotonic() + pause - begun > limit
            if is_lasting(error) or attempt == ATTEMPTS or late:
                raise
        time.sleep(pause)
    raise AssertionError  # the last attempt gave or raised something


SILENT = (
    f"try again later, or set {VARIABLE} to more seconds than the {_SECONDS:g} that a server may "
    "be silent."
)


def _asked_pause(error: BaseException) -> float:
    """Seconds that a busy server asks to wait (Retry-After, as a number or a date)."""
    for cause in (error, error.__cause__):
        headers: Any = getattr(cause, "headers", None)
        value = headers.get("Retry-After") if hasattr(headers, "get") else None
        if isinstance(value, str):
            try:
                return max(0.0, float(value))
            except ValueError:
                pass
            try:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except (ValueError, TypeError):
                return 0.0
    return 0.0
