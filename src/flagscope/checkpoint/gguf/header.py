"""The header of a GGUF file: metadata and where each tensor lies, every offset checked.

The gguf package has a reader too, `gguf.GGUFReader`, which is not used. It maps the whole file,
makes NumPy arrays for every word of a vocabulary, which takes seconds, and slices beyond the end of
a file that was cut short without noticing it. Here every length is compared with the file before it
is believed, and vocabularies are skipped. Blocks are dequantised by the package; see `types`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.errors import CorruptFileError, SourceError

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?",
            10: "Q", 11: "q", 12: "d"}  # fmt: skip
# Longer arrays are vocabularies, which say nothing of the weights.
_LONGEST_ARRAY = 4096
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class GgufTensor:
    """Header entry of one tensor; `offset` counts from the start of the file.

    `part` is the number of the file, where a model is split into several.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    nbytes: int
    part: int = 0


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensors; long arrays of the metadata are left out."""

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]


def gguf_header(placed: PlacedBytes, block_sizes: dict[int, tuple[int, int]]) -> GgufHeader:
    """The header of a file.

    Parameters
    ----------
    placed
        The file.
    block_sizes
        Elements and bytes of a block by the number of its type.

    Raises
    ------
    CorruptFileError
        If the file is truncated, or its header contradicts itself or the file.
    SourceError
        If the file is of another version, byte order, or has a type that is not known.

    References
    ----------
    The GGUF specification, ggml-org/ggml, docs/gguf.md.
    """
    try:
        with placed.opened() as file:
            return _Parser(placed, file).header(block_sizes)
    except OSError as error:
        raise SourceError(
            f"cannot read {placed.path}: {error}.", hint="copy it to a local disk and try again."
        ) from error


class _Parser:
    """Reads fields one after the other, none of them beyond the end of the file."""

    def __init__(self, placed: PlacedBytes, file: BinaryIO) -> None:
        self.path, self.size, self.file, self.at = placed.path, placed.size, file, 0

    def header(self, block_sizes: dict[int, tuple[int, int]]) -> GgufHeader:
        if self.take(min(4, self.size)) != b"GGUF":
            raise self.corrupt("it does not begin with GGUF")
        version = self.number("I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            what = "for big-endian machines" if swapped in _VERSIONS else f"of version {version}"
            raise SourceError(
                f"{self.path} is a GGUF file {what}, which is not supported.",
                hint="convert it again with a current llama.cpp.",
            )
        tensors, entries = self.number("Q"), self.number("Q")
        self.need(24 * tensors + 13 * entries)  # the least that they can take
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.string()
            if key in metadata:
                raise self.corrupt(f"the key {key!r} occurs twice")
            metadata[key] = self.value()
        infos = [self.tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self.corrupt(f"general.alignment is {alignment!r}")
        start = -(-self.at // alignment) * alignment
        return GgufHeader(metadata, self.placed(infos, start, alignment, block_sizes))

    def placed(
        self,
        infos: Sequence[tuple[str, tuple[int, ...], int, int]],
        start: int,
        alignment: int,
        block_sizes: dict[int, tuple[int, int]],
    ) -> tuple[GgufTensor, ...]:
        """The tensors with their place in the file, which no two share."""
        found: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in infos:
            if name in found:
                raise self.corrupt(f"the name {name!r} occurs twice")
            if kind not in block_sizes:
                raise SourceError(
                    f"tensor {name!r} of {self.path} has type number {kind}, which the gguf "
                    "package does not know.",
                    hint="update gguf; if it is the newest, convert the file to a common type.",
                )
            elements, size = block_sizes[kind]
            if shape[-1] % elements:
                raise self.corrupt(f"the rows of {name!r} are no whole number of blocks")
            nbytes = prod(shape) // elements * size
            if offset % alignment or start + offset + nbytes > self.size:
                raise self.corrupt(f"{name!r} lies outside the file or is not aligned")
            found[name] = GgufTensor(name, shape, kind, start + offset, nbytes)
        end = start
        for tensor in sorted(found.values(), key=lambda one: (one.offset, one.nbytes)):
            if tensor.offset < end and tensor.nbytes:
                raise self.corrupt(f"{tensor.name!r} overlaps another tensor")
            end = max(end, tensor.offset + tensor.nbytes)
        return tuple(found.values())

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        dimensions = self.number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self.corrupt(f"{name!r} has {dimensions} dimensions")
        # The fastest axis comes first.
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        return name, shape, self.number("I"), self.number("Q")

    def value(self) -> Any:
        kind = self.number("I")
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(self.code(kind))
        kind, count = self.number("I"), self.number("Q")
        if kind == _STRING:
            self.need(8 * count)
            for _ in range(count):
                self.skip(self.number("Q"))
            return None
        code = self.code(kind)
        size = struct.calcsize("<" + code) * count
        self.need(size)
        if count > _LONGEST_ARRAY:
            self.skip(size)
            return None
        return [self.number(code) for _ in range(count)]

    def code(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise self.corrupt(f"the metadata have a value of type number {kind}")
        return _NUMBERS[kind]

    def number(self, code: str) -> Any:
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return value

    def string(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError:
            raise self.corrupt("a name is no UTF-8") from None

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self.need(size)
        data = self.file.read(size)
        if len(data) < size:
            raise self.corrupt("its header goes beyond its end")
        self.at += size
        return data

    def skip(self, size: int) -> None:
        self.need(size)
        self.at += size
        self.file.seek(self.at)

    def need(self, size: int) -> None:
        if size > self.size - self.at:
            raise self.corrupt("its header goes beyond its end")

    def corrupt(self, reason: str) -> CorruptFileError:
        return CorruptFileError(f"{self.path} is not a whole GGUF file: {reason}.", hint=DAMAGED)
