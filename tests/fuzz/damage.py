"""Damage to bytes, whatever they mean."""

from __future__ import annotations

import random
import re
import struct

_INTEGERS = (0, 1, 2, 3, 255, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**33, 2**40, 2**60,
             2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
_DIGITS = re.compile(rb"-?\d+(?:\.\d+)?")
_TEXTS = (b"0", b"-1", b"99999999999999", b"9" * 400, b"9" * 5000, b"1e999", b"NaN", b"1.5",
          b"true", b"null", b"[]", b'""')  # fmt: skip


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to five damages; places near the beginning, where headers are, come more often."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not changed:
            return rng.randbytes(20)
        _damage(changed, rng)
    return bytes(changed)


def _damage(content: bytearray, rng: random.Random) -> None:
    size = len(content)
    at = int(size * rng.random() ** rng.choice((1, 3, 6)))
    length = rng.choice((1, 2, 4, 8, 40, size // 3 + 1))
    match rng.randrange(11):
        case 0:
            content[at] = rng.randrange(256)
        case 1:
            content[at] ^= 1 << rng.randrange(8)
        case 2:
            del content[at : at + length]
        case 3:
            content[at:at] = rng.randbytes(min(length, 64))
        case 4:
            del content[at:]
        case 5:
            content[at:at] = content[at : at + length]
        case 6:
            content[at : at + length] = bytes(len(content[at : at + length]))
        case 7:
            _number(content, at, rng)
        case 8:
            other = rng.randrange(size)
            content[other : other + length] = content[at : at + length]
        case 9:
            content += rng.choice((bytes(100), rng.randbytes(100), bytes(content[:200])))
        case _:
            _digits(content, rng)


def _number(content: bytearray, at: int, rng: random.Random) -> None:
    """An integer of 2, 4 or 8 bytes becomes another, at any place."""
    code = rng.choice(("<H", "<I", "<Q", ">I", ">Q"))
    size = struct.calcsize(code)
    if at + size <= len(content):
        number = rng.choice(_INTEGERS) % (1 << (8 * size))
        content[at : at + size] = struct.pack(code, number)


def _digits(content: bytearray, rng: random.Random) -> None:
    """A number that is written out becomes another text."""
    found = [match.span() for match, _ in zip(_DIGITS.finditer(content), range(2000), strict=False)]
    if found:
        start, stop = rng.choice(found)
        content[start:stop] = rng.choice(_TEXTS)
