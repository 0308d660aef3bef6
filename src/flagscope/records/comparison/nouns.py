"""Counts and names as the lines of a comparison write them."""

from __future__ import annotations


def tensors(count: int) -> str:
    """As in "2 tensors"."""
    return f"{count} tensor" if count == 1 else f"{count} tensors"


def entries(count: int) -> str:
    """As in "1,024 entries"."""
    return f"{count} entry" if count == 1 else f"{count:,} entries"


def short(name: str) -> str:
    """A name, its middle left out where it is longer than any that a network has."""
    return name if len(name) <= 200 else f"{name[:120]}…{name[-60:]}"
