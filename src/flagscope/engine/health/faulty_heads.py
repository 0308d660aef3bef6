"""Which heads of an attention have zero weights, and which hold the same, by their indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flagscope.engine.health.attention_heads import HeadPart, Heads
from flagscope.engine.plan.name_patterns import index_text
from flagscope.records import HEAD_SPACES, EqualHeads, HeadSpace, ZeroHeads

_GROUPS = 8


class Equal(NamedTuple):
    """Equal heads of one attention.

    Attributes
    ----------
    groups
        The groups, whole ones first, at most 8.
    whole, partial
        How many heads equal an earlier one in all parts; and in some alone, key-value heads that
        heads share among them.
    copied
        By part, how many of its maps equal an earlier one.
    """

    groups: list[EqualHeads]
    whole: int
    partial: int
    copied: Mapping[HeadSpace, int]


def zero_heads(attention: Sequence[Heads]) -> list[ZeroHeads]:
    """Heads whose queries, keys, values or output have no weights, one record for each part."""
    found: list[ZeroHeads] = []
    for part, even in _parts(attention):
        zero = part.zero[part.index]
        if not zero.any():
            continue
        biased = None if part.biased is None else part.biased[part.index] & zero
        evenly = even and part.part in ("q", "k") and biased is not None
        found.append(
            ZeroHeads(
                part=part.part,
                count=int(zero.sum()),
                heads=index_text(np.flatnonzero(zero).tolist()),
                key_values=index_text(np.flatnonzero(part.zero).tolist()) if part.is_shared else "",
                biased=None if biased is None else int(biased.sum()),
                even=int((zero & ~biased).sum()) if evenly and biased is not None else 0,
            )
        )
    return sorted(found, key=lambda one: HEAD_SPACES.index(one.part))


def equal_heads(attention: Sequence[Heads]) -> Equal:
    """Heads of one attention that hold the same weights and biases, in all parts or in some."""
    parts: dict[HeadSpace, HeadPart] = {part.part: part for part, _ in _parts(attention)}
    copied: dict[HeadSpace, int] = {}
    for name, part in parts.items():
        if count := _later(_groups(part.keys)):
            copied[name] = count
    if not copied:
        return Equal([], 0, 0, {})
    whole = _whole(parts)
    together = {head: number for number, group in enumerate(whole) for head in group}
    partial: dict[tuple[bool, tuple[int, ...]], list[HeadSpace]] = {}
    for name in HEAD_SPACES:
        if name not in copied:
            continue
        part = parts[name]
        for group in _groups(part.keys):
            # Heads that are equal as a whole are so in this part too.
            known = {together.get(at) for at in group} if not part.is_shared else {None}
            if None in known or len(known) > 1:
                partial.setdefault((part.is_shared, tuple(group)), []).append(name)
    groups = [
        EqualHeads(parts=[*HEAD_SPACES], heads=index_text(group), count=len(group), whole=True)
        for group in whole
    ]
    groups += [
        EqualHeads(
            parts=names, heads=index_text(group), count=len(group), key_values=shared, whole=False
        )
        for (shared, group), names in partial.items()
    ]
    later = {at for _, group in partial for at in group[1:]}
    return Equal(groups[:_GROUPS], _later(whole), len(later), copied)


def _parts(attention: Iterable[Heads]) -> list[tuple[HeadPart, bool]]:
    return [(part, one.even) for one in attention for part in one.parts]


def _groups(keys: Sequence[bytes | None] | None) -> list[list[int]]:
    """Indices with equal keys, where there are several."""
    by_key: dict[bytes, list[int]] = {}
    for at, key in enumerate(keys or ()):
        if key is not None:
            by_key.setdefault(key, []).append(at)
    return [group for group in by_key.values() if len(group) > 1]


def _later(groups: Iterable[Sequence[int]]) -> int:
    return sum(len(group) - 1 for group in groups)


def _whole(parts: Mapping[HeadSpace, HeadPart]) -> list[list[int]]:
    """Groups of heads that are equal in all four parts, shared ones included."""
    if len(parts) < len(HEAD_SPACES):
        return []
    heads = len(parts["q"].index)
    keys: list[bytes | None] = []
    for head in range(heads):
        own: list[bytes] = []
        for name in HEAD_SPACES:
            part = parts[name]
            at = int(part.index[head])
            key = None if part.keys is None else part.keys[at]
            # Maps without a key are equal to themselves alone.
            own.append(f"{name}{at}".encode() if key is None else key)
        keys.append(b"|".join(own))
    return _groups(keys)
