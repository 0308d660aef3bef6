"""Writes a mapping as a family file that its user can correct."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from flagscope.arch.forms import form_lines, unread_lines
from flagscope.arch.graph import Graph
from flagscope.errors import ArchitectureError

_HEAD = """\
# A family file, as flagscope read this checkpoint. Correct it, add what is known, and use it:
#     flagscope scan CHECKPOINT --family THIS_FILE
# Names are relative to a layer's path; layouts are einops patterns of the stored weight, with h
# heads, g key-value heads, k dimensions of a head, d of the stream, f neurons.
# What stands here is taken as true: freedoms follow from it. The documentation's page "Names of
# one's own" describes the format.
"""
_ATTENTION = """\
# Norms and position embeddings, if you know them, give residual pairs and freedoms:
#   norm = { module = "norm1", kind = "layernorm" }    in front of the block; or kind = "rmsnorm"
#   rotary = { layout = "half" }                       or "interleaved"; without it there is none
"""
_PARALLEL = """\
# Whether attention and MLP read the same stream is not known; if the MLP follows: parallel = false
"""
_MLP = """\
# The activation decides the freedom of the neurons; `norm` as above:
#   activation = { default = "gelu" }
"""


def family_draft(graph: Graph) -> str:
    """The mapping of a graph, as text of a family file.

    An inferred mapping is written as it was read; for a known family, the text is the family's own
    file. If nothing was read, the text is a form to fill in. Tensors that were not read are listed
    in comments.

    Raises
    ------
    ArchitectureError
        If the graph was traced, or read from a file's own graph, and not from names.

    References
    ----------
    Layouts are einops patterns: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> from flagscope.arch import build_graph
    >>> graph = build_graph({"w_a.0.weight": (8, 4), "w_a.2.weight": (3, 8)})
    >>> print(family_draft(graph).partition("[[sequences]]")[2].strip().splitlines()[1])
      { module = "w_a.0", layout = "o i" },
    """
    if graph.reading is not None:
        return "\n".join([_HEAD, *_lines(graph.reading), *unread_lines(graph.unplaced)]) + "\n"
    if graph.unplaced:
        return "\n".join([_HEAD, *form_lines(graph.unplaced)]) + "\n"
    file = resources.files("flagscope.arch").joinpath("families", f"{graph.family}.toml")
    if not file.is_file():
        raise ArchitectureError(
            f"there is no mapping by names to write: the family is {graph.family!r}",
            hint="only mappings from tensor names can be written as a family file",
        )
    text = file.read_text(encoding="utf-8")
    return f"{_HEAD}\n{text}"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    yield f"name = {_value(content['name'])}"
    yield f"title = {_value(content['title'])}"
    if "sizes" in content:
        yield '\n# Config keys of the sizes; a number stands for itself, as in h = "8".\n[sizes]'
        for axis, keys in content["sizes"].items():
            yield f"{axis} = {_value(keys)}"
    for stack in content.get("stacks", ()):
        yield "\n[[stacks]]"
        for key, value in stack.items():
            if key not in ("attention", "mlp"):
                yield f"{_PARALLEL if key == 'parallel' else ''}{key} = {_value(value)}"
        for kind, hint in (("attention", _ATTENTION), ("mlp", _MLP)):
            for index, block in enumerate(stack.get(kind, ())):
                yield f"\n{hint if index == 0 else ''}[[stacks.{kind}]]"
                yield from (f"{key} = {_value(value)}" for key, value in block.items())
    for sequence in content.get("sequences", ()):
        yield "\n[[sequences]]"
        yield "maps = ["
        yield from (f"  {_value(table)}," for table in sequence["maps"])
        yield "]"
        if "activation" in sequence:
            yield f"activation = {_value(sequence['activation'])}"


def _value(value: Any) -> str:
    """A TOML value; strings, numbers and booleans are written as in JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)
