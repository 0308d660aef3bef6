"""From tensor names, shapes and a config to the graph: the interpreter of family files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from flagscope.arch.attention import attention_groups, attention_label
from flagscope.arch.blocks import Part, stack_streams
from flagscope.arch.chain import chain_groups, chains
from flagscope.arch.choose import Choice, Instance, choose, layer_base
from flagscope.arch.family import ChainRule, ConfigRule, Family, StackRule
from flagscope.arch.family_files import load_families
from flagscope.arch.frame import Block, stream_frame
from flagscope.arch.graph import Frame, Graph, HeadGroup, PairGroup, Stream
from flagscope.arch.infer import HEAD_KEYS, infer_graph
from flagscope.arch.latent import latent_groups
from flagscope.arch.mlp import mlp_groups
from flagscope.arch.outer import with_outer_freedoms
from flagscope.arch.registry import Proof, proofs
from flagscope.arch.scope import (
    Known,
    Notes,
    Scope,
    Shapes,
    Solved,
    attempted,
    config_entry,
    config_flag,
    config_value,
)
from flagscope.arch.sequence import sequence_groups
from flagscope.arch.stream import head_links, residual_pairs
from flagscope.arch.wired import FAMILY as WIRED
from flagscope.arch.wired import wired_graph
from flagscope.errors import ArchitectureError, InputError
from flagscope.wiring import Wiring

HEADS = {"h": HEAD_KEYS, "g": ("num_key_value_heads",)}
# Biases of heads, where these have an axis of their own.
BIASES = ("*.bias", "*_bias")
# Buffers of two and more dimensions that are no matrices of weights.
BUFFERS = ("*position_ids", "*inv_freq", "*num_batches_tracked", "*token_type_ids")


def build_graph(
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None = None,
    *,
    family: str | None = None,
    heads: int | None = None,
    window: int = 1,
    wiring: Wiring | None = None,
) -> Graph:
    """The graph of a network's linear maps from the names and shapes of its tensors.

    The family is the one that is named, else that of the config's ``model_type``, else the one
    whose tensor names fit. A model of no known family gets what common names and chained
    dimensions tell; notes say what that could not.

    Parameters
    ----------
    shapes
        Shape of every tensor by name. Prefixes of wrappers (``bert.``, ``model.``) are found.
    config
        The model's config.json, if there is one. It gives head counts, activations, rotary
        fractions; each is checked against the shapes. Of a model of several parts with a config
        each (``text_config``) the language model is mapped.
    family
        Name of a family (see `families`), to be taken whatever the config says.
    heads
        Number of attention heads (query heads), to be taken whatever the config says.
    window
        How many layers further a block may lie that reads what another one writes to the residual
        stream (see `residual_pairs`); 0 for no such pairs. Pairs along the stream of a
        convolutional network, from each block to the next, are always listed.
    wiring
        What the file's own graph says. It decides where no family with layers is named or found.

    Returns
    -------
    Graph
        Pairs, heads' spaces, unmapped matrices, notes, residual streams and links along them.

    Raises
    ------
    InputError
        If an argument is of the wrong form.
    ArchitectureError
        If the family is unknown or has none of its tensors here, or if a tensor's shape
        contradicts the config; the message names the tensor, its shape and the config key.

    References
    ----------
    The pairs are the adjacent maps of Xiao, Sui, Ruan, arXiv 2605.09861; Q-K and V-O pairs as in
    Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).

    Examples
    --------
    >>> graph = build_graph({"0.weight": (8, 4), "2.weight": (3, 8)}, {"activation": "relu"})
    >>> graph.family, graph.pairs[0].name, graph.pairs[0].freedom
    ('mlp', '0-2', 'scaling')
    """
    checked = _checked_shapes(shapes)
    _check_arguments(config, heads, window)
    notes, taken = Notes(), Notes()
    choice = choose(checked, config, family, taken)
    told = wiring if family is None and wiring and (wiring.maps or wiring.attention) else None
    if told is not None and not (choice and choice.family.stacks):
        known = _known(HEADS, config, heads)
        found = wired_graph(told, checked, notes, known=known, config=config)
        return _finished(WIRED, list(found.pairs), list(found.heads), checked, notes, BIASES)
    notes = taken
    if choice is None:
        known = _known(HEADS, config, heads)
        found = infer_graph(checked, notes, known=known, config=config)
        return _finished("unknown", list(found.pairs), list(found.heads), checked, notes)
    config = choice.config
    if choice.family.chain is not None and not choice.family.stacks:
        pairs = _chain_pairs(choice.family.chain, checked, config, notes)
        return _finished(choice.family.name, pairs, [], checked, notes, choice.family.ignore)
    known = _known(choice.family.sizes, config, heads)
    builder = _Builder(checked, config, choice, known, notes, heads, residual=window > 0)
    pairs, spaces = builder.build()
    if told is not None and told.links and not pairs:
        # An exporter left only some of the family's names.
        found = wired_graph(told, checked, Notes(), known=known, config=config)
        return _finished(WIRED, list(found.pairs), list(found.heads), checked, notes, BIASES)
    pairs += [pair for one in builder.streams for pair in residual_pairs(one, window=window)]
    graph = _finished(choice.family.name, pairs, spaces, checked, notes, choice.family.ignore)
    links = (link for one in builder.streams for link in head_links(one, window=window))
    return replace(
        graph, frames=tuple(builder.frames), streams=tuple(builder.streams), links=tuple(links)
    )


@dataclass(frozen=True)
class FamilyInfo:
    """What a family file offers and what is proven of it, for lists of the families."""

    name: str
    title: str
    model_types: tuple[str, ...]
    pairs: tuple[str, ...]
    proof: Proof | None = None


def families() -> tuple[FamilyInfo, ...]:
    """The families that ship with the package, by name.

    References
    ----------
    Each is a TOML file beside this module.

    Examples
    --------
    >>> [one.title for one in families() if one.name == "gpt2"]
    ['GPT-2']
    """
    return tuple(
        FamilyInfo(one.name, one.title, one.model_types, _pair_kinds(one), proofs().get(one.name))
        for one in load_families().values()
    )


def _pair_kinds(family: Family) -> tuple[str, ...]:
    kinds: list[str] = ["sequential"] if family.chain else []
    for stack in family.stacks:
        kinds += ["qk", "ov"] if stack.attention else []
        kinds += ["latent"] if stack.latent else []
        kinds += ["mlp"] if stack.mlp else []
        kinds += ["conv"] if stack.sequence else []
        kinds += ["residual"] if stack.stream or stack.has_stream else []
    return tuple(dict.fromkeys(kinds))


def _checked_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    if not isinstance(shapes, Mapping) or not shapes:
        raise InputError(
            "shapes must be a mapping from tensor names to shapes with at least one tensor",
            hint="does the file hold a state dict?",
        )
    checked = {}
    for name, shape in shapes.items():
        valid = isinstance(name, str) and all(isinstance(n, int) and n >= 0 for n in shape)
        if not valid:
            raise InputError(
                f"tensor {name!r}: {shape!r} is no shape", hint="a shape is a tuple of integers"
            )
        checked[name] = tuple(int(n) for n in shape)
    return checked


def _check_arguments(config: object, heads: object, window: object) -> None:
    if config is not None and not isinstance(config, Mapping):
        raise InputError(
            f"config must be a mapping, got {type(config).__name__}",
            hint="pass the content of config.json",
        )
    if heads is not None and (isinstance(heads, bool) or not isinstance(heads, int) or heads < 1):
        raise InputError(
            f"heads must be a positive integer, got {heads!r}",
            hint="give the number of attention heads of a layer",
        )
    if isinstance(window, bool) or not isinstance(window, int) or window < 0:
        raise InputError(
            f"window must be an integer of at least 0, got {window!r}",
            hint="give the number of layers between a writer and a reader of the residual stream",
        )


def _known(
    rules: Mapping[str, tuple[str, ...]], config: Mapping[str, Any] | None, heads: int | None
) -> dict[str, Known]:
    known: dict[str, Known] = {}
    for axis, paths in rules.items():
        entry = _size_entry(config, paths)
        if entry is None:
            continue
        path, value = entry
        stages: tuple[Any, ...] = tuple(value) if isinstance(value, list) and value else (value,)
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in stages):
            raise ArchitectureError(
                f"config key {path!r}: expected a positive integer, got {value!r}",
                hint="correct the config (--config F), or give --heads N",
            )
        key = path.rpartition("?")[2]
        origin = "the family's default" if key.isdigit() else f"config key {key!r}"
        known[axis] = Known(stages[0], origin, stages if len(stages) > 1 else ())
    if heads is not None:
        known["h"] = Known(heads, "the heads argument")
    return known


def _size_entry(config: Mapping[str, Any] | None, paths: tuple[str, ...]) -> tuple[str, Any] | None:
    """The first size that the config gives; "flag?key" counts only where it sets the flag.

    A key that is a number stands for itself: "model_type?32" is what the family's config class
    takes where a config of that class leaves the key out.
    """
    for path in paths:
        flag, conditional, key = path.rpartition("?")
        if conditional and not config_flag((flag,), config):
            continue
        if key.isdigit():
            return path, int(key)
        entry = config_entry(config, (key,))
        if entry is not None:
            return entry
    return None


def _chain_pairs(
    rule: ChainRule, shapes: Shapes, config: Mapping[str, Any] | None, notes: Notes
) -> list[PairGroup]:
    activation = str(config_value(rule.activation, config))
    found = chains(shapes, shapes)
    if not found:
        notes.add("no numbered sequence of weights whose dimensions chain")
    return [
        pair for one in found for pair in chain_groups(one, shapes, notes, activation=activation)
    ]


class _Builder:
    """Applies a family's rules to each layer of each stack."""

    def __init__(
        self,
        shapes: Shapes,
        config: Mapping[str, Any] | None,
        choice: Choice,
        known: Mapping[str, Known],
        notes: Notes,
        heads: int | None,
        *,
        residual: bool,
    ) -> None:
        self.shapes, self.config, self.choice = shapes, config, choice
        self.known, self.notes = known, notes
        self.heads, self.residual = heads, residual
        self.several = len(choice.instances) > 1
        self.frames: list[Frame] = []
        self.streams: list[Stream] = []
        self.solved: Solved = {}

    def build(self) -> tuple[list[PairGroup], list[HeadGroup]]:
        pairs: list[PairGroup] = []
        heads: list[HeadGroup] = []
        for one in self.choice.instances:
            self._note_gaps(one)
            self._note_defaults(one.rule)
            scopes = [self._scope(one, i) for i in range(len(one.numbers))]
            parts: list[Part] = []
            for scope, numbers in zip(scopes, one.numbers, strict=True):
                for rule in one.rule.attention:
                    build = partial(attention_groups, rule, scope)
                    found, spaces = attempted(build, ([], []), scope)
                    pairs += found
                    heads += spaces
                    label = attention_label(rule, scope)
                    parts.append(
                        Part(rule, scope, numbers[:-1], label, tuple(found), tuple(spaces))
                    )
                for rule in one.rule.latent:
                    pairs += attempted(partial(latent_groups, rule, scope), [], scope)
                for rule in one.rule.mlp:
                    found = attempted(partial(mlp_groups, rule, scope), [], scope)
                    pairs += found
                    label = f"{scope.label}.{rule.name}"
                    parts.append(Part(rule, scope, numbers[:-1], label, tuple(found)))
            if one.rule.sequence:
                pairs += sequence_groups(one.rule, scopes, self._outside(one))
            self._follow_stream(one, parts)
        return pairs, heads

    def _follow_stream(self, one: Instance, parts: list[Part]) -> None:
        outside = self._outside(one)
        self.streams += stack_streams(one.rule, parts, outside, noted=self.residual)
        if one.rule.frame is not None and not self.several and self.choice.trusted:
            ignored = (*BUFFERS, *self.choice.family.ignore)
            blocks = [Block(part.scope.norm(part.rule.norm), part.pairs) for part in parts]
            frame = stream_frame(one.rule.frame, blocks, outside, ignored)
            self.frames += [frame] if frame else []

    def _stack_name(self, one: Instance) -> str:
        alike = sum(other.rule.name == one.rule.name for other in self.choice.instances)
        return one.rule.name if alike == 1 else one.prefix.rstrip(".") or one.rule.name

    def _scope(self, one: Instance, position: int) -> Scope:
        numbers = one.numbers[position]
        base = layer_base(one, numbers)
        single = len(numbers) == 1
        label = f"layer.{numbers[0]}" if single else base.rstrip(".")
        stack = self._stack_name(one)
        return Scope(
            shapes=self.shapes, base=base, label=f"{stack}.{label}" if self.several else label,
            stack=stack, layer=numbers[0] if single else position,
            known={axis: size.at(numbers[0]) for axis, size in self._sizes(one.rule).items()},
            config=self.config, notes=self.notes, trusted=self.choice.trusted, solved=self.solved,
        )  # fmt: skip

    def _sizes(self, rule: StackRule) -> dict[str, Known]:
        own = _known(rule.sizes, self.config, None)
        heads = {"h": self.known["h"]} if self.heads and "h" in self.known else {}
        return {**self.known, **own, **heads}

    def _outside(self, one: Instance) -> Scope:
        stack = self._stack_name(one)
        return Scope(
            shapes=self.shapes, base=one.prefix, label=stack, stack=stack, layer=None,
            known=self.known, config=self.config, notes=self.notes, trusted=self.choice.trusted,
        )  # fmt: skip

    def _note_gaps(self, one: Instance) -> None:
        if len(one.numbers[0]) == 1:
            present = {numbers[0] for numbers in one.numbers}
            absent = sorted(set(range(max(present) + 1)) - present)
            if absent:
                self.notes.add(f"layers {absent} are missing under {one.prefix + one.path!r}")

    def _note_defaults(self, rule: StackRule) -> None:
        if self.config or not self.choice.trusted:
            return
        for block in rule.attention:
            if block.rotary and isinstance(block.rotary.fraction, ConfigRule):
                self.notes.add(
                    f"without a config the rotary embedding ({block.rotary.layout}) is taken to "
                    f"turn the fraction {block.rotary.fraction.default} of each head"
                )
        if rule.parallel.config and self.residual:
            order = "in parallel" if rule.parallel.default else "one behind the other"
            self.notes.add(f"without a config attention and MLP are taken to run {order}")
        for block in rule.mlp:
            self.notes.add(f"without a config the activation is taken as "
                           f"{block.activation.default!r}")  # fmt: skip


def _finished(
    family: str,
    pairs: list[PairGroup],
    heads: list[HeadGroup],
    shapes: Shapes,
    notes: Notes,
    ignore: tuple[str, ...] = (),
) -> Graph:
    used = {side.map.tensor for pair in pairs for side in (pair.write, pair.read)}
    unmapped = tuple(
        name
        for name, shape in shapes.items()
        if len(shape) >= 2
        and name not in used
        and not any(fnmatchcase(name, pattern) for pattern in (*BUFFERS, *ignore))
    )
    if not pairs:
        notes.add("no adjacent pair could be mapped; the matrices are listed as unmapped")
    return Graph(family, with_outer_freedoms(pairs), tuple(heads), unmapped, notes.texts())
