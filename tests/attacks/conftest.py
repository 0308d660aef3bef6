"""What every hostile file must meet: an error of the tree, with a hint, and no code run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.errors import SourceError

Refused = Callable[..., SourceError]


def read_whole(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.tensors:
            checkpoint.read(name)
        checkpoint_fingerprint(checkpoint)


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
