"""Matches norms in separate lists with maps by number; finds vectors of unknown position.

convs.0, convs.1 and bns.0, bns.1 are matched if their lengths fit after the maps and not before
them. Any other norm or scale of a width may be anywhere in its module.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flagscope.arch.reading.modules import Module, joined
from flagscope.arch.reading.norm_names import numbered


@dataclass(frozen=True)
class ListedNorms:
    """Norms in lists, by the tensor of the matrix that each follows."""

    behind: Mapping[str, Module]

    @property
    def paths(self) -> set[str]:
        """Paths of these norms."""
        return {norm.path for norm in self.behind.values()}


@dataclass(frozen=True)
class Vector:
    """A vector of unknown position: its name, length, and the module that holds it."""

    name: str
    length: int
    parent: str

    def may_stand_between(self, paths: Sequence[str]) -> bool:
        """Whether its module holds one of these maps."""
        inside = f"{self.parent}." if self.parent else ""
        return any(path.startswith(inside) for path in paths)


def listed_norms(root: Module) -> ListedNorms:
    """The norms of a model in lists next to lists of maps."""
    behind: dict[str, Module] = {}
    for module in root.walk():
        for child in module.children.values():
            norms = _norm_list(child)
            if norms:
                behind |= _matched(norms, list(_map_lists(module)))
    return ListedNorms(behind)


def unplaced_vectors(root: Module, placed: Collection[str]) -> Iterator[Vector]:
    """Norms and bare vectors that are neither biases nor placed."""
    biases = {matrix.bias[0] for matrix in root.matrices if matrix.bias}
    for module in root.walk():
        length = module.norm_length
        if length is not None:
            if module.path not in placed:
                yield Vector(module.path, length, _holder(root, module.path))
            continue
        for name, shape in module.tensors.items():
            tensor = joined(module.path, name)
            if len(shape) == 1 and shape[0] > 1 and name != "bias" and tensor not in biases:
                yield Vector(tensor, shape[0], module.path)


def _holder(root: Module, path: str) -> str:
    """The nearest ancestor of a norm that holds matrices, which holds the list of norms."""
    module, holder = root, ""
    for part in path.split(".") if path else ():  # a model that is one norm has no modules
        holder = module.path if module.matrices else holder
        module = module.children[part]
    return holder


def _norm_list(module: Module) -> list[Module]:
    """The members of a list that holds only norms, numbered from 0."""
    members = list(module.children.values())
    numbers = {int(name) for name in module.children if re.fullmatch(r"[0-9]{1,9}", name)}
    norms = all(member.norm_length is not None for member in members)
    whole = len(numbers) == len(members) and numbers == set(range(len(members)))
    return [module.children[str(n)] for n in range(len(members))] if norms and whole else []


def _map_lists(module: Module) -> Iterator[list[Module]]:
    """Lists of modules with maps, in one module or as numbered names."""
    suffixed: dict[str, list[tuple[int, Module]]] = {}
    for name, child in module.children.items():
        stem, number = numbered(name)
        if number is not None and child.matrices:
            suffixed.setdefault(stem, []).append((number, child))
        members = [member for member in child.children.values() if member.matrices]
        if members and child.children.keys() == {str(n) for n in range(len(members))}:
            yield [child.children[str(n)] for n in range(len(members))]
    for entries in suffixed.values():
        entries.sort(key=lambda pair: pair[0])
        if [n - entries[0][0] for n, _ in entries] == list(range(len(entries))):
            yield [child for _, child in entries]


def _matched(norms: Sequence[Module], lists: Sequence[Sequence[Module]]) -> dict[str, Module]:
    """These norms by the tensor that each follows, if they fit after one list of maps only."""
    lengths = [norm.norm_length for norm in norms]
    fitting: list[dict[str, Module]] = []
    for maps in lists:
        if len(maps) - len(norms) not in (0, 1):
            continue
        ends = [(module.matrices[0].shape[1], module.matrices[-1]) for module in maps]
        behind = all(n == last.shape[0] for n, (_, last) in zip(lengths, ends, strict=False))
        front = all(n == first for n, (first, _) in zip(lengths, ends, strict=False))
        if front or behind:
            only = behind and not front
            fitting.append(
                {last.tensor: norm for norm, (_, last) in zip(norms, ends, strict=False)}
                if only else {}
            )  # fmt: skip
    return fitting[0] if len(fitting) == 1 else {}
