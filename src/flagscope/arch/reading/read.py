"""Reads a model that no family file describes, and writes the result as a family file.

Names propose, shapes decide, and only what all possible readings share is claimed: see
`attention`, `layers`, `lines` and `segments`. Matrices in no pair are listed with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flagscope.arch.reading.attention import AttentionBlock, RoleMap, read_attention
from flagscope.arch.reading.doubts import Doubts, doubts_of
from flagscope.arch.reading.feedforward import HALVES, MlpBlock
from flagscope.arch.reading.layers import Numbers, Stack, read_stacks
from flagscope.arch.reading.line import ASIDE, BORDER
from flagscope.arch.reading.lines import LineReader
from flagscope.arch.reading.modules import Matrix, Shape, in_order_of_use, module_tree
from flagscope.arch.reading.norms import UNSEEN, BlockNorm, norms_in_front
from flagscope.arch.reading.segments import Placed, segments
from flagscope.arch.reading.sizes import PARALLEL, SIZES

MLP_UNFIT = "left out: maps named as those of an MLP, whose dimensions do not fit each other"
VECTORS_UNPLACED = (
    "norms or scales that may stand between maps of their width, or elsewhere: what lies between "
    "those is not known"
)
NORMS_UNPLACED = "BatchNorms that may stand in front of their maps or behind them are not folded"


@dataclass(frozen=True)
class Reading:
    """A reading.

    Attributes
    ----------
    content
        Content of a family file; without tables if nothing was read.
    numbers
        Layer numbers of each stack, in the order of the stacks.
    notes
        Doubts, each with its module.
    left
        Why a matrix is not in any pair, by name.
    borders
        Places where two maps fit each other but no pair is claimed.
    shared
        Pairs whose neurons a sum or another reader may share: their freedom is not known.
    certain
        Whether there were no doubts: all matrices are in sequences of known order.
    """

    content: dict[str, Any]
    numbers: tuple[tuple[Numbers, ...], ...] = ()
    notes: tuple[tuple[str, str | None], ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)
    borders: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    certain: bool = False


def read_names(shapes: Mapping[str, Shape], known: Mapping[str, int] | None = None) -> Reading:
    """Infer the structure of a model from the names and shapes of its tensors.

    Parameters
    ----------
    known
        Sizes by axis from a config: h, g, k, d. They decide where shapes leave a choice.

    Examples
    --------
    >>> reading = read_names({"net.0.weight": (8, 4), "net.2.weight": (3, 8)})
    >>> [one["module"] for one in reading.content["sequences"][0]["maps"]], reading.certain
    (['net.0', 'net.2'], True)
    """
    root = module_tree(shapes)
    attention = read_attention(root, known)
    stacks, used, unfit = read_stacks(root, attention)
    reader = LineReader(root, used, ordered=in_order_of_use(shapes))
    segmented = segments(reader.lines())
    doubts = doubts_of(segmented.found, reader.unplaced(), root.matrices)
    notes: list[tuple[str, str | None]] = [
        (text, module or None) for text, module in attention.doubted
    ]
    notes += [(MLP_UNFIT, path) for path in unfit]
    notes += [(NORMS_UNPLACED, path) for path in reader.unplaced_norms]
    notes += [(VECTORS_UNPLACED, name) for name in doubts.vectors]
    content: dict[str, Any] = {"name": "inferred", "title": "Inferred from tensor names"}
    if stacks:
        content["sizes"] = {axis: list(keys) for axis, keys in SIZES.items()}
        content["stacks"] = []
        for stack in stacks:
            front = norms_in_front(root, stack) if stack.attention else None
            if front is None and stack.attention:
                notes.append((UNSEEN, None))
            content["stacks"].append(_stack(stack, front, several=len(stacks) > 1))
    if segmented.found:
        content["sequences"] = [
            {"maps": [_placed(entry, doubts) for entry in segment]} for segment in segmented.found
        ]
    placed = {entry.item.matrix.tensor for segment in segmented.found for entry in segment}
    matrices = {matrix.tensor for matrix in root.matrices}
    cuts = segmented.cuts - {BORDER, ASIDE}
    return Reading(
        content=content,
        numbers=tuple(tuple(sorted(stack.layers)) for stack in stacks),
        notes=tuple(dict.fromkeys(notes)),
        left={name: reason for name, reason in segmented.left.items()
              if name not in used and name not in placed},
        borders=tuple({border.partition(" (")[0]: border
                       for border in (*segmented.borders, *reader.borders)}.values()),
        shared=tuple(doubts.shared),
        certain=not stacks and matrices == placed and not cuts and not notes,
    )  # fmt: skip


def _stack(
    stack: Stack, front: tuple[BlockNorm, BlockNorm] | None, *, several: bool
) -> dict[str, Any]:
    rules = {rule for layer in stack.layers.values() for rule in layer}
    everywhere = {rule for rule in rules if all(rule in layer for layer in stack.layers.values())}
    table: dict[str, Any] = {"name": _stack_name(stack, several=several), "path": stack.path}
    norms: list[dict[str, Any]] = [{}, {}]
    if front is not None:
        table["norms_shown"] = True
        # Attention and MLP may both read the output of the previous layer.
        table["parallel"] = {"config": list(PARALLEL), "default": True}
        norms = [{"norm": _norm(norm)} for norm in front]
    base = stack.base(min(stack.layers))
    attention = []
    for index, (rule, block) in enumerate(stack.attention.items()):
        block_table = _attention(block, _base_of(block.parent, stack) or base) | norms[0]
        block_table |= {} if rule in everywhere else {"optional": True}
        same = sum(other.cross == block.cross for other in list(stack.attention.values())[:index])
        attention.append(block_table | ({"name": f"{same + 1}"} if same else {}))
    if attention:
        table["attention"] = attention
    mlp = []
    for index, (rule, block) in enumerate(stack.mlp.items()):
        names = {role: name for role, name, _ in rule}
        common = norms[1] if rule in everywhere else {"optional": True}
        name = f"mlp{index + 1}" if index else "mlp"
        if block.halves == HALVES:  # which half is the gate is not known; both are read alike
            for number, half in enumerate(HALVES):
                table_of_half = _mlp_maps(block, names, {"up": number})
                mlp.append(table_of_half | common | {"name": f"{name}.{half}"})
        else:
            block_table = _mlp_maps(block, names, {half: i for i, half in enumerate(block.halves)})
            mlp.append(block_table | common | ({"name": name} if index else {}))
    if mlp:
        table["mlp"] = mlp
    return table


def _norm(norm: BlockNorm) -> dict[str, Any]:
    table = {"module": norm.module, "kind": norm.kind}
    return table | ({} if norm.stored[0] == "weight" else {"stored": list(norm.stored)})


def _stack_name(stack: Stack, *, several: bool) -> str:
    """The path without its number; a single attention block has the name of its module."""
    if "{" not in stack.path and len(stack.attention) == 1 and not stack.mlp:
        (block,) = stack.attention.values()
        return block.parent or "main"
    path = stack.path.replace("{layer}", "").replace("..", ".").strip(".")
    return path if several and path else "main"


def _base_of(parent: str, stack: Stack) -> str | None:
    for numbers in stack.layers:
        base = stack.base(numbers)
        if f"{parent}.".startswith(base):
            return base
    return None


def _attention(block: AttentionBlock, base: str) -> dict[str, Any]:
    table: dict[str, Any] = {"kind": "cross"} if block.cross else {}
    for role, role_map in block.maps.items():
        # Values without a reader form no pair.
        if role != "v" or "o" in block.maps:
            table[role] = _role(role_map, base)
    return table


def _role(role_map: RoleMap, base: str) -> dict[str, Any]:
    table = _module(role_map.matrix, role_map.matrix.tensor.removeprefix(base)) | {
        "layout": role_map.layout
    }
    if role_map.select:
        table["select"] = dict(role_map.select)
    table |= {key: axis for key, axis in (("out", role_map.out), ("inp", role_map.inp)) if axis}
    return table


def _module(matrix: Matrix, tensor: str) -> dict[str, Any]:
    if matrix.joint is None:
        return {"module": tensor, "parameter": True}
    module = tensor.removesuffix(f"{matrix.joint}weight")
    return {"module": module} | ({} if matrix.joint == "." else {"joint": matrix.joint})


def _mlp_maps(
    block: MlpBlock, names: Mapping[str, str], halves: Mapping[str, int]
) -> dict[str, Any]:
    """The maps of an MLP by role; `halves` gives the half of the first map for each."""
    table: dict[str, Any] = {}
    for role in ("up", "gate", "down"):
        source = "up" if role in halves else role
        if source not in block.maps or (halves and role == "gate" and role not in halves):
            continue
        matrix = block.maps[source]
        out, inp = ("d", "f") if role == "down" else ("f", "d")
        out = "(two f)" if role in halves else out
        layout = f"{inp} {out}" if block.transposed else f"{out} {inp}"
        table[role] = _module(matrix, names[source]) | {"layout": layout}
        if role in halves:
            table[role]["select"] = {"two": halves[role]}
    return table


def _placed(placed: Placed, doubts: Doubts) -> dict[str, Any]:
    table = _module(placed.item.matrix, placed.item.matrix.tensor) | {"layout": placed.layout}
    if placed.item.norm:
        table["norm"] = placed.item.norm
    if placed.item.normed:
        table["after"] = "norm"
    elif placed.item.matrix.tensor in doubts.open:
        table["after"] = "unknown"
    return table
