"""Files of a model on the hub, read by ranges of bytes: for looking at headers without fetching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.remote.retries import retried, seconds
from flagscope.errors import CorruptFileError, MissingFileError, SourceError

_AT_ONCE = 8
R = TypeVar("R")


class HubPath(RemotePath):
    """A file of a model on the hub, or its folder, with the interface of a path behind a URL.

    Requests go through huggingface_hub: its endpoint, token and proxies.

    Parameters
    ----------
    name
        Of the model.
    commit
        A commit, so that files of one model belong together.
    file
        Path of the file in the model; empty for the model itself.
    """

    def __init__(self, name: str, commit: str, file: str) -> None:
        from huggingface_hub import hf_hub_url

        place = hf_hub_url(name, file or "x", revision=commit)
        super().__init__(place if file else place.removesuffix("x"))
        self._parts_of_name = name, commit, file

    def __str__(self) -> str:
        name, commit, file = self._parts_of_name
        return f"hf://{name}@{commit[:12]}/{file}"

    def __reduce__(self) -> tuple[Any, ...]:
        return HubPath, self._parts_of_name

    @property
    def first(self) -> int:
        """Enough to identify the format; the header is then asked for by its own length."""
        return 64

    @property
    def name(self) -> str:
        """The last part."""
        return self._parts_of_name[2].rpartition("/")[2]

    @property
    def parent(self) -> HubPath:
        """The folder that it lies in."""
        name, commit, file = self._parts_of_name
        return HubPath(name, commit, file.rpartition("/")[0])

    def __truediv__(self, other: str) -> HubPath:
        name, commit, file = self._parts_of_name
        return HubPath(name, commit, f"{file}/{other}" if file else other)

    @property
    def _info(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        found = self.__dict__.get("_known")
        if found is None:
            from huggingface_hub import get_hf_file_metadata

            seen = self._tried(
                lambda: get_hf_file_metadata(self.url, headers=_headers(), timeout=seconds())
            )
            found = {"type": "file", "size": seen.size, "ETag": seen.etag}
            self.__dict__["_known"] = found
        return found

    def forget(self) -> None:
        """Nothing is remembered that could be old: a commit does not change."""

    def read_bytes(self) -> bytes:
        """Content of a small file."""
        return self._tried(lambda: self._got(None))

    def check_ranges(self) -> None:
        """Every range is checked as it comes."""

    def check_unchanged(self) -> None:
        """A commit does not change."""

    def _parts(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        def part(span: tuple[int, int]) -> bytes:
            return b"" if span[0] == span[1] else self._tried(lambda: self._got(span))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(part, spans))

    def _got(self, span: tuple[int, int] | None) -> bytes:
        """Bytes of one request, which is broken off where the whole file would come for a part."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status

        session: Any = get_session()
        headers = _headers()
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        if callable(getattr(session, "stream", None)):  # httpx; older versions have requests
            opened = session.stream(
                "GET", self.url, headers=headers, timeout=seconds(), follow_redirects=True
            )
        else:
            opened = session.get(self.url, headers=headers, timeout=seconds(), stream=True)
        with opened as response:
            hf_raise_for_status(response)
            if span is not None and response.status_code != 206:
                raise SourceError(
                    f"the server of {self} sends whole files only, not parts of them.",
                    hint="download the files and give their folder.",
                )
            content = response.read() if hasattr(response, "read") else response.content
        if span is not None and len(content) != span[1] - span[0]:
            raise CorruptFileError(
                f"{self} gave {len(content)} bytes of {span[1] - span[0]} from byte {span[0]} on.",
                hint="try again.",
            )
        return content

    def _tried(self, question: Callable[[], R]) -> R:
        """The hub's answer; what failed for no lasting reason is asked again."""
        from huggingface_hub.utils import EntryNotFoundError

        try:
            return retried(question, is_lasting=_is_lasting)
        except EntryNotFoundError as error:
            raise MissingFileError(
                f"there is no {self}.", hint="is the model whole? Look at its page."
            ) from error
        except SourceError:
            raise
        except Exception as error:  # of the HTTP library, which differs between versions
            raise SourceError(
                f"cannot read {self}: {str(error).partition(chr(10))[0]}",
                hint="try again later, or download the files and give their folder.",
            ) from error


def _is_lasting(error: Exception) -> bool:
    """Whether the hub would give the same answer again."""
    from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError

    status = getattr(getattr(error, "response", None), "status_code", 500)
    refused = isinstance(error, HfHubHTTPError) and status < 500 and status != 429
    return refused or isinstance(error, (SourceError, EntryNotFoundError))


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return {**build_hf_headers(library_name="flagscope"), "Accept-Encoding": "identity"}
