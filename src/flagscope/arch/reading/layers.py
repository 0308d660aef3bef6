"""Finds stacks of transformer layers: attention and MLP blocks under one numbered path."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from flagscope.arch.limits import LAYER_NUMBER
from flagscope.arch.reading.attention import AttentionBlock, AttentionReading
from flagscope.arch.reading.feedforward import MlpBlock, channel_mix, read_mlp
from flagscope.arch.reading.modules import Matrix, Module, by_parent, joined
from flagscope.arch.reading.words import mlp_role

Numbers = tuple[int, ...]
_NUMBER = re.compile(rf"(?<![^.]){LAYER_NUMBER}(?![^.])")
_EXPERT_NUMBER = re.compile(r"experts\.\d+\.")
_EXPERT = re.compile(r"(?P<before>(?:.*\.)?(?:\w*_)?experts)\.(?P<n>[0-9]{1,6})(?P<rest>(?:\..*)?)")


@dataclass
class Stack:
    """Layers under one path.

    Attributes
    ----------
    path
        Such as ``decoder.layers.{layer}.``; without a number for a single layer.
    d
        Width of the stream.
    attention, mlp
        Blocks of each layer by rule: role to RoleMap, with names relative to the layer.
    layers
        Numbers of the layers, and the rules of each.
    tensors
        Tensors of the MLPs found by their names alone.
    """

    path: str
    d: int
    attention: dict[Rule, AttentionBlock] = field(default_factory=dict)
    mlp: dict[Rule, MlpBlock] = field(default_factory=dict)
    layers: dict[Numbers, set[Rule]] = field(default_factory=lambda: defaultdict(set))
    tensors: list[tuple[str, ...]] = field(default_factory=list)

    def base(self, numbers: Numbers) -> str:
        """Prefix of the names of a layer."""
        values = iter(numbers)
        return re.sub(r"\{\w+\}", lambda _: str(next(values)), self.path)

    def numbers(self, parent: str) -> Numbers:
        """The numbers of the layer that contains a module."""
        match = _numbered(self.path.removesuffix(".")).match(parent)
        return tuple(int(n) for n in match.groups()) if match else ()

    def add_mlp(self, block: MlpBlock, numbers: Numbers, *, experts: bool) -> None:
        """Add an MLP of one layer, for all experts if it is one of them."""
        base = self.base(numbers)
        names = {role: role_map.tensor.removeprefix(base) for role, role_map in block.maps.items()}
        if experts:
            names = {r: _EXPERT_NUMBER.sub("experts.{expert}.", n) for r, n in names.items()}
        form = " ".join(block.halves)
        rule = tuple((role, name, form) for role, name in sorted(names.items()))
        self.mlp.setdefault(rule, block)
        self.layers[numbers].add(rule)


Rule = tuple[tuple[str, str, str], ...]
"""Role, name relative to the layer, and layout of each map of a block."""


def read_stacks(root: Module, reading: AttentionReading) -> tuple[list[Stack], set[str], list[str]]:
    """The stacks of a model, the tensors in them, and modules named as MLPs that do not fit."""
    used: set[str] = set()
    stacks: dict[tuple[str, int], Stack] = {}
    by_template: dict[str, list[AttentionBlock]] = defaultdict(list)
    for block in reading.blocks:
        by_template[_NUMBER.sub("#", block.parent)].append(block)
    for blocks in by_template.values():
        path = _common_path([block.parent for block in blocks])
        for block in blocks:
            stack = stacks.setdefault((path, block.d), Stack(path, block.d))
            numbers = stack.numbers(block.parent)
            rule = _attention_rule(block, stack.base(numbers))
            stack.attention.setdefault(rule, block)
            stack.layers[numbers].add(rule)
            for role in block.maps.values():
                used.update(reading.stacked.get(role.matrix.tensor, (role.matrix.tensor,)))
    beside = _beside_attention(root, reading, used)
    for stack in stacks.values():
        used |= _read_mlps(root, stack, used | beside, reading.transposed)
    loose, unfit = _loose_mlps(root, used, reading.transposed)
    for stack in loose:
        used.update(t for block in stack.tensors for t in block)
    return [*stacks.values(), *loose], used, unfit


def _beside_attention(root: Module, reading: AttentionReading, used: set[str]) -> set[str]:
    """Other maps in the modules of attention: not an MLP, unless all of them have MLP names."""
    parents = {role.matrix.parent for block in reading.blocks for role in block.maps.values()
               if role.matrix.parent == block.parent}  # fmt: skip
    groups = by_parent(matrix for matrix in root.matrices if matrix.tensor not in used)
    return {
        matrix.tensor for parent in parents & groups.keys() for matrix in groups[parent]
        if not {"up", "down"} <= {mlp_role(matrix.name) for matrix in groups[parent]}
    }  # fmt: skip


# Names that only maps of an MLP have.
_MLP_NAMES = frozenset(
    frozenset(names.split())
    for names in (
        "up_proj down_proj gate_proj", "up_proj down_proj", "c_fc c_proj", "fc_in fc_out",
        "w_in w_out", "wi wo", "wi_0 wi_1 wo", "dense_h_to_4h dense_4h_to_h", "up down gate",
        "W_in W_out", "W_in W_gate W_out", "w_up w_down", "w_gate w_up w_down", "fc_up fc_down",
    )
)  # fmt: skip


def _loose_mlps(
    root: Module, used: set[str], transposed: bool | None
) -> tuple[list[Stack], list[str]]:
    """MLPs outside of layers with attention, by names that only MLPs have."""
    groups = by_parent(matrix for matrix in root.matrices if matrix.tensor not in used)
    mixes = {p: mix for p, matrices in groups.items() if (mix := channel_mix(p, matrices))}
    named = {p: matrices for p, matrices in groups.items()
             if p in mixes or frozenset(m.name for m in matrices) in _MLP_NAMES}  # fmt: skip
    unfit: list[str] = []
    templates: dict[str, list[tuple[str, MlpBlock]]] = defaultdict(list)
    for parent, matrices in named.items():
        if parent not in mixes and not _runs_up_first(parent, matrices):
            continue
        first = next((m for m in matrices if mlp_role(m.name) == "up"), matrices[0])
        width = first.shape[0 if transposed else -1] if len(first.shape) == 2 else 0
        block = mixes.get(parent) or read_mlp(parent, matrices, width, transposed=transposed)
        if block is None:
            unfit.append(parent)
            continue
        template = _of_any_expert(parent)
        templates[_NUMBER.sub("#", template)].append((template, block))
    stacks = []
    for blocks in templates.values():
        path = _common_path([template for template, _ in blocks])
        stack = Stack(path, 0)
        for template, block in blocks:
            stack.add_mlp(block, stack.numbers(template), experts="{expert}" in template)
            stack.tensors.append(block.tensors)
        stacks.append(stack)
    return stacks, unfit


_MLP_MODULE = re.compile(r"mlp|ffn|ffwd|feed_?forward|expert|moe|\bff\b|adapter|adaptor")


def _runs_up_first(parent: str, matrices: Sequence[Matrix]) -> bool:
    """Whether the map called up comes first, by module or order; in an adapter, it does not."""
    up, down = (next((m for m in matrices if mlp_role(m.name) == role), None)
                for role in ("up", "down"))  # fmt: skip
    directed = any(word in m.name.lower() for m in matrices for word in ("up", "down"))
    if up is None or down is None or not directed or len(matrices) > 2:
        return True
    return _MLP_MODULE.search(parent.lower()) is not None or up.position < down.position


def _common_path(parents: Sequence[str]) -> str:
    """The common path of modules that differ in numbers, up to the last number that varies."""
    spots = [list(_NUMBER.finditer(parent)) for parent in parents]
    if not spots[0]:
        over, _, _ = parents[0].replace("{expert}", "").rpartition(".")
        before, _, _ = parents[0].partition("{expert}")
        over = before.rpartition("experts.")[0].rstrip(".") if "{expert}" in parents[0] else over
        return f"{over}." if over else ""
    varying = [
        index for index in range(len(spots[0])) if len({row[index][0] for row in spots}) > 1
    ] or [0]
    first = parents[0]
    pieces, start = [], 0
    for index, match in enumerate(spots[0][: varying[-1] + 1]):
        name = "layer" if index == varying[-1] else f"part{index}"
        pieces += [first[start : match.start()], f"{{{name}}}" if index in varying else match[0]]
        start = match.end()
    return "".join(pieces) + "."


def _numbered(path: str) -> re.Pattern[str]:
    """Pattern of a path, with numbers for the names in braces."""
    return re.compile(re.sub(r"\\\{\w+\\\}", f"({LAYER_NUMBER})", re.escape(path)))


def _of_any_expert(parent: str) -> str:
    """The path of a module in a list of experts, with "{expert}" for its number."""
    match = _EXPERT.fullmatch(parent)
    return f"{match['before']}.{{expert}}{match['rest']}" if match else parent


def _attention_rule(block: AttentionBlock, base: str) -> Rule:
    return tuple((role, role_map.matrix.tensor.removeprefix(base), role_map.layout)
                 for role, role_map in block.maps.items())  # fmt: skip


def _read_mlps(root: Module, stack: Stack, used: set[str], transposed: bool | None) -> set[str]:
    """Read the MLPs in the layers of a stack, including layers of its path without attention."""
    pattern = _numbered(stack.path)
    by_layer: dict[Numbers, list[Matrix]] = defaultdict(list)
    for matrix in root.matrices:
        match = pattern.match(matrix.path) if matrix.tensor not in used else None
        if match is not None:
            by_layer[tuple(int(n) for n in match.groups())].append(matrix)
    tensors: set[str] = set()
    gains = _gains(root, pattern)
    for numbers, matrices in by_layer.items():
        read = _Read(stack.d, transposed, frozenset(gains[numbers]))
        for block in _layer_mlps(matrices, stack.base(numbers), read):
            stack.add_mlp(block, numbers, experts="{expert}" in block.parent)
            tensors.update(block.tensors)
    return tensors


def _gains(root: Module, pattern: re.Pattern[str]) -> dict[Numbers, set[int]]:
    """Lengths of the norms, scales and other vectors of each layer, without the maps' biases."""
    lengths: dict[Numbers, set[int]] = defaultdict(set)
    for module in root.walk():
        match = pattern.match(f"{module.path}.")
        if match is not None:
            lengths[tuple(int(n) for n in match.groups())].update(
                length for _, length in module.vectors
            )
    return lengths


@dataclass(frozen=True)
class _Read:
    """What is known of a layer when its MLPs are read: see `read_mlp`."""

    d: int
    transposed: bool | None
    gains: frozenset[int]

    def mlp(self, parent: str, matrices: Sequence[Matrix]) -> MlpBlock | None:
        return read_mlp(
            parent, matrices, self.d, transposed=self.transposed, gains=self.gains
        )  # fmt: skip


def _layer_mlps(matrices: Sequence[Matrix], base: str, read: _Read) -> list[MlpBlock]:
    """MLPs of one layer: each in a separate module, or one in each of a list of experts."""
    groups: dict[str, list[Matrix]] = defaultdict(list)
    experts: dict[str, dict[str, list[Matrix]]] = defaultdict(lambda: defaultdict(list))
    for matrix in matrices:
        match = _EXPERT.fullmatch(matrix.parent)
        if match:
            name = f"{match['before']}.{{expert}}{match['rest']}"
            experts[name][match["n"]].append(matrix)
            continue
        inner = matrix.path.removeprefix(base)
        groups[inner.partition(".")[0] if "." in inner else ""].append(matrix)
    blocks = []
    for name, group in groups.items():
        block = read.mlp(joined(base.rstrip("."), name), group)
        blocks += [block] if block else _by_module(group, read)
    for name, members in experts.items():
        expert_blocks = [read.mlp(name, expert) for expert in members.values()]
        alike = {
            tuple(sorted((role, m.name, m.shape) for role, m in block.maps.items()))
            if block
            else None
            for block in expert_blocks
        }
        whole = set(members) == {str(n) for n in range(len(members))}
        if len(alike) == 1 and expert_blocks[0] is not None and whole:
            tensors = tuple(matrix.tensor for group in members.values() for matrix in group)
            blocks.append(replace(expert_blocks[0], parent=name, tensors=tensors))
    return blocks


def _by_module(matrices: Sequence[Matrix], read: _Read) -> list[MlpBlock]:
    """MLPs in a module that holds several, each in a separate child module."""
    groups = by_parent(matrices)
    blocks = [read.mlp(parent, group) for parent, group in groups.items()]
    return [block for block in blocks if block is not None] if len(groups) > 1 else []
