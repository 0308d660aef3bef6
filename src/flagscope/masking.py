"""URLs, and texts with URLs in them, without the credentials that they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

# Of two letters at least: C:/ is a disk. One slash too few is a slip, and no less secret.
_URL = re.compile(r"[A-Za-z][\w+.-]+:/+[^\s'\"<>`]+")
# fsspec chains URLs: simplecache::https://host/file.
_CHAIN = re.compile(r"::(?=[A-Za-z][\w+.-]+://)")
_PIECES = re.compile(r"[:/@?#&=;,]")
_WEB = ("http", "https", "ftp", "ftps", "webdav", "dav", "davs")
# What stands in front of the @ is a container, not a user.
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs", "az", "adl", "hf")
_SHORTEST = 3


def shown_url(url: str) -> str:
    """A URL without user and password, signed query and fragment.

    Examples
    --------
    >>> shown_url("https://user:secret@host/a.safetensors?X-Amz-Signature=secret#secret")
    'https://host/a.safetensors'
    >>> shown_url("simplecache::HTTP://user:sec/ret@host:80/a")
    'simplecache::HTTP://host:80/a'
    """
    return "::".join(_split(part)[0] for part in _CHAIN.split(url))


def masked(text: str) -> str:
    """A text without the credentials of the URLs in it.

    Examples
    --------
    >>> masked("cannot read 'http://user:secret@host/a?sig=secret': 403")
    "cannot read 'http://host/a': 403"
    """
    return _URL.sub(lambda url: shown_url(url[0]), text) if ":/" in text else text


def without_secrets(text: str, url: str) -> str:
    """A text in which neither the credentials of a URL nor pieces of them occur.

    Libraries quote pieces of a URL, decoded or encoded, as in "invalid port 'secret'".

    Examples
    --------
    >>> without_secrets("invalid port 'secret'", "http://user:secret/key@host/a")
    "invalid port '***'"
    """
    secrets = {secret for part in _CHAIN.split(url) for secret in _secrets(_split(part)[1])}
    text = masked(text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def has_unclear_user(url: str) -> bool:
    """Whether user or password hold a character that ends them: it has to be encoded.

    Examples
    --------
    >>> [has_unclear_user(f"http://user:{text}@host/a") for text in ("sec/ret", "sec%2Fret")]
    [True, False]
    """
    return any(_user_end(part.partition("://")[2])[1] for part in _CHAIN.split(url))


def _split(part: str) -> tuple[str, list[str]]:
    """One URL as it may be shown, and the parts of it that may not."""
    scheme, mark, rest = part.partition(":/")
    if not mark:
        return part, []
    scheme, hidden, slashes = scheme.lower(), [], len(rest) - len(rest.lstrip("/"))
    mark, rest = mark + rest[:slashes], rest[slashes:]
    end, _ = _user_end(rest)
    if end and not (scheme in _CONTAINERS and ":" not in rest[:end]):
        hidden.append(rest[: end - 1])
        rest = rest[end:]
    # Elsewhere a question mark may be part of an object's name; a signature is key=value.
    query = re.search(r"[?#]" if scheme in _WEB else r"\?(?=[^/]*=)", rest)
    if query is not None:
        hidden.append(rest[query.end() :])
        rest = rest[: query.start()]
    return part[: part.index(":/")] + mark + rest, hidden


def _user_end(rest: str) -> tuple[int, bool]:
    """End of user and password in what follows ://, and whether it is ambiguous."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rindex("@") + 1, False
    port = authority.rpartition(":")[2] if ":" in authority else ""
    # user:sec/ret@host is cut at its slash: then what should be a port is none.
    if port and not port.isdecimal() and not authority.startswith("[") and "@" in rest:
        return rest.rindex("@") + 1, True
    return 0, False


def _secrets(hidden: list[str]) -> Iterator[str]:
    for text in hidden:
        for piece in (text, *_PIECES.split(text)):
            for form in (piece, unquote(piece), quote(piece), quote(piece, safe="")):
                if len(form) >= _SHORTEST:
                    yield form
