"""Pickles made by hand, instruction by instruction, and the zip file of PyTorch around them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

LEGACY = b"".join(
    pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def storage(key: str = "0", count: int = 4, kind: bytes = b"FloatStorage") -> bytes:
    return b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu") + number(
        count
    ) + b"tQ"  # fmt: skip


def tensor(place: bytes | None = None, offset: int = 0, shape=(2, 2), stride=(2, 1)) -> bytes:
    numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride)]
    place = storage() if place is None else place
    return TENSOR + b"(" + place + number(offset) + numbers[0] + numbers[1] + b"\x89}tR"


def entries(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def archive(path: Path, body: bytes, data: bytes = bytes(16), **members: bytes) -> Path:
    """A zip file with this pickle; its framing instructions are added."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/data.pkl", b"\x80\x02" + body + b".")
        made.writestr("a/data/0", data)
        for name, content in members.items():
            made.writestr("a/" + name.replace("__", "."), content)
    return path


def repeated(start: bytes, step: bytes, count: int, end: bytes = b"") -> bytes:
    return start + step * count + end


def module(parts: bytes, children: bytes) -> bytes:
    state = entries(
        (text("_parameters"), parts), (text("_buffers"), b"}"), (text("_modules"), children)
    )
    return b"cnet\nNet\n)\x81" + state + b"b"


def shared_modules() -> bytes:
    """A module that holds one twice, that holds one twice, … forty levels deep."""
    made = module(entries((text("w"), tensor())), b"}") + b"q\x01"
    for _ in range(40):
        made = b"0" + module(b"}", entries((text("a"), b"h\x01"), (text("b"), b"h\x01"))).join(
            [made, b"q\x01"]
        )
    return made[40:] if made.startswith(b"0" * 40) else made


def looped_module() -> bytes:
    state = entries((text("_parameters"), b"}"), (text("_modules"), entries((text("a"), b"h\x01"))))
    return b"cnet\nNet\n)\x81q\x01" + state + b"b"
