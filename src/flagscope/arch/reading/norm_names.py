"""Matches norms with maps by name, and finds whether they come before or after the maps."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from flagscope.arch.reading.modules import Module

_NORM = re.compile(r"(?:.*_)?(?:bn|norm|b_?norm|batch_?norm|ln|gn|in|layer_?norm|group_?norm)_?")


def numbered(name: str) -> tuple[str, int | None]:
    """The stem of a name, and the number at its end.

    Examples
    --------
    >>> numbered("conv1_2"), numbered("head")
    (('conv1_', 2), ('head', None))
    """
    match = re.fullmatch(r"(.*?)([0-9]{1,9})", name)
    return (match[1], int(match[2])) if match else (name, None)


def tied(norm: str, name: str, *, alone: bool) -> bool:
    """Whether a norm's name assigns it to a map: bn1 to conv1, conv1_bn to conv1, bn to conv.

    Parameters
    ----------
    norm, name
        Names of the norm and of the map.
    alone
        Whether the module has no other map.
    """
    plain, pattern = norm.lower(), re.escape(name.lower())
    if re.fullmatch(rf"(?:{pattern}_?(?:bn|norm|batchnorm))|(?:bn|norm)_?{pattern}", plain):
        return True
    stem, number = numbered(norm)
    if _NORM.fullmatch(stem.lower()) is None:
        return False
    return number == numbered(name)[1] if number is not None else alone


@dataclass(frozen=True)
class MapName:
    """A map of a module, or a child module of that name with several maps.

    `written` is the output length of the last map, `near` are the adjacent norms in the order of
    tensors, if that is meaningful.
    """

    written: int | None
    single: bool
    convolved: bool
    near: frozenset[str]


def norm_owners(norms: Mapping[str, int | None], maps: Mapping[str, MapName]) -> dict[str, str]:
    """The map to which each norm belongs, by name.

    If there are conv1 and fc1, bn1 belongs to the map of its width; if widths are equal, to the
    convolution, provided it is adjacent in the order of tensors.

    Parameters
    ----------
    norms
        Names of the norms of one module, with their lengths.
    maps
        Its maps by name.
    """
    assigned: dict[str, str] = {}
    for norm, length in norms.items():
        owners = [name for name in maps if numbered(name)[0]
                  and tied(norm, name, alone=len(maps) == 1 and maps[name].single)]  # fmt: skip
        if len(owners) > 1:
            owners = [name for name in owners if maps[name].written == length] or owners
        if len(owners) > 1:
            owners = [name for name in owners if maps[name].convolved and norm in maps[name].near]
        if len(owners) == 1:
            assigned[norm] = owners[0]
    return assigned


def norm_sides(root: Module, *, ordered: bool) -> dict[str, bool | None]:
    """Whether norms matched by name follow their maps (True) or precede them, by kind of module.

    A kind is all modules whose paths differ only in numbers. Channels decide if those at the two
    ends of a map differ, else the order in which modules were made. None if neither decides, or if
    votes disagree.
    """
    channels: dict[str, set[bool]] = defaultdict(set)
    turned: dict[str, set[bool]] = defaultdict(set)  # the same for possibly transposed maps
    order: dict[str, set[bool]] = defaultdict(set)
    for module in root.walk():
        norms = [child for child in module.children.values() if child.norm_length is not None]
        maps = [child for child in module.children.values()
                if not child.children and len(child.own) == 1]  # fmt: skip
        kind = kind_of(module.path)
        for norm, child in product(norms, maps):
            if not numbered(child.name)[0]:
                continue
            if not tied(norm.name, child.name, alone=len(maps) == 1):
                continue
            out, inp, *kernel = child.own[0].shape
            if out != inp and norm.norm_length in (out, inp):
                even = kernel and all(n % 2 == 0 for n in kernel)
                (turned if even else channels)[kind].add(norm.norm_length == out)
            order[kind].add(norm.position > child.position)
    # A possibly transposed convolution may have either output length; it votes if no other does.
    votes = {kind: channels[kind] or turned[kind] for kind in order}
    if ordered:
        votes = {kind: sides or order[kind] for kind, sides in votes.items()}
    return {kind: next(iter(sides)) if len(sides) == 1 else None for kind, sides in votes.items()}


def kind_of(path: str) -> str:
    """The path of a module without numbers."""
    return re.sub(r"[0-9]+", "#", path)
