"""Changes to nested values: of JSON, of msgpack, of what a pickle holds."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

from fuzz.hostile import TEXTS, value

Place = tuple[Any, Any]
"""A mapping or a list, and a key of it."""


def changed(tree: Any, rng: random.Random, make: Callable[[random.Random], Any] = value) -> Any:
    """A copy with one to three changes: values replaced, keys renamed, entries lost or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return make(rng)
        _change(*rng.choice(places), rng, make)
    return tree


def _places(tree: Any) -> Iterator[Place]:
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield tree, key
            yield from _places(inner)
    elif isinstance(tree, list):
        for key, inner in enumerate(tree):
            yield tree, key
            yield from _places(inner)


def _change(
    holder: Any, key: Any, rng: random.Random, make: Callable[[random.Random], Any]
) -> None:
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            name = rng.choice(TEXTS)
            holder[name if rng.random() < 0.7 else f"{key}{name}"] = holder.pop(key)
        case 2 if isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = copy.deepcopy(holder[key])
        case 3:
            holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))
        case _:
            holder[key] = make(rng)
