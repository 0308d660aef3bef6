"""Lists unread tensors by layer, with a form in which their user can describe them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from flagscope.arch.rules import UNFILLED

Shapes = Mapping[str, tuple[int, ...]]
_NUMBER = re.compile(r"(?<![^.])[0-9]{1,9}(?=\.)")
_LISTED = 60

_FORM = """\
# Nothing was read of these names. Put a module's name in place of each question mark, relative to
# the path, and leave out a block that a layer does not have. These layouts are those of weights
# stored as (out, in); of others they are "d (h k)", and "(h k) d" for o, "d f", and "f d" for down.
name = "own"
title = "My model"
# The config key that holds the number of heads; a number stands for itself, as in h = "8".
sizes = { h = "num_heads" }
"""
_BLOCKS = """
[[stacks.attention]]
q = { module = "?", layout = "(h k) d" }
k = { module = "?", layout = "(h k) d" }
v = { module = "?", layout = "(h k) d" }
o = { module = "?", layout = "d (h k)" }
# norm = { module = "…", kind = "layernorm" }    where a norm stands in front of the block

[[stacks.mlp]]
up = { module = "?", layout = "f d" }
down = { module = "?", layout = "d f" }
# gate = { module = "…", layout = "f d" }
# activation = { default = "gelu" }
# norm = { module = "…", kind = "layernorm" }""".replace("?", UNFILLED)


def form_lines(shapes: Shapes) -> Iterator[str]:
    """A form with one stack for each numbered list of layers, and the tensors in comments.

    Without numbers, it has one stack for the whole model.
    """
    groups, outside = _layers(shapes)
    yield _FORM
    if outside and groups:
        yield "# Outside of the layers"
        yield from _listed(outside)
    for path, names in (groups or {"": outside}).items():
        yield f"\n# In {f'each layer {_printable(path)}' if path else 'the model'}"
        yield from _listed(names)
        yield "[[stacks]]"
        yield f"name = {json.dumps(path.partition('{')[0].strip('.') or 'main')}"
        yield f"path = {json.dumps(path)}"
        yield _BLOCKS


def unread_lines(shapes: Shapes) -> Iterator[str]:
    """The tensors that are not in any pair, as comments."""
    if not any(len(shape) > 1 for shape in shapes.values()):
        return
    groups, outside = _layers(shapes)
    yield "\n# Not read, or in no pair"
    yield from _listed(outside)
    for path, names in groups.items():
        yield from _listed({path + name: shape for name, shape in names.items()})


def _layers(shapes: Shapes) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Names in numbered layers, by the path of the layers, and all other names, with shapes.

    The layer number is the first number in a name, or the last of a run of adjacent numbers: in a
    list of lists, the inner lists hold the layers.
    """
    groups: dict[str, dict[str, list[tuple[int, ...]]]] = defaultdict(dict)
    outside: dict[str, list[tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        match = _NUMBER.search(name)
        if match is None:
            outside.setdefault(name, []).append(shape)
            continue
        path = name[: match.start()] + "{layer}."
        groups[path].setdefault(name[match.end() + 1 :], []).append(shape)
    texts = {path: _told(names) for path, names in groups.items()}
    return texts, _told(outside)


def _told(names: Mapping[str, Sequence[tuple[int, ...]]]) -> dict[str, str]:
    texts = {}
    for name, shapes in names.items():
        kinds = list(dict.fromkeys(shapes))
        text = " or ".join(str(shape) for shape in kinds[:3])
        texts[name] = text if len(shapes) == 1 else f"{text} in {len(shapes)} layers"
    return texts


def _listed(names: Mapping[str, str]) -> Iterator[str]:
    for index, (name, shape) in enumerate(names.items()):
        if index == _LISTED:
            yield f"#   … and {len(names) - _LISTED} more"
            return
        yield f"#   {_printable(name)}  {shape}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
