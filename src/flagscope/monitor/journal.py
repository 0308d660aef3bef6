"""The record of a training on disk: one JSON object a line, in the order of steps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flagscope.writing import write_whole

JOURNAL = "monitor.jsonl"
ROLLED_BACK = "rolled-back.jsonl"


class Journal:
    """A file that grows by whole lines, each on the disk before the training continues.

    Parameters
    ----------
    folder
        Where the file `monitor.jsonl` is; made if it is not there.

    Examples
    --------
    >>> import tempfile
    >>> journal = Journal(Path(tempfile.mkdtemp()))
    >>> for step in (0, 100, 200):
    ...     journal.append({"step": step, "kind": "gap"})
    >>> journal.cut_from(200)  # the training was resumed from a checkpoint of step 150
    1
    >>> [line["step"] for line in journal.lines()]
    [0, 100]
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / JOURNAL

    def append(self, line: dict[str, Any]) -> None:
        """Write one line, whole."""
        text = json.dumps(line, allow_nan=False) + "\n"
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was written. The half line of a process that was killed is passed over."""
        for line, _ in self._read():
            yield line

    def cut_from(self, step: int) -> int:
        """Take out lines of a step and later ones, which the training takes again.

        They are kept in `rolled-back.jsonl`. A half line at the end is dropped.

        Returns
        -------
        int
            How many lines were taken out.
        """
        if not self.path.exists():
            return 0
        lines = list(self._read())
        kept = b"".join(text for line, text in lines if line["step"] < step)
        again = b"".join(text for line, text in lines if line["step"] >= step)
        if again:
            with self.path.with_name(ROLLED_BACK).open("ab") as file:
                file.write(again)
        if kept != self.path.read_bytes():
            write_whole(self.path, kept)
        return again.count(b"\n")

    def _read(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        if not self.path.exists():
            return
        for text in self.path.read_bytes().splitlines(keepends=True):
            if not text.endswith(b"\n"):
                continue
            try:
                line = json.loads(text)
            except ValueError:  # cut by a full disk, and followed by others
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line, text
