"""What went wrong with a store, in words: drivers, credentials, missing objects, the network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from flagscope.errors import FlagscopeError, MissingExtraError, MissingFileError, SourceError

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
_CERTAIN = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError,
            ImportError, ValueError, TypeError, NotImplementedError)  # fmt: skip
_USER = re.compile(r"://[^/\s@]*@")
_QUERY = re.compile(r"(?<=[^\s?])\?[^\s'\")]+")


class _Named(Protocol):
    url: str


def is_lasting(error: Exception) -> bool:
    """Whether asking again cannot help."""
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in (408, 429)
    return isinstance(error, (*_CERTAIN, FlagscopeError)) or (
        type(error).__name__ in _NO_CREDENTIALS
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
            f"{protocol}:// needs a driver that is not installed: {_first_line(error)}",
            hint=f"pip install {install}",
        )
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return SourceError(
            f"{protocol}:// is no protocol that fsspec knows.",
            hint="fsspec reads s3://, gs://, abfs://, https://, hf:// and others.",
        )
    if is_refusal(error) or type(error).__name__ in _NO_CREDENTIALS:
        return SourceError(
            f"the store does not let {path} be read: {_first_line(error)}", hint=_CREDENTIALS_HINT
        )
    if isinstance(error, FileNotFoundError) and status in (None, 404, 410):
        return MissingFileError(
            f"there is no {path}, or nobody answers there.",
            hint="check the URL for typing errors; a folder's weights are found by their names.",
        )
    return SourceError(
        f"cannot read {path}: {type(error).__name__}: {_first_line(error)}",
        hint="is the store reachable? Try again, or download the checkpoint and give its path.",
    )


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error, or of the error behind it."""
    for one in (error, getattr(error, "__cause__", None)):
        status = getattr(one, "status", None)
        if isinstance(status, int):
            return status
    return None


def _first_line(error: Exception) -> str:
    """The reason, without user, password and query of the URLs in it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return _QUERY.sub("", _USER.sub("://", line))
