"""Stacks heads that are separate modules into one matrix with an axis of heads."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flagscope.arch.reading.modules import Matrix
from flagscope.arch.reading.words import is_output, role_of

_OF_LIST = re.compile(r"(?:(?P<over>.*)\.)?(?P<stem>\w*?)[._]?(?P<n>[0-9]{1,9})")
_NUMBER = re.compile(r"[0-9]{1,9}")

Heads = Mapping[int, Mapping[str, Matrix]]
"""The matrices of each head by their role."""


@dataclass(frozen=True)
class StackedBlock:
    """An attention block whose heads are modules.

    Attributes
    ----------
    parent
        Path of the module that holds the output map.
    roles
        q, k and v, or qkv, as stacked: names with a star for the number of the head.
    count
        Number of heads.
    """

    parent: str
    roles: Mapping[str, Matrix]
    count: int


@dataclass(frozen=True)
class StackedHeads:
    """All such blocks, the tensors that their matrices combine, and the modules of these."""

    blocks: tuple[StackedBlock, ...]
    tensors: Mapping[str, tuple[str, ...]]
    sources: frozenset[str]


def stacked_heads(groups: Mapping[str, Sequence[Matrix]]) -> StackedHeads:
    """Lists of modules of one head each, with a common output map next to the list.

    Two forms: ``heads.3.query`` and ``queries.3``. A list whose maps are square, or that has no
    output map of the right shape next to it, is a list of layers or of something else.

    Parameters
    ----------
    groups
        The matrices of a model by parent module.
    """
    blocks: list[StackedBlock] = []
    tensors: dict[str, tuple[str, ...]] = {}
    sources: set[str] = set()
    for (over, stem), heads in _lists(groups).items():
        stacked = _block(over, stem, heads, groups)
        if stacked is not None:
            block, parts = stacked
            blocks.append(block)
            tensors |= parts
            sources |= {m.parent for head in heads.values() for m in head.values()}
    return StackedHeads(tuple(blocks), tensors, frozenset(sources))


def _lists(
    groups: Mapping[str, Sequence[Matrix]],
) -> dict[tuple[str, str], dict[int, dict[str, Matrix]]]:
    """Lists by the module that holds them and the names of their entries."""
    lists: dict[tuple[str, str], dict[int, dict[str, Matrix]]] = defaultdict(dict)
    above = {over for parent in groups for over in _modules_above(parent)}
    for parent, matrices in groups.items():
        match = _OF_LIST.fullmatch(parent)
        if match is not None and parent not in above and not _holds_more(matrices):
            roles = {role: m for m in matrices if (role := role_of(m.name)) and len(m.shape) == 2}
            if {"q", "k", "v"} <= set(roles) or "qkv" in roles:
                lists[match["over"] or "", match["stem"]][int(match["n"])] = roles
        over, _, name = parent.rpartition(".")
        role = role_of(name)
        if role in ("q", "k", "v") and all(_NUMBER.fullmatch(m.name) for m in matrices):
            for m in matrices:
                lists[over, "*"].setdefault(int(m.name), {})[role] = m
    return lists


def _modules_above(path: str) -> Iterator[str]:
    while path:
        path, _, _ = path.rpartition(".")
        yield path


def _holds_more(matrices: Sequence[Matrix]) -> bool:
    """Whether a module holds maps besides those of one head, and so is a whole layer.

    A bare square parameter, such as a mask registered next to a head, is not a map.
    """
    others = [m for m in matrices if role_of(m.name) is None]
    return not all(m.joint is None and m.shape[-1] == m.shape[-2] for m in others)


def _block(
    over: str, stem: str, heads: Heads, groups: Mapping[str, Sequence[Matrix]]
) -> tuple[StackedBlock, dict[str, tuple[str, ...]]] | None:
    """A list of heads as a block, and the tensors of each of its matrices."""
    count = len(heads)
    present = set(heads[min(heads)])
    names = ("q", "k", "v") if {"q", "k", "v"} <= present else ("qkv",)
    if set(heads) != set(range(count)) or not all(set(names) <= set(h) for h in heads.values()):
        return None
    first = heads[0]
    if any({h[n].shape for h in heads.values()} != {first[n].shape} for n in names):
        return None
    rows, d = first[names[0]].shape
    k = rows // 3 if names == ("qkv",) else rows
    # If the list is the attention module itself, it holds the output map; if the list is a part
    # of that module ("att.heads.3"), the map is one level up.
    places = (over,) if stem else (over, over.rpartition(".")[0])
    near = [m for path in dict.fromkeys(places) for m in groups.get(path, ())
            if m.shape == (d, count * k) and is_output(m.name)]  # fmt: skip
    if k >= d or len(near) != 1:
        return None
    parent = near[0].parent
    parts = {n: tuple(heads[index][n].tensor for index in range(count)) for n in names}
    together = {n: _starred(tensors) for n, tensors in parts.items()}
    if any(name.count("*") != 1 for name in together.values()):
        return None
    roles = {
        n: replace(
            first[n], parent=parent, name=name.removeprefix(f"{parent}." if parent else ""),
            tensor=name, shape=(count, *first[n].shape), bias=None, joint=None,
        )
        for n, name in together.items()
    }  # fmt: skip
    return StackedBlock(parent, roles, count), {together[n]: parts[n] for n in names}


def _starred(names: Sequence[str]) -> str:
    """One name for several that differ in one number, with a star for it."""
    pieces = [re.split(r"([0-9]+)", name) for name in names]
    if len({len(piece) for piece in pieces}) > 1:
        return names[0]
    return "".join(
        column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True)
    )
