"""Layouts of stored tensors: einops patterns such as ``(h three k) d``, parsed and solved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from math import prod

from flagscope.errors import ArchitectureError

Groups = tuple[tuple[str, ...], ...]

CONSTANT_AXES: Mapping[str, int] = {"two": 2, "three": 3, "four": 4}
"""Axes whose name is their size, as in the fused ``(three h k) d``."""

_SIZE = re.compile(r"[0-9]{1,12}")
_TOKEN = re.compile(r"\s*([a-z][a-z0-9_]*|[()])")


class LayoutMismatchError(ArchitectureError):
    """A shape, a layout and the known axis sizes contradict each other."""


@cache
def parse_layout(layout: str) -> Groups:
    """Axis names of a layout, one tuple for each stored dimension.

    Parameters
    ----------
    layout
        An einops pattern of lower-case axis names; parentheses join the axes of one stored
        dimension, slowest first. Every name occurs once.

    Raises
    ------
    ArchitectureError
        If the pattern is not of that form.

    References
    ----------
    The notation is that of einops: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> parse_layout("(h three k) d")
    (('h', 'three', 'k'), ('d',))
    """
    groups: list[tuple[str, ...]] = []
    group: list[str] | None = None
    position, text = 0, layout.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _bad_layout(layout, f"unexpected character {text[position]!r}")
        token, position = match.group(1), match.end()
        if token == "(":
            if group is not None:
                raise _bad_layout(layout, "nested parentheses")
            group = []
        elif token == ")":
            if not group:
                raise _bad_layout(layout, "unbalanced or empty parentheses")
            groups.append(tuple(group))
            group = None
        elif group is None:
            groups.append((token,))
        else:
            group.append(token)
    names = [name for axes in groups for name in axes]
    if group is not None or not groups:
        raise _bad_layout(layout, "unbalanced parentheses or no axis")
    if len(set(names)) < len(names):
        raise _bad_layout(layout, "an axis occurs twice")
    return tuple(groups)


def axis_sizes(
    groups: Groups, shape: tuple[int, ...], known: Mapping[str, int]
) -> tuple[dict[str, int], bool]:
    """Sizes of a layout's axes as far as the shape and the known sizes determine them.

    Returns
    -------
    sizes, complete
        The sizes found (including known ones), and whether every axis has one.

    Raises
    ------
    LayoutMismatchError
        If the number of dimensions differs or a dimension does not factor as required.

    References
    ----------
    The notation is that of einops: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> axis_sizes((("h", "k"), ("d",)), (384, 768), {"h": 12})
    ({'h': 12, 'k': 32, 'd': 768}, True)
    """
    if len(groups) != len(shape):
        raise LayoutMismatchError(
            f"{len(groups)} dimensions are expected, the tensor has {len(shape)}"
        )
    sizes: dict[str, int] = {}
    complete = True
    for names, extent in zip(groups, shape, strict=True):
        group_sizes = {n: known.get(n, CONSTANT_AXES.get(n)) for n in names}
        missing = [n for n, size in group_sizes.items() if size is None]
        present = prod(size for size in group_sizes.values() if size is not None)
        exact = extent == present if not missing else present > 0 and extent % present == 0
        if not exact:
            stated = " · ".join(f"{n} = {s}" for n, s in group_sizes.items() if s is not None)
            verb = "is not" if not missing else "is not divisible by"
            raise LayoutMismatchError(f"a dimension of {extent} {verb} {stated}")
        if len(missing) == 1:
            group_sizes[missing[0]] = extent // present
        complete = complete and len(missing) <= 1
        sizes.update({n: s for n, s in group_sizes.items() if s is not None})
    return sizes, complete


def part_of_axis(text: str, axis: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Start and length of a part of an axis, written ``start:stop`` in terms of axis sizes.

    Each side is a sum or difference of sizes and numbers; an empty side is the end of the axis.

    Raises
    ------
    ArchitectureError
        If it does not have that form, or is not within the axis.

    References
    ----------
    The notation is Python's slice, with axis names as in einops: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> part_of_axis("h:h+g", "s", {"h": 8, "g": 2, "s": 12})
    (8, 2)
    """
    start, colon, stop = text.replace(" ", "").partition(":")
    first, last = (_sum_of_sizes(side, sizes, text) if side else None for side in (start, stop))
    begin = 0 if first is None else first
    end = sizes[axis] if last is None else last
    if not colon or not 0 <= begin < end <= sizes[axis]:
        raise ArchitectureError(
            f"{text!r} is no part of axis {axis!r} of size {sizes[axis]}",
            hint="write start:stop in axis sizes, as in 'h:h+g'; does the config fit the shapes?",
        )
    return begin, end - begin


def _sum_of_sizes(text: str, sizes: Mapping[str, int], whole: str) -> int:
    if not re.fullmatch(r"-?\w+([+-]\w+)*", text):
        raise ArchitectureError(
            f"{text!r} in {whole!r} is no sum of axis sizes", hint="as in 'h:h+g' or 's-2:s-1'"
        )
    total = 0
    for sign, term in re.findall(r"([+-]?)(\w+)", text):
        if not _SIZE.fullmatch(term) and term not in sizes:
            raise ArchitectureError(
                f"{whole!r}: the size of axis {term!r} is not known",
                hint="give the model's config (--config F) or the number of heads (--heads N)",
            )
        value = int(term) if _SIZE.fullmatch(term) else sizes[term]
        total += -value if sign == "-" else value
    return total


def _bad_layout(layout: str, reason: str) -> ArchitectureError:
    return ArchitectureError(
        f"layout {layout!r} is not a pattern of axes: {reason}",
        hint="write one axis name for each stored dimension, joined ones in parentheses, "
        "as in '(h k) d'",
    )
