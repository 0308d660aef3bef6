"""What every hostile file must meet: an error of the tree, with a hint, and no code run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.errors import FlagscopeError, SourceError

Refused = Callable[..., SourceError]


def read_whole(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.tensors:
            checkpoint.read(name)
        checkpoint_fingerprint(checkpoint)


def hints_of_changed_bytes(path: Path, *, times: int, first: int = 0) -> list[str | None]:
    """Hints of the errors that reading ends in, where one byte of the file is another."""
    whole, rng = path.read_bytes(), random.Random(0)
    hints = []
    for _ in range(times):
        content = bytearray(whole)
        content[rng.randrange(first, len(whole))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            read_whole(path)
        except FlagscopeError as error:
            hints.append(error.hint)
    return hints


@pytest.fixture
def refused() -> Refused:
    def refused(path: Path, kind: type[SourceError], says: str = "") -> SourceError:
        """The error that opening and reading everything ends in."""
        with pytest.raises(SourceError, match=says or None) as caught:
            read_whole(path)
        assert type(caught.value) is kind
        assert caught.value.hint
        assert str(path.parent) in str(caught.value) or "tensor" in str(caught.value)
        assert len(str(caught.value)) < 1000
        return caught.value

    return refused
