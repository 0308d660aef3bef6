"""Failures of a store, in words: drivers, credentials, missing objects, the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from flagscope.errors import FlagscopeError, MissingExtraError, MissingFileError, SourceError
from flagscope.masking import without_secrets

# The driver behind each protocol that fsspec does not bring along.
_EXTRAS = {"s3": "s3", "s3a": "s3", "http": "remote", "https": "remote"}
_PACKAGES = {
    "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    "oci": "ocifs", "sftp": "paramiko", "ssh": "paramiko", "webhdfs": "requests",
}  # fmt: skip
# Of botocore, by name, since it is not imported here.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError",
    "DefaultCredentialsError",
}  # fmt: skip
_CREDENTIALS_HINT = (
    "give credentials as its tools take them (for s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE, or FSSPEC_S3_ANON=true for a public bucket), and check the name."
)
# Of botocore, aiohttp and httpx.
_SILENCE = {
    "ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionTimeout", "ServerTimeoutError",
    "SocketTimeoutError", "ConnectTimeout", "ReadTimeout", "PoolTimeout",
}  # fmt: skip
_CERTAIN = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError,
            ImportError, ValueError, TypeError, NotImplementedError)  # fmt: skip


class _Named(Protocol):
    url: str


def is_lasting(error: Exception) -> bool:
    """Whether asking again cannot help."""
    status = _status(error)
    if is_timeout(error):
        return False
    if status is not None:
        # A redirection that is an error is one that leads round in a circle.
        return 300 <= status < 500 and status not in (408, 425, 429)
    return isinstance(error, (*_CERTAIN, FlagscopeError)) or (
        type(error).__name__ in _NO_CREDENTIALS
    )


def is_timeout(error: BaseException | None) -> bool:
    """Whether nothing came for too long, by the error or the one behind it."""
    behind = None if error is None else error.__cause__
    return any(
        isinstance(found, TimeoutError) or type(found).__name__ in _SILENCE
        for found in (error, behind, None if behind is None else behind.__cause__)
    )


def is_refusal(error: BaseException | None) -> bool:
    """Whether the store answered, and does not let this be read."""
    return isinstance(error, PermissionError) or _status(error) in (401, 403)


@contextmanager
def explained(path: _Named) -> Iterator[None]:
    """Errors of drivers as errors of a source, with a hint.

    Drivers raise what the libraries under them raise, of which there is no common base; this is
    the one place where they pass.
    """
    try:
        yield
    except FlagscopeError:
        raise
    except Exception as error:
        raise _explanation(error, path) from error


def _explanation(error: Exception, path: _Named) -> FlagscopeError:
    protocol = path.url.partition("://")[0].rpartition("::")[2]
    status = _status(error)
    if isinstance(error, ImportError):
        extra, package = _EXTRAS.get(protocol), _PACKAGES.get(protocol)
        install = f"'flagscope[{extra}]'" if extra else package or "the package it names"
        return MissingExtraError(
            f"{protocol}:// needs a driver that is not installed: {_first_line(error, path)}",
            hint=f"pip install {install}",
        )
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return SourceError(
            f"{protocol}:// is no protocol that fsspec knows.",
            hint="fsspec reads s3://, gs://, abfs://, https://, hf:// and others.",
        )
    if is_refusal(error) or type(error).__name__ in _NO_CREDENTIALS:
        return SourceError(
            f"the store does not let {path} be read: {_first_line(error, path)}",
            hint=_CREDENTIALS_HINT,
        )
    if is_timeout(error):
        return SourceError(
            f"cannot read {path}: the server sends nothing, or too little at a time.",
            hint="try again later, set FLAGSCOPE_TIMEOUT to more seconds, or download the "
            "checkpoint and give its path.",
        )
    if type(error.__cause__).__name__ == "TooManyRedirects":
        return SourceError(
            f"cannot read {path}: its server sends from one address to the next without end.",
            hint="check the URL, or download the checkpoint and give its path.",
        )
    if isinstance(error, FileNotFoundError) and status in (None, 404, 410):
        return MissingFileError(
            f"there is no {path}, or nobody answers there.",
            hint="check the URL for typing errors; a folder's weights are found by their names.",
        )
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # fsspec says so of all that it cannot ask the size of
    return SourceError(
        f"cannot read {path}: {type(error).__name__}: {_first_line(error, path)}",
        hint="is the store reachable? Try again, or download the checkpoint and give its path.",
    )


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error, or of the error behind it."""
    for one in (error, getattr(error, "__cause__", None)):
        status = getattr(one, "status", None)
        if isinstance(status, int):
            return status
    return None


def _first_line(error: Exception, path: _Named) -> str:
    """The reason, without the credentials of the URLs in it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return without_secrets(line, path.url)
