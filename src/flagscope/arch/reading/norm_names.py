"""Norms that go by name: which map each belongs to, and on which side of it they stand."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flagscope.arch.reading.modules import Module

_NORM = re.compile(r"(?:.*_)?(?:bn|norm|b_?norm|batch_?norm|ln|gn|in|layer_?norm|group_?norm)_?")


def numbered(name: str) -> tuple[str, int | None]:
    """What a name begins with and the number at its end.

    Examples
    --------
    >>> numbered("conv1_2"), numbered("head")
    (('conv1_', 2), ('head', None))
    """
    match = re.fullmatch(r"(.*?)([0-9]{1,9})", name)
    return (match[1], int(match[2])) if match else (name, None)


def tied(norm: str, name: str, *, alone: bool) -> bool:
    """Whether a norm's name ties it to a map: bn1 to conv1, conv1_bn to conv1, bn to conv.

    Parameters
    ----------
    norm, name
        Of the norm and of the map.
    alone
        Whether there is no other map in the module.
    """
    plain, other = norm.lower(), re.escape(name.lower())
    if re.fullmatch(rf"(?:{other}_?(?:bn|norm|batchnorm))|(?:bn|norm)_?{other}", plain):
        return True
    stem, number = numbered(norm)
    if _NORM.fullmatch(stem.lower()) is None:
        return False
    return number == numbered(name)[1] if number is not None else alone


def norm_owners(norms: list[str], maps: Mapping[str, bool]) -> dict[str, str]:
    """Which map each norm belongs to by its name; of conv1 and fc1, bn1 is the convolution's.

    Parameters
    ----------
    norms
        Names of norms of one module.
    maps
        Names of its maps, and whether each is a convolution.
    """
    found: dict[str, str] = {}
    for norm in norms:
        owners = [name for name in maps if numbered(name)[0]
                  and tied(norm, name, alone=len(maps) == 1)]  # fmt: skip
        if len(owners) > 1:
            owners = [name for name in owners if maps[name]]
        if len(owners) == 1:
            found[norm] = owners[0]
    return found


def norms_stand_behind(root: Module, *, ordered: bool) -> bool | None:
    """Whether BatchNorms that go by name stand behind their maps or in front of them.

    Decided for the whole model: by channels where a map has others at its ends, else by the order
    in which modules were made. None where neither tells it, or one speaks against another.
    """
    by_channels: set[bool] = set()
    by_order: set[bool] = set()
    for module in root.walk():
        norms = [child for child in module.children.values() if child.batchnorm is not None]
        maps = [child for child in module.children.values()
                if not child.children and len(child.own) == 1]  # fmt: skip
        for norm in norms if maps else ():
            for child in maps:
                if not numbered(child.name)[0]:
                    continue
                if not tied(norm.name, child.name, alone=len(maps) == 1):
                    continue
                out, inp = child.own[0].shape[:2]
                if out != inp and norm.batchnorm in (out, inp):
                    by_channels.add(norm.batchnorm == out)
                by_order.add(norm.position > child.position)
    if by_channels:
        # What has the length of a map's first axis stands behind it. One that has that of the
        # second may stand behind a transposed convolution, so it does not count beside those.
        return True in by_channels
    return by_order.pop() if ordered and len(by_order) == 1 else None
