"""A GGUF model in several files: NAME-00001-of-0000N.gguf and those that belong to it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from flagscope.checkpoint.files.checks import checked_start
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.gguf.header import GgufHeader, gguf_header
from flagscope.errors import CorruptFileError, MissingFileError, SourceError
from flagscope.shortening import listed

_NAME = re.compile(r"(?P<model>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_LISTED = 4


def gguf_parts(
    path: Path, block_sizes: dict[int, tuple[int, int]]
) -> tuple[tuple[PlacedBytes, ...], GgufHeader]:
    """The files of a model of which one is given, and one header for all of them.

    Parameters
    ----------
    path
        Any of them.
    block_sizes
        As for `gguf_header`.

    Returns
    -------
    files, header
        The metadata of the first file, which has those of the model, and all tensors, each with
        the number of its file.

    Raises
    ------
    MissingFileError
        If some of the files are not there.
    CorruptFileError
        If they do not belong together.
    SourceError
        If the names of the other files do not follow from this one's.

    References
    ----------
    ggml-org/llama.cpp, tools/gguf-split: the keys split.no, split.count, split.tensors.count.
    """
    placed = PlacedBytes(path)
    header = gguf_header(placed, block_sizes)
    count = header.metadata.get("split.count", 1)
    if count in (0, 1):
        return (placed,), header
    name = _NAME.fullmatch(path.name)
    if name is None or int(name["count"]) != count:
        raise SourceError(
            f"{path} is one of {count!r} parts of a model, and its name does not tell the others.",
            hint="name the parts as they were written: NAME-00001-of-0000N.gguf",
        )
    paths = tuple(
        path.with_name(f"{name['model']}-{number:05}-of-{name['count']}{name['suffix']}")
        for number in range(1, count + 1)
    )
    missing = [one.name for one in paths if not one.is_file()]
    if missing:
        raise MissingFileError(
            f"{path} is one of {count} parts of a model, of which {len(missing)} are not in its "
            f"folder: {listed(missing, _LISTED)}.",
            hint="fetch the missing files into the same folder.",
        )
    files = tuple(PlacedBytes(part) for part in paths)
    headers = [_part(file, number, count, block_sizes) for number, file in enumerate(files)]
    tensors = tuple(
        replace(tensor, part=number)
        for number, part in enumerate(headers)
        for tensor in part.tensors
    )
    told = headers[0].metadata.get("split.tensors.count", len(tensors))
    if told != len(tensors):
        raise CorruptFileError(
            f"the parts of {path} hold {len(tensors)} tensors, and the first says {told!r}.",
            hint="they are of different models; fetch all of them again.",
        )
    return files, GgufHeader(headers[0].metadata, tensors)


def _part(
    placed: PlacedBytes, number: int, count: int, block_sizes: dict[int, tuple[int, int]]
) -> GgufHeader:
    checked_start(placed.path)
    header = gguf_header(placed, block_sizes)
    found = (header.metadata.get("split.no"), header.metadata.get("split.count"))
    if found != (number, count):
        raise CorruptFileError(
            f"{placed.path} should be part {number} of {count} (counted from 0), and says that it "
            f"is {found[0]!r} of {found[1]!r}.",
            hint="fetch it again under its own name.",
        )
    return header
