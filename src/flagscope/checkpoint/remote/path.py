"""Files behind fsspec URLs (s3://, https://, memory://, …): sizes, listings and ranges of bytes."""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from flagscope.checkpoint.remote.errors import explained, is_refusal
from flagscope.checkpoint.remote.retries import patiently, store_options
from flagscope.checkpoint.remote.web import web_parts, web_state
from flagscope.errors import CorruptFileError, MissingFileError, SourceError
from flagscope.masking import has_unclear_user, shown_url

# Object stores serve one request at some 50-100 MB/s and answer after some 30 ms: parts of this
# size, this many at a time, fill a line without holding more than 64 MiB twice.
_PART = 8 * 2**20
_AT_ONCE = 8
# Reading this much for nothing costs less than another request.
_GAP = 2**16
# Of a first request that is longer than the header, the rest is read for nothing: of a large file
# at most this share.
_FIRST_SHARE = 1 / 400
_FIRST, _LEAST_FIRST = 2**18, 2**14
# Fields by which stores distinguish two states of a file, the surest first.
_STAMPS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "content_md5", "blob_id"),
    *("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created"),
)
_WEB = ("http://", "https://")
_SCHEME = re.compile(r"(?<![\w+.-])[A-Za-z][\w+.-]*(?=://)")
R = TypeVar("R")


class RemoteEntry(NamedTuple):
    """A file or folder in a folder; the stamp of a file is None where its store gives no tag."""

    name: str
    is_folder: bool
    stamp: str | None


class RemotePath:
    """A file or folder behind a URL, with what readers use of `pathlib.Path`.

    Nothing is asked of the store until a method is called. It can be pickled and used after a
    fork: connections belong to the process and are shared by its paths.

    Parameters
    ----------
    url
        As the user gave it. Credentials in it (user:password@, a signed query) are never shown.
    """

    def __init__(self, url: str) -> None:
        # Of a chain of URLs (simplecache::https://…) the last names the file.
        chain, link, last = url.rpartition("::")
        if "://" not in last:
            chain, link, last = "", "", url
        last = _SCHEME.sub(lambda scheme: scheme[0].lower(), last, count=1)
        # Only on the web does a question mark begin a query; a key of an object may hold one. A
        # fragment is never sent.
        web = last.startswith(_WEB)
        stem, mark, query = last.partition("#")[0].partition("?") if web else (last, "", "")
        self.url = chain + link + stem + mark + query
        self._stem, self._query = chain + link + stem, mark + query
        _check_user(url)

    def __str__(self) -> str:
        return shown_url(self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self.url,)

    @property
    def name(self) -> str:
        """The last part."""
        return self._stem.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Suffix of the name: its last dot and what follows."""
        stem, dot, end = self.name.rpartition(".")
        return dot + end if stem else ""

    @property
    def parent(self) -> RemotePath:
        """The folder that it lies in."""
        return RemotePath(self._stem.rstrip("/").rpartition("/")[0] + "/" + self._query)

    @property
    def on_the_web(self) -> bool:
        """Whether a web server answers, which lists no folders."""
        return self.url.startswith(_WEB)

    @property
    def has_query(self) -> bool:
        """Whether a question mark and what follows belong to the URL, as a signature does."""
        return bool(self._query)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self._stem.rstrip('/')}/{name}{self._query}")

    @cached_property
    def size(self) -> int:
        """Bytes of the file.

        Raises
        ------
        MissingFileError, SourceError, MissingExtraError
            If there is no such file, the store does not let it be read or does not answer, or
            its driver is not installed.
        """
        info = self._info
        if info.get("type") == "directory":
            raise MissingFileError(
                f"{self} is a folder, not a file.", hint="name one of its files."
            )
        if info.get("size") is None:
            raise SourceError(
                f"the server does not tell the size of {self}.",
                hint="download the file and give its path.",
            )
        return int(info["size"])

    @property
    def first(self) -> int:
        """Bytes of a first request: headers of most files fit."""
        return min(_FIRST, max(_LEAST_FIRST, int(self.size * _FIRST_SHARE)))

    @cached_property
    def _info(self) -> dict[str, Any]:
        return self._asked(lambda store, path: store.info(path))

    @property
    def stamp(self) -> str:
        """Size, and the tag or the time of change that the store gives: they distinguish files."""
        return _stamp(self._info)

    @property
    def has_tag(self) -> bool:
        """Whether the store gives a tag or a time of change, and not the size alone."""
        return bool(_tag(self._info))

    def is_file(self) -> bool:
        """Whether there is such a file that may be read."""
        try:
            return self.size >= 0
        except MissingFileError:
            return False
        except SourceError as error:
            # A store that does not let folders be listed says "forbidden" of what is not there, and
            # a signed URL opens one file and none next to it.
            if is_refusal(error.__cause__):
                return False
            raise

    def entries(self) -> list[RemoteEntry]:
        """What lies in a folder, by name; what an earlier listing said is forgotten.

        One request for each 1,000 entries or so. What lies further down is not listed.

        Raises
        ------
        MissingFileError, SourceError, MissingExtraError
            As for `size`.
        """

        def listed(store: Any, path: str) -> list[RemoteEntry]:
            store.invalidate_cache(path)
            folder = store._strip_protocol(path).strip("/")
            found = [(str(info["name"]).strip("/"), info) for info in store.ls(path, detail=True)]
            # The folder's own marker, and keys with an empty part, have no name in it.
            return [
                RemoteEntry(
                    name.rpartition("/")[2],
                    _is_folder(info),
                    _stamp(info) if _tag(info) else None,
                )
                for name, info in found
                if name != folder
            ]

        return sorted(self._asked(listed), key=lambda entry: (entry.name, entry.is_folder))

    def names(self) -> list[str]:
        """Names of the files in a folder, sorted; what an earlier listing said is forgotten."""
        return [entry.name for entry in self.entries() if not entry.is_folder]

    def forget(self) -> None:
        """Take nothing from an earlier listing of its folder: the file may be a new one."""
        self._asked(lambda store, path: store.invalidate_cache(store._parent(path)))

    def read_bytes(self) -> bytes:
        """Content of a small file."""
        return self._asked(lambda store, path: store.cat_file(path))

    def read_range(self, start: int, stop: int) -> bytearray:
        """Bytes start … stop, large ones in parts at a time.

        Raises
        ------
        CorruptFileError
            If the store gives fewer.
        """
        whole = bytearray(stop - start)
        step = _PART * _AT_ONCE
        for begin in range(start, stop, step):
            edges = [*range(begin, min(begin + step, stop), _PART), min(begin + step, stop)]
            spans = list(itertools.pairwise(edges))
            for (a, b), part in zip(spans, self._parts(spans), strict=True):
                whole[a - start : b - start] = part
        return whole

    def read_spans(
        self, spans: Sequence[tuple[int, int]], *, spare: float = math.inf
    ) -> list[bytes]:
        """Bytes of many short spans; those that lie close together take one request.

        What lies between spans of one request is read for nothing: at most 64 KiB in one place,
        and in all at most the share `spare` of the file, or 64 KiB if that is more.
        """
        blocks = _joined(spans, spare=max(_GAP, self.size * spare))
        parts = self._parts(blocks)
        begins = [start for start, _ in blocks]
        found = []
        for start, stop in spans:
            at = bisect.bisect_right(begins, start) - 1
            found.append(parts[at][start - begins[at] : stop - begins[at]])
        return found

    def check_ranges(self) -> None:
        """Refuse a web server that would send the whole file for a part of it."""
        if not self.on_the_web or self.size < 2:
            return

        def probed(store: Any, path: str) -> bytes:
            with store.open(path, size=self.size, cache_type="none") as file:
                return file._fetch_range(1, 2)

        try:
            self._asked(probed)
        except SourceError as error:
            if isinstance(error.__cause__, ValueError):
                raise SourceError(
                    f"the server of {self} sends whole files only, not parts of them.",
                    hint="download the file and give its path.",
                ) from error
            raise

    def _parts(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes of each span, as many requests."""

        def fetched(store: Any, path: str) -> list[bytes]:
            if self.on_the_web:
                return web_parts(store, path, spans, web_state(str(self), self.size, self._info))
            starts, stops = [a for a, _ in spans], [b for _, b in spans]
            options = {"batch_size": _AT_ONCE} if store.async_impl else {}
            return store.cat_ranges([path] * len(spans), starts, stops, on_error="raise", **options)

        parts = self._asked(fetched)
        for (start, stop), part in zip(spans, parts, strict=True):
            if len(part) != stop - start:
                raise CorruptFileError(
                    f"{self} gave {len(part)} bytes of {stop - start} from byte {start} on.",
                    hint="it was cut short or replaced meanwhile; upload it again, or try again.",
                )
        return parts

    def check_unchanged(self) -> None:
        """Ask the store again for the state of the file, after a read of data.

        A web server says it with each answer, and does not need to be asked.

        Raises
        ------
        CorruptFileError
            If it is not that of the opening.
        """

        if self.on_the_web:
            return

        def looked(store: Any, path: str) -> dict[str, Any]:
            store.invalidate_cache(store._parent(path))
            return store.info(path)

        if _stamp(self._asked(looked)) != self.stamp:
            raise CorruptFileError(
                f"{self} was changed while it was being read.",
                hint="wait until it is uploaded, and start again.",
            )

    def _asked(self, question: Callable[[Any, str], R]) -> R:
        """The store's answer; a question that failed for no lasting reason is asked again."""
        from fsspec.core import url_to_fs

        with explained(self):
            # The same instance for the same store, and another one in another process.
            store, path = url_to_fs(self.url, **store_options(self.url))
            if hasattr(store, "retries"):
                store.retries = 1  # s3fs would ask five times each time that it is asked
            place = shown_url(self.url).rpartition("::")[2]
            return patiently(lambda: question(store, path), place="://".join(urlsplit(place)[:2]))


def _joined(spans: Sequence[tuple[int, int]], *, spare: float) -> list[tuple[int, int]]:
    """Blocks that hold the spans, in order; the narrowest gaps are closed first."""
    blocks: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if blocks and start < blocks[-1][1]:
            blocks[-1] = blocks[-1][0], max(stop, blocks[-1][1])
        else:
            blocks.append((start, stop))
    gaps = sorted((after[0] - before[1], after[0]) for before, after in itertools.pairwise(blocks))
    sums = itertools.accumulate(gap for gap, _ in gaps)
    closed = {
        at for (gap, at), used in zip(gaps, sums, strict=True) if gap <= _GAP and used <= spare
    }
    joined: list[tuple[int, int]] = []
    for start, stop in blocks:
        if joined and start in closed and stop - joined[-1][0] <= _PART:
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((start, stop))
    return joined


def _stamp(info: Mapping[str, Any]) -> str:
    return f"{info.get('size')} {_tag(info)}"


def _tag(info: Mapping[str, Any]) -> str:
    """The tag or the time of change that a store gives; empty if neither."""
    given = (info.get(key) for key in _STAMPS)
    return str(next((tag for tag in given if tag is not None), ""))


def _is_folder(info: Mapping[str, Any]) -> bool:
    return info.get("type") == "directory" or str(info["name"]).endswith("/")


def _check_user(url: str) -> None:
    """Refuse credentials that would be taken for something else, and shown by somebody.

    Raises
    ------
    SourceError
        If user or password hold a character that ends them, or are those of S3.
    """
    if has_unclear_user(url):
        raise SourceError(
            f"the user or password in the URL of {shown_url(url)} holds a character that ends it.",
            hint="write / as %2F, ? as %3F, # as %23 and @ as %40 in it.",
        )
    user = url.rpartition("::")[2].partition("://")[2].partition("/")[0].rpartition("@")[0]
    if ":" in user and url.rpartition("::")[2].lower().startswith(("s3://", "s3a://")):
        raise SourceError(
            f"{shown_url(url)}: keys of S3 are not taken from a URL.",
            hint="give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by AWS_PROFILE.",
        )
