"""What can be inferred of a model that no family file describes, from common names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flagscope.arch.attention import attention_groups
from flagscope.arch.chain import chain_groups, chains
from flagscope.arch.family import ROLE_AXES, AttentionRule, ConfigRule, MapRule, MlpRule
from flagscope.arch.graph import HeadGroup, PairGroup
from flagscope.arch.mlp import mlp_groups
from flagscope.arch.scope import Known, Notes, Scope, Shapes, attempted

HEAD_KEYS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
    "decoder_attention_heads",
)  # fmt: skip

# Names of Q, K, V and alternatives of O that stand beside each other in one module.
ATTENTION_NAMES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("q_proj", "k_proj", "v_proj", ("o_proj", "out_proj", "dense", "c_proj")),
    ("query", "key", "value", ("out", "output", "dense", "proj")),
    ("q_lin", "k_lin", "v_lin", ("out_lin",)),
    ("to_q", "to_k", "to_v", ("to_out.0", "to_out")),
    ("wq", "wk", "wv", ("wo",)),
    ("query_proj", "key_proj", "value_proj", ("output_proj", "out_proj", "dense")),
    ("q", "k", "v", ("o", "out", "proj")),
)
# Q, K and V fused in this order, how the name is joined to "weight", and alternatives of O:
# torch.nn.MultiheadAttention and the ViTs of timm.
FUSED_NAMES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("in_proj", "_", ("out_proj",)),
    ("qkv", ".", ("proj", "out_proj", "o_proj")),
)
# Gate (or none), up and down.
MLP_NAMES: tuple[tuple[str | None, str, str], ...] = (
    ("gate_proj", "up_proj", "down_proj"),
    ("w1", "w3", "w2"),
    ("wi_0", "wi_1", "wo"),
    (None, "up_proj", "down_proj"),
    (None, "fc1", "fc2"),
    (None, "lin1", "lin2"),
    (None, "linear1", "linear2"),
    (None, "wi", "wo"),
    (None, "dense_h_to_4h", "dense_4h_to_h"),
)


@dataclass(frozen=True)
class Inferred:
    """Pairs and heads found by common names."""

    pairs: tuple[PairGroup, ...]
    heads: tuple[HeadGroup, ...]


def infer_graph(
    shapes: Shapes, notes: Notes, *, known: Mapping[str, Known], config: Mapping[str, Any] | None
) -> Inferred:
    """Pairs and heads of a model of no known family.

    Three sources: siblings with the usual names of Q, K, V and O; siblings with the usual names
    of an MLP's maps; numbered sequences of weights whose dimensions chain. Nothing is known of
    what lies between, so every pair has freedom "none".

    References
    ----------
    Role names are those of common implementations of Vaswani et al., arXiv 1706.03762.

    Examples
    --------
    >>> shapes = {"block.0.wi.weight": (8, 4), "block.0.wo.weight": (4, 8)}
    >>> [group.name for group in infer_graph(shapes, Notes(), known={}, config=None).pairs]
    ['block.0.mlp']
    """
    pairs: list[PairGroup] = []
    heads: list[HeadGroup] = []
    matrices = {name for name, shape in shapes.items() if len(shape) == 2}
    used: set[str] = set()
    for parent, attention in _attention_blocks(matrices):
        scope = _scope(parent, shapes, notes, known, config)
        build = partial(attention_groups, attention, scope)
        found, spaces = attempted(build, ([], []), scope)
        pairs += found
        heads += spaces
        used |= {scope.base + name for one in attention.maps for name in one.weights()}
    for parent, mlp in _mlp_blocks(matrices - used, shapes):
        scope = _scope(parent, shapes, notes, known, config)
        found = attempted(partial(mlp_groups, mlp, scope), [], scope)
        pairs += found
        used |= {side.map.tensor for one in found for side in (one.write, one.read)}
    for chain in chains(shapes, [name for name in shapes if name not in used]):
        pairs += chain_groups(chain, shapes, notes, activation="unknown")
    if pairs:
        notes.add(
            "pairs were inferred from common tensor names; what lies between their maps is "
            "unknown, so no freedom is claimed"
        )
    return Inferred(tuple(pairs), tuple(heads))


def _scope(
    parent: str,
    shapes: Shapes,
    notes: Notes,
    known: Mapping[str, Known],
    config: Mapping[str, Any] | None,
) -> Scope:
    numbers = re.findall(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])", parent)
    label = re.sub(r"\.(mlp|ffn|feed_forward|self_attn|attention|attn)$", "", parent)
    return Scope(
        shapes=shapes, base=f"{parent}." if parent else "", label=label or "main", stack="main",
        layer=int(numbers[0]) if numbers else None, known=known, config=config, notes=notes,
        trusted=False,
    )  # fmt: skip


def _rule(role: str, names: tuple[str, ...], layout: str, batch: str | None) -> MapRule:
    out, inp, _ = ROLE_AXES[role]
    return MapRule(role, names, layout, out, inp, batch, {})


def _attention_blocks(matrices: set[str]) -> list[tuple[str, AttentionRule]]:
    blocks: dict[str, AttentionRule] = {}
    for query, key, value, outputs in ATTENTION_NAMES:
        for parent in _parents(matrices, f"{query}.weight"):
            if parent not in blocks and _siblings(matrices, parent, (key, value)):
                blocks[parent] = _attention(
                    _rule("q", (query,), "(h k) d", "h"),
                    _rule("k", (key,), "(g k) d", "g"),
                    _rule("v", (value,), "(g k) d", "g"),
                    _rule("o", outputs, "d (h k)", "h"),
                )
    for fused, joint, outputs in FUSED_NAMES:
        for parent in _parents(matrices, f"{fused}{joint}weight"):
            if parent not in blocks:
                parts = (
                    MapRule(role, (fused,), "(three h k) d", "k", "d", "h", {"three": at},
                            joint=joint)
                    for at, role in enumerate("qkv")
                )  # fmt: skip
                blocks[parent] = _attention(*parts, _rule("o", outputs, "d (h k)", "h"))
    return sorted(blocks.items(), key=lambda block: _natural(block[0]))


def _attention(*maps: MapRule) -> AttentionRule:
    return AttentionRule("self", maps, None, None, (), (), (), False)


def _mlp_blocks(matrices: set[str], shapes: Shapes) -> list[tuple[str, MlpRule]]:
    blocks = []
    claimed: set[str] = set()
    for gate, up, down in MLP_NAMES:
        for parent in _parents(matrices, f"{up}.weight"):
            needed = (down, gate) if gate else (down,)
            third = f"{down[:-1]}3" if down[-1] == "2" and gate is None else None
            longer = third is not None and _siblings(matrices, parent, (third,))
            if parent in claimed or longer or not _siblings(matrices, parent, needed):
                continue
            claimed.add(parent)
            upward = _sizes_up(shapes, parent, up, down)
            maps = [
                _rule("up", (up,), "f d" if upward else "d f", None),
                _rule("down", (down,), "d f" if upward else "f d", None),
            ]
            if gate:
                maps.append(_rule("gate", (gate,), "f d" if upward else "d f", None))
            rule = MlpRule(tuple(maps), ConfigRule((), "unknown"), False)
            blocks.append((parent, rule))
    return sorted(blocks, key=lambda block: _natural(block[0]))


def _sizes_up(shapes: Shapes, parent: str, up: str, down: str) -> bool:
    """Whether weights lie as (out, in): true unless only (in, out) makes them chain."""
    first, second = (shapes[_join(parent, one)] for one in (up, down))
    return first[0] == second[1] or first[1] != second[0]


def _parents(matrices: set[str], ending: str) -> list[str]:
    return sorted(
        name.removesuffix(ending).removesuffix(".")
        for name in matrices
        if name == ending or name.endswith(f".{ending}")
    )


def _siblings(matrices: set[str], parent: str, leaves: tuple[str, ...]) -> bool:
    return all(_join(parent, leaf) in matrices for leaf in leaves)


def _join(parent: str, leaf: str) -> str:
    return f"{parent}.{leaf}.weight" if parent else f"{leaf}.weight"


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
