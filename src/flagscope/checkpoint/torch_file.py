"""Reader of files that torch.save wrote: tensors are unpickled, nothing else ever is."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.files import DAMAGED, FileCheckpoint, checked_start
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.memory import place_in_memory, tensor_entries
from flagscope.checkpoint.nesting import model_state
from flagscope.errors import CorruptFileError, SourceError, UnsafeFileError

_ZIP = b"PK\x03\x04"
# PyTorch's older format: a pickle (protocol 2) of the number 0x1950a86a20f9469cfc6c comes first.
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
# What the weights-only unpickler says where a file asks for a function or class that it refuses.
_REFUSAL = re.compile(
    r"\bglobal\b|unsupported class|\breduce\b|new object|can only build", re.IGNORECASE
)
_REFUSED_NAME = re.compile(r"GLOBAL ([\w.]*\w)\b(?!\.)")
_SAFE_HINT = (
    "have its owner save the weights alone, torch.save(model.state_dict(), FILE) or safetensors."
)
# A tensor larger than its file can only be one that repeats its elements. Small ones (masks) are
# genuine; a large one is a trap for memory.
_EXPANDED_BYTES = 64 * 2**20


class TorchFile(FileCheckpoint):
    """One file that torch.save wrote, of the zip format (mapped) or the older one (read whole).

    Tensors saved on other devices come to the CPU. The entry that holds the model's state dict is
    found as `from_state_dict` finds it; what is not a dense tensor is passed over with a note.

    Parameters
    ----------
    path
        The file.
    source
        What the user named, if not the path.
    config
        The model's configuration.

    Raises
    ------
    MissingFileError
        If there is no such file.
    UnsafeFileError
        If it holds anything that only running pickled code could restore. None of it is run.
    CorruptFileError
        If it is empty, truncated, inconsistent, of another format, or holds no tensors.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        mapped = _is_zip(path)
        if mapped:
            _check_archive(path)
        saved = _loaded(path, mapped=mapped)
        if not isinstance(saved, Mapping):
            raise CorruptFileError(
                f"{path} holds a {type(saved).__name__}, not tensors by name.",
                hint="save a state dict: torch.save(model.state_dict(), FILE).",
            )
        self._state, notes = model_state(saved, source=os.fspath(path), error=CorruptFileError)
        entries = tensor_entries(self._state, file=os.fspath(path))
        limit = max(path.stat().st_size, _EXPANDED_BYTES)
        for name, info in entries.items():
            if info.nbytes > limit:
                raise CorruptFileError(
                    f"tensor {name!r} of {path} claims {info.nbytes} bytes, more than its file.",
                    hint="do not use this checkpoint unless you know where it comes from.",
                )
        super().__init__(path, entries, source=source, config=config, notes=notes)

    def _read(self, stored: str, index: Index) -> Tensor:
        return self._state[stored][index]

    def memory_stored(self, stored: str) -> Hashable | None:
        """Where a tensor lies, by the file's name."""
        return place_in_memory(self._state[stored])

    def _release(self) -> None:
        self._state = {}


def _is_zip(path: Path) -> bool:
    start = checked_start(path)
    if start.startswith(_ZIP):
        return True
    if start.startswith(_LEGACY) or _LEGACY.startswith(start):
        return False
    if start.startswith(b"\x80"):
        raise UnsafeFileError(
            f"{path} is a plain pickle, which can run code when it is loaded.", hint=_SAFE_HINT
        )
    if start[8:9] == b"{":
        raise CorruptFileError(
            f"{path} looks like a safetensors file.", hint="rename it to end in .safetensors."
        )
    raise CorruptFileError(f"{path} is not a file that torch.save wrote.", hint=DAMAGED)


def _check_archive(path: Path) -> None:
    """Refuse archives whose parts are missing, packed, or programs."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CorruptFileError(
            f"{path} begins like a PyTorch file, but the directory at its end is missing or "
            f"damaged: {error}.",
            hint=DAMAGED,
        ) from error
    inner = {member.filename.partition("/")[2] for member in members}
    if "constants.pkl" in inner:
        raise UnsafeFileError(
            f"{path} is a TorchScript program, which holds code beside the weights.",
            hint=_SAFE_HINT,
        )
    if any(member.filename.endswith(".npy") for member in members):
        raise CorruptFileError(
            f"{path} looks like a NumPy archive.", hint="rename it to end in .npz."
        )
    if "data.pkl" not in inner:
        raise CorruptFileError(
            f"{path} is a zip file without the data.pkl that torch.save writes.", hint=DAMAGED
        )
    # torch.save stores members as they are; a mapped reader would take packed bytes for weights.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CorruptFileError(
            f"{path} is a zip file with compressed members, which torch.save never writes.",
            hint="unpack and repack it without compression, or save it again.",
        )


def _loaded(path: Path, *, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings():
            # Of deprecated storages and unusual pickle protocols, which the reader cannot help.
            warnings.simplefilter("ignore")
            if path.suffix.lower() == ".safetensors":
                # torch.load takes the name's word for the content, and maps named files alone.
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip()
        if _REFUSAL.search(reason):
            name = _REFUSED_NAME.search(reason)
            what = f"the code of {name[1]}" if name else "pickled code"
            raise UnsafeFileError(
                f"{path} can only be loaded by running {what}; nothing of it was run.",
                hint=_SAFE_HINT,
            ) from error
        raise CorruptFileError(
            f"{path} is no state dict that can be read safely: {reason.partition(chr(10))[0]}.",
            hint="save it again with torch.save and its default pickle protocol.",
        ) from error
    except MemoryError as error:
        raise SourceError(
            f"{path} does not fit into memory.",
            hint="save it as safetensors, or with a newer PyTorch; both can be mapped.",
        ) from error
    except Exception as error:
        # Whatever else a reader of binary data trips over (KeyError, struct.error, RuntimeError …)
        # comes from the file: its path and permissions were checked before.
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise CorruptFileError(
            f"{path} is not a whole PyTorch file: {reason.rstrip('.')}.", hint=DAMAGED
        ) from error
