"""The one tree of errors.

Every error carries an optional hint that says what to do; the command line prints it on a
`hint:` line of its own.

    FlagscopeError
    ├── InputError (ValueError)         an argument has the wrong shape, type or value
    ├── SourceError                     a source cannot be read
    │   ├── MissingFileError            a file, shard or repository is not there
    │   ├── CorruptFileError            truncated, inconsistent or not of its format
    │   ├── UnsafeFileError             holds pickled code; refused, never run
    │   ├── UnknownDtypeError           a stored data type that cannot be widened exactly
    │   └── UnforeseenError             reading or mapping it failed as no check foresaw
    ├── StoreError                      results cannot be kept, or kept ones are damaged
    ├── ArchitectureError               no mapping from tensors to maps could be made
    └── MissingExtraError (ImportError) an optional dependency is not installed
"""

from __future__ import annotations

from flagscope.shortening import shortened


class FlagscopeError(Exception):
    """Base of all errors that flagscope raises on purpose.

    Parameters
    ----------
    message
        What was expected and what came. Names of any length may be in it: it is shortened.
    hint
        What the user can do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(shortened(message))
        self.hint = hint
        if hint is not None:  # tracebacks, in notebooks too, show it below the message
            self.add_note(f"hint: {hint}")


class InputError(FlagscopeError, ValueError):
    """An argument has the wrong shape, type or value."""


class SourceError(FlagscopeError):
    """A checkpoint cannot be read."""


class MissingFileError(SourceError):
    """A file, a shard or a repository is not there."""


class CorruptFileError(SourceError):
    """A file is truncated, inconsistent or not of its format."""


class UnsafeFileError(SourceError):
    """A file holds pickled code; it is refused, and the code is never run."""


class UnknownDtypeError(SourceError):
    """A stored data type that cannot be widened exactly."""


class UnforeseenError(SourceError):
    """Reading, mapping or planning a source failed in a way that no check foresaw.

    The exception that was raised first is its cause.
    """


class StoreError(FlagscopeError):
    """Results of a scan cannot be kept on disk, or those kept there are damaged."""


class ArchitectureError(FlagscopeError):
    """No mapping from tensors to linear maps could be made."""


class MissingExtraError(FlagscopeError, ImportError):
    """An optional dependency is not installed."""
