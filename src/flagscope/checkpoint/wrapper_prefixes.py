"""Names that the wrappers of a model put into its tensors' names, and names without them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from flagscope.shortening import listed

# torch.compile; FullyShardedDataParallel and what it flattens; activation checkpointing; Lightning
# and DeepSpeed. No module of a network is called so.
_CERTAIN = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
# DataParallel, DistributedDataParallel and averaged models; a network may have such a child too.
_PERHAPS = "module"
WRAPPERS = (*_CERTAIN, _PERHAPS)
# "model." is not such a prefix: it names a real submodule.
_WRAPPER = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(WRAPPERS)})\.")
# No network's names are longer; those of a hostile file stay as they are, and meet no shorter one.
_LONGEST = 1000
_LISTED = 3


def visible_names(stored: Iterable[str]) -> dict[str, str]:
    """Names without the wrappers' parts, each with the name it is stored under.

    A wrapper's part is taken out wherever it stands, unless something else stands next to the
    wrapper under a name that stands inside it too: names stay unique, and a layer is never put
    together from the tensors of two.

    Examples
    --------
    >>> visible_names(["module.fc.weight", "module.fc.bias"])
    {'fc.weight': 'module.fc.weight', 'fc.bias': 'module.fc.bias'}
    >>> visible_names(["layers.0._orig_mod.fc.weight", "head.weight"])
    {'layers.0.fc.weight': 'layers.0._orig_mod.fc.weight', 'head.weight': 'head.weight'}
    >>> visible_names(["module.fc.weight", "fc.weight"])
    {'module.fc.weight': 'module.fc.weight', 'fc.weight': 'fc.weight'}
    """
    return unwrapped_names(stored)[0]


def unwrapped_names(stored: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """`visible_names`, and a note on wrappers' parts that had to stay.

    Examples
    --------
    >>> unwrapped_names(["module.fc.weight", "fc.weight"])[1]
    ("'module' stays in the names of tensors: without it they would meet others",)
    """
    names, prefixes = _unwrapped(stored)
    if not prefixes:
        return names, ()
    kept = sorted(prefix.removesuffix(".") for prefix in prefixes)
    verb = "stays" if len(kept) == 1 else "stay"
    shown = listed([*map(repr, kept)], _LISTED)
    return names, (f"{shown} {verb} in the names of tensors: without it they would meet others",)


def _unwrapped(stored: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """Names without wrappers, and the prefixes that end in a wrapper which stays."""
    names = {name: name for name in stored}
    while True:
        kept: set[str] = set()
        shorter = _shorter(names, kept)
        # Prefixes that had to stay are tried again after others were removed, until none changes.
        if not kept or len(shorter.keys() - names.keys()) == 0:
            return shorter, kept
        names = shorter


def _shorter(names: dict[str, str], kept: set[str]) -> dict[str, str]:
    """Names without the wrappers that need not stay; the others are entered in `kept`."""
    while True:
        # The outermost wrapper of each name; one that it is in, or that stays, is settled first.
        ends = {name: end for name in names if (end := _outermost(name, kept)) is not None}
        if not ends:
            return names
        refused = _meeting(names, {name[:end] for name, end in ends.items()})
        kept |= refused
        shorter = {
            name: _without(name[:end]) + name[end:]
            for name, end in ends.items()
            if name[:end] not in refused
        }
        names = {shorter.get(name, name): where for name, where in names.items()}


def _outermost(name: str, kept: set[str]) -> int | None:
    """End of the first wrapper in a name that need not stay."""
    if "mod" not in name or len(name) > _LONGEST:  # most names hold none: a quick test first
        return None
    for match in _WRAPPER.finditer(name):
        if match.end() < len(name) and name[: match.end()] not in kept:
            return match.end()
    return None


def _without(prefix: str) -> str:
    """What a wrapper stands in: "a." for "a.module."."""
    return prefix[: prefix.rfind(".", 0, -1) + 1]


def _meeting(names: Mapping[str, str], prefixes: set[str]) -> set[str]:
    """The wrappers whose content would meet what stands next to them."""
    holders = {_without(prefix) for prefix in prefixes}
    # Of each holder, the parts of names below it: those in each wrapper, and all others ("").
    below: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        at = 0
        while len(name) <= _LONGEST:
            holder = name[:at]
            if holder in holders:
                end = name.find(".", at) + 1
                inside = name[:end] if 0 < end < len(name) and name[:end] in prefixes else ""
                rest = name[len(inside) :] if inside else name[at:]
                part, dot, _ = rest.partition(".")
                below[holder][inside].add(part + dot)
            at = name.find(".", at) + 1
            if not at:
                break
    refused = set()
    for holder, parts in below.items():
        for prefix, content in parts.items():
            # What stands next to a wrapper: other tensors, other wrappers and what is in those.
            others = [other for key, other in parts.items() if key != prefix]
            others += [{key[len(holder) :]} for key in parts if key not in (prefix, "")]
            if prefix and any(_meet(prefix, content, other) for other in others):
                refused.add(prefix)
    return refused


def _meet(prefix: str, content: set[str], other: set[str]) -> bool:
    """Whether a part of a name is in both, or a perhaps real module and its holder own tensors."""
    plain = {part.removesuffix(".") for part in content}
    if plain & {part.removesuffix(".") for part in other}:
        return True
    real = prefix.endswith(f"{_PERHAPS}.")
    return real and all(any(not p.endswith(".") for p in parts) for parts in (content, other))
