"""The header of a safetensors file, parsed from its bytes and checked against the file's size."""

from __future__ import annotations

import json
import struct
from collections import Counter
from math import prod
from typing import Any

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.errors import CorruptFileError, SourceError, UnknownDtypeError

# The format's names, PyTorch's, and bits of an element. Packed types below a byte keep the
# format's name, by which they are reported as unreadable.
DTYPES = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F6_E2M3": ("F6_E2M3", 6),
    "F6_E3M2": ("F6_E3M2", 6),
    "F4": ("F4", 4),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I16": ("int16", 16),
    "I8": ("int8", 8),
    "U64": ("uint64", 64),
    "U32": ("uint32", 32),
    "U16": ("uint16", 16),
    "U8": ("uint8", 8),
    "BOOL": ("bool", 8),
    "C64": ("complex64", 64),
}
# The library's own limit, and the largest number that it counts with.
_LONGEST = 100_000_000
_LARGEST = 2**64
# The largest models have some 100,000 tensors (each expert its own); a header of braces alone
# would fill gigabytes of memory.
_MOST_TENSORS = 2_000_000
# What PyTorch allows.
_MOST_AXES = 64


def header_length(start: bytes, size: int, *, shown: str) -> int:
    """Bytes of the header, from the first 8 bytes of a file of `size` bytes.

    Raises
    ------
    CorruptFileError
        If the file is too short, or the header longer than the file.
    SourceError
        If the header is longer than the format allows.
    """
    check_limit(start, size, shown=shown)
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if not 2 <= length <= min(_LONGEST, size - 8):
        raise _corrupt(shown, f"its header of {length} bytes does not fit {size} bytes")
    return length


def check_limit(start: bytes, size: int, *, shown: str) -> None:
    """Refuse a whole file whose header is longer than the format allows.

    Parameters
    ----------
    start
        The file's first bytes.
    size
        Bytes of the whole file.
    shown
        Name of the file.

    Raises
    ------
    SourceError
        If it is.
    """
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if _LONGEST < length <= size - 8 and start[8:9] == b"{":
        raise SourceError(
            f"{shown} has a header of {length} bytes; the safetensors format allows {_LONGEST}.",
            hint="the file need not be damaged: load its tensors with what wrote it, and save them "
            "with less in __metadata__, or in several files with an index.",
        )


def header_entries(
    header: bytes, size: int, *, shown: str
) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """Headers of all tensors in the order of their data, and where in the file each begins.

    Parameters
    ----------
    header
        The JSON text, the length in front of it left out.
    size
        Bytes of the whole file.
    shown
        Name of the file.

    Raises
    ------
    CorruptFileError
        If the header is not consistent: data that overlap, leave holes or end elsewhere than the
        file, sizes that do not fit the shapes, names that occur twice. If it has more than two
        million braces, or a shape more than 64 axes.
    UnknownDtypeError
        If it names a type that the format does not have.

    References
    ----------
    The safetensors format, huggingface/safetensors, README.
    """
    fields = _parsed(header, shown)
    _texts(fields.pop("__metadata__", None), shown)
    found = {name: _entry(name, one, shown) for name, one in fields.items()}
    base, end = 8 + len(header), 0
    entries, begins = {}, {}
    for name, (info, start) in sorted(found.items(), key=lambda one: (one[1][1], one[1][0].nbytes)):
        if start != end:
            raise _corrupt(shown, f"the data of {name!r} do not follow those before it")
        end += info.nbytes
        entries[name], begins[name] = info, base + start
    if base + end != size:
        raise _corrupt(shown, f"it has {size} bytes, and its header tells of {base + end}")
    return entries, begins


def header_metadata(header: bytes, *, shown: str) -> dict[str, str]:
    """The texts of `__metadata__`; arguments as for `header_entries`.

    Raises
    ------
    CorruptFileError
        If the header is not JSON, or the metadata hold something else than texts.
    """
    return _texts(_parsed(header, shown).get("__metadata__"), shown)


def _texts(metadata: Any, shown: str) -> dict[str, str]:
    texts = metadata or {}
    if not isinstance(texts, dict) or not all(isinstance(v, str) for v in texts.values()):
        raise _corrupt(shown, "its metadata are no texts")
    return texts


def without_duplicates(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, unless a name occurs twice: which one was meant nobody can know.

    Raises
    ------
    ValueError
        With the name.
    """
    found = dict(items)
    if len(found) < len(items):
        [(twice, _)] = Counter(name for name, _ in items).most_common(1)
        raise ValueError(f"the name {twice!r} occurs more than once")
    return found


def _parsed(header: bytes, shown: str) -> dict[str, Any]:
    if header[:1] != b"{":
        raise _corrupt(shown, "its header is no JSON object")
    if header.count(b"{") > _MOST_TENSORS or header.count(b"[") > 2 * _MOST_TENSORS:
        raise _corrupt(shown, f"its header tells of more than {_MOST_TENSORS:,} tensors")
    try:
        return json.loads(header.decode(), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _corrupt(shown, f"its header cannot be read: {str(error)[:200]}") from error


def _entry(name: str, fields: Any, shown: str) -> tuple[TensorInfo, int]:
    told: dict[str, Any] = fields if isinstance(fields, dict) else {}
    code: Any
    shape: Any
    offsets: Any
    code, shape, offsets = (told.get(key) for key in ("dtype", "shape", "data_offsets"))
    counts = isinstance(shape, list) and len(shape) <= _MOST_AXES and all(map(_is_count, shape))
    placed = isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_count, offsets))
    if not isinstance(code, str) or not counts or not placed:
        raise _corrupt(shown, f"the type, shape or place of {name[:100]!r} is not told")
    if code not in DTYPES:
        raise UnknownDtypeError(
            f"{shown} holds tensors of type {code[:100]!r}, which the safetensors format does not "
            "have.",
            hint="convert the checkpoint to float32 or bfloat16 with the safetensors library.",
        )
    dtype, bits = DTYPES[code]
    size, odd = divmod(prod(shape) * bits, 8)
    start, stop = offsets
    if odd or stop - start != size or size >= _LARGEST:
        raise _corrupt(shown, f"the data of {name[:100]!r} are not of the size of its shape")
    return TensorInfo(name, tuple(shape), dtype, size, shown), start


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _corrupt(shown: str, reason: str) -> CorruptFileError:
    return CorruptFileError(f"{shown} is not a whole safetensors file: {reason}.", hint=DAMAGED)
