"""The zip files of PyTorch: where their members lie, and the pickle in them."""

from __future__ import annotations

import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.files.placed import Checksum
from flagscope.checkpoint.files.window import Window
from flagscope.checkpoint.files.zip_members import BROKEN_ZIP, data_begin
from flagscope.checkpoint.pickle.machine import unpickled
from flagscope.checkpoint.pickle.records import Global, PickleError
from flagscope.checkpoint.pickle.stored_tensor import Storage
from flagscope.checkpoint.pickle.tensors import TENSOR_MEANINGS, storage_dtype
from flagscope.errors import CorruptFileError

_LONGEST_CODE = 2**24  # bytes of one file of TorchScript's code, unpacked
_CLASS = re.compile(r"^class (\w+)\(", re.MULTILINE)
_LISTS = {
    kind: re.compile(rf"^  __{kind}__ = \[(.*)\]", re.MULTILINE)
    for kind in ("parameters", "buffers")
}


class TorchArchive:
    """A zip file that `torch.save` or `torch.jit.save` wrote, or one with such files in it.

    Parameters
    ----------
    file
        The file, open.
    shown
        Its name, for the messages.
    begin, size
        The part of it that is the archive.

    Raises
    ------
    CorruptFileError
        If the directory at its end is missing or damaged, or names a member twice.
    """

    def __init__(self, file: BinaryIO, shown: str, begin: int, size: int) -> None:
        self._file, self._shown, self._begin, self._size = file, shown, begin, size
        try:
            self._zip = zipfile.ZipFile(Window(file, begin, size))  # pyright: ignore[reportArgumentType]
        except BROKEN_ZIP as error:
            raise CorruptFileError(
                f"{shown} begins like a PyTorch file, but the directory at its end is missing or "
                f"damaged: {error}.",
                hint=DAMAGED,
            ) from error
        self.members: Mapping[str, zipfile.ZipInfo] = {
            member.filename: member for member in self._zip.infolist()
        }
        if len(self.members) < len(self._zip.infolist()):
            raise CorruptFileError(
                f"{shown} holds two members of one name, of which nobody can know which is meant.",
                hint="save it again with torch.save.",
            )
        pickles = [name for name in self.members if name.partition("/")[2] == "data.pkl"]
        pickles += [name for name in self.members if name == "data.pkl"]
        self.root = pickles[0].removesuffix("data.pkl") if pickles else None
        self._code: dict[str, dict[str, tuple[str, ...]]] = {}

    @property
    def is_script(self) -> bool:
        """Whether it is a TorchScript program."""
        return f"{self.root}constants.pkl" in self.members

    def place(self, name: str) -> tuple[int, int]:
        """Where the bytes of a member begin in the file, and how many they are.

        Raises
        ------
        CorruptFileError
            If it is not there, packed, or lies outside of the archive.
        """
        member = self.members.get(name)
        if member is None:
            raise CorruptFileError(
                f"{self._shown} has no member {name[:100]!r}, of which it tells.", hint=DAMAGED
            )
        # torch.save stores members as they are; packed ones could not be read in parts.
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise CorruptFileError(
                f"{self._shown} is a zip file with compressed members, which torch.save never "
                "writes.",
                hint="unpack and repack it without compression, or save it again.",
            )
        if not 0 <= member.header_offset <= self._size:
            raise self._misplaced(name)
        try:
            begin = data_begin(self._file, member, archive=self._begin)
        except zipfile.BadZipFile:
            raise self._misplaced(name) from None
        beyond = begin + member.file_size > self._begin + self._size
        if beyond or member.compress_size != member.file_size:
            raise self._misplaced(name)
        return begin, member.file_size

    def _checksum(self, name: str, begin: int, size: int) -> Checksum | None:
        """The checksum of a member; None where they were left out when the file was written."""
        # torch.serialization.set_crc32_options(False) leaves zeros in their place.
        if self.root is None or not self.members[f"{self.root}data.pkl"].CRC:
            return None
        return Checksum(begin, begin + size, self.members[name].CRC, name)

    def _misplaced(self, name: str) -> CorruptFileError:
        return CorruptFileError(
            f"{self._shown} places its member {name[:100]!r} where it is not.", hint=DAMAGED
        )

    def content(self, name: str) -> bytes:
        """The bytes of a member that is stored as it is.

        Raises
        ------
        CorruptFileError
            As for `place`.
        """
        begin, size = self.place(name)
        self._file.seek(begin)
        data = self._file.read(size)
        known = self._checksum(name, begin, size)
        if known is not None:
            known.compare(zlib.crc32(data), shown=self._shown)
        return data

    def saved(self, names: set[Global]) -> Any:
        """Object that its pickle describes, tensors as `StoredTensor`.

        Raises
        ------
        PickleError, CorruptFileError
            If it or its storages are not whole.
        """
        order = (
            self.content(f"{self.root}byteorder")
            if f"{self.root}byteorder" in self.members
            else b"little"
        )
        if order not in (b"little", b"big"):
            raise PickleError(f"its byte order is {order[:20]!r}")
        return unpickled(
            io.BytesIO(self.content(f"{self.root}data.pkl")),
            meanings=TENSOR_MEANINGS,
            persistent=self._storages(swapped=order == b"big"),
            names=names,
        )

    def _storages(self, *, swapped: bool) -> Callable[[Any], Storage]:
        made: dict[str, Storage] = {}

        def storage(told: Any) -> Storage:
            if not isinstance(told, tuple) or len(told) < 5 or told[0] != "storage":
                raise PickleError("it refers to an object outside of it that is no storage")
            key, count = told[2], told[4]
            if not isinstance(key, str) or not isinstance(count, int):
                raise PickleError("a storage has no name or no size")
            dtype = storage_dtype(told[1])
            if key not in made:
                name = f"{self.root}data/{key}"
                begin, size = self.place(name)
                checksum = self._checksum(name, begin, size)
                made[key] = Storage(begin, size, dtype, key, swapped, checksum=checksum)
            if count * (1 if dtype is None else dtype.itemsize) > made[key].nbytes:
                raise PickleError(f"its storage {key[:20]!r} is shorter than it tells")
            if made[key].dtype != dtype:
                return replace(made[key], dtype=dtype)
            return made[key]

        return storage

    def attributes(self, what: Global) -> tuple[str, ...] | None:
        """Names of the parameters and buffers that a class of a TorchScript program declares.

        Its code is read as text. None where the class is not found there.
        """
        path = f"{self.root}code/{what.module.replace('.', '/')}.py"
        if path not in self._code:
            self._code[path] = self._declared(path)
        return self._code[path].get(what.name)

    def _declared(self, path: str) -> dict[str, tuple[str, ...]]:
        if path not in self.members or self.members[path].file_size > _LONGEST_CODE:
            return {}
        try:
            with self._zip.open(path) as member:
                text = member.read(_LONGEST_CODE).decode("utf-8", "replace")
        except BROKEN_ZIP:
            return {}
        places = [*(match.start() for match in _CLASS.finditer(text)), len(text)]
        found: dict[str, tuple[str, ...]] = {}
        for begin, end in itertools.pairwise(places):
            body = text[begin:end]
            name = _CLASS.match(body)
            lists = [pattern.search(body) for pattern in _LISTS.values()]
            if name is not None and all(lists):
                found[name[1]] = tuple(
                    part for match in lists if match for part in re.findall(r'"([^"]*)"', match[1])
                )
        return found
