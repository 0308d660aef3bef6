"""Numbered layers, from the names of their tensors."""

from __future__ import annotations

from collections.abc import Iterable

# Longer digit strings are words.
_DIGITS = 6


def numbered(names: Iterable[str]) -> dict[str, dict[int, dict[str, str]]]:
    """Names with a number, by what stands before the first one, by the number, and by the rest.

    Examples
    --------
    >>> numbered(["h.0.fc.weight", "h.1.fc.weight", "wte"])
    {'h.': {0: {'fc.weight': 'h.0.fc.weight'}, 1: {'fc.weight': 'h.1.fc.weight'}}}
    """
    stacks: dict[str, dict[int, dict[str, str]]] = {}
    for name in names:
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts[:-1]) if is_number(part)), None)
        if at is None:
            continue
        stack = "".join(f"{part}." for part in parts[:at])
        layer = stacks.setdefault(stack, {}).setdefault(int(parts[at]), {})
        layer[".".join(parts[at + 1 :])] = name
    return stacks


def is_number(part: str) -> bool:
    """Whether a part of a name is a number."""
    return part.isascii() and part.isdecimal() and len(part) <= _DIGITS
