"""From tensor names, shapes and a config to the graph: the interpreter of family files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from flagscope.arch.attention import attention_groups
from flagscope.arch.chain import chain_groups, chains
from flagscope.arch.family import ChainRule, ConfigRule, Family, StackRule, load_families
from flagscope.arch.graph import Graph, HeadGroup, PairGroup
from flagscope.arch.infer import HEAD_KEYS, infer_graph
from flagscope.arch.mlp import mlp_groups
from flagscope.arch.scope import Known, Notes, Scope, Shapes, attempted, config_entry, config_value
from flagscope.arch.sequence import sequence_groups
from flagscope.errors import ArchitectureError, InputError

# Buffers of two and more dimensions that are no matrices of weights.
BUFFERS = ("*position_ids", "*inv_freq", "*num_batches_tracked", "*token_type_ids")


def build_graph(
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None = None,
    *,
    family: str | None = None,
    heads: int | None = None,
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
        fractions; each is checked against the shapes.
    family
        Name of a family (see `families`), to be taken whatever the config says.
    heads
        Number of attention heads (query heads), to be taken whatever the config says.

    Returns
    -------
    Graph
        Pairs, heads' spaces, unmapped matrices, notes.

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
    _check_arguments(config, heads)
    notes = Notes()
    choice = _choose(checked, config, family, notes)
    if choice is None:
        known = _known({"h": HEAD_KEYS, "g": ("num_key_value_heads",)}, config, heads)
        found = infer_graph(checked, notes, known=known, config=config)
        return _finished("unknown", list(found.pairs), list(found.heads), checked, notes)
    if choice.family.chain is not None and not choice.family.stacks:
        pairs = _chain_pairs(choice.family.chain, checked, config, notes)
        return _finished(choice.family.name, pairs, [], checked, notes, choice.family.ignore)
    known = _known(choice.family.sizes, config, heads)
    builder = _Builder(checked, config, choice, known, notes)
    pairs, spaces = builder.build()
    ignore = choice.family.ignore
    return _finished(choice.family.name, pairs, spaces, checked, notes, ignore)


@dataclass(frozen=True)
class FamilyInfo:
    """What a family file offers, for lists of the supported families."""

    name: str
    title: str
    model_types: tuple[str, ...]
    pairs: tuple[str, ...]


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
        FamilyInfo(one.name, one.title, one.model_types, _pair_kinds(one))
        for one in load_families().values()
    )


def _pair_kinds(family: Family) -> tuple[str, ...]:
    kinds: list[str] = ["sequential"] if family.chain else []
    for stack in family.stacks:
        kinds += ["qk", "ov"] if stack.attention else []
        kinds += ["mlp"] if stack.mlp else []
        kinds += ["conv"] if stack.sequence else []
        kinds += ["residual"] if stack.stream else []
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


def _check_arguments(config: object, heads: object) -> None:
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


def _known(
    rules: Mapping[str, tuple[str, ...]], config: Mapping[str, Any] | None, heads: int | None
) -> dict[str, Known]:
    known: dict[str, Known] = {}
    for axis, paths in rules.items():
        entry = config_entry(config, paths)
        if entry is None:
            continue
        path, value = entry
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArchitectureError(
                f"config key {path!r}: expected a positive integer, got {value!r}",
                hint="correct the config (--config F), or give --heads N",
            )
        known[axis] = Known(value, f"config key {path!r}")
    if heads is not None:
        known["h"] = Known(heads, "the heads argument")
    return known


@dataclass(frozen=True)
class _Instance:
    """A stack as it occurs in a checkpoint: under one prefix, by one of its paths."""

    rule: StackRule
    prefix: str
    path: str
    numbers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Choice:
    family: Family
    instances: tuple[_Instance, ...]
    trusted: bool


def _choose(
    shapes: Shapes, config: Mapping[str, Any] | None, name: str | None, notes: Notes
) -> _Choice | None:
    known = load_families()
    if name is not None:
        if name not in known:
            raise ArchitectureError(
                f"unknown family {name!r}", hint=f"known families: {', '.join(known)}"
            )
        choice = _Choice(known[name], _instances(known[name], shapes), True)
        if known[name].stacks and not choice.instances:
            raise ArchitectureError(
                f"no tensor is named as in family {name!r}; the first is {min(shapes)!r}",
                hint="leave the family to be found, or name another one",
            )
        return choice
    model_type = (config or {}).get("model_type")
    owner = next((one for one in known.values() if model_type in one.model_types), None)
    if owner is not None:
        instances = _instances(owner, shapes)
        if instances:
            return _Choice(owner, instances, True)
        notes.add(f"the config says model type {model_type!r}, but no tensor has its names")
    return _fitting(shapes, None if owner else model_type, notes)


def _fitting(shapes: Shapes, model_type: object, notes: Notes) -> _Choice | None:
    """The family whose names explain most tensors, all its required blocks among them."""
    best: tuple[tuple[int, int, int], Family, tuple[_Instance, ...]] | None = None
    for family in load_families().values():
        instances = _instances(family, shapes)
        complete = [one for one in instances if _complete(one, family, shapes)]
        if not complete:
            continue
        matched = sum(_matched(one, shapes) for one in complete)
        preferred = sum(one.prefix in family.prefixes for one in complete)
        rank = (matched, len(family.requires), preferred)
        if best is None or rank > best[0]:
            best = (rank, family, tuple(complete))
    if best is None:
        return _plain_chain(shapes, notes, model_type)
    _, family, instances = best
    if model_type is not None:
        notes.add(
            f"no family is known for model type {model_type!r}; its tensors are named as in "
            f"{family.title}, but that is no proof: no freedom is claimed. --family {family.name} "
            "takes it as such"
        )
    elif family.model_types:
        notes.add(
            f"family {family.title} was inferred from tensor names; position embedding and "
            "activation are taken as in that family"
        )
    return _Choice(family, instances, model_type is None)


def _plain_chain(shapes: Shapes, notes: Notes, model_type: object) -> _Choice | None:
    matrices = {name for name, shape in shapes.items() if len(shape) >= 2}
    for family in load_families().values():
        covered = {name for chain in chains(shapes, shapes) for _, name in chain}
        if family.chain is not None and matrices and matrices <= covered:
            return _Choice(family, (), True)
    told = f"model type {model_type!r}" if model_type is not None else "these tensor names"
    notes.add(f"no family is known for {told}")
    return None


def _instances(family: Family, shapes: Shapes) -> tuple[_Instance, ...]:
    found: list[_Instance] = []
    for rule in family.stacks:
        names = rule.names()
        endings = tuple(names)  # most names of a large model end otherwise: a quick test first
        best: dict[str, tuple[int, _Instance]] = {}
        for path in rule.paths:
            pattern = _path_pattern(path)
            layers: dict[str, Counter[tuple[int, ...]]] = {}
            for name in shapes:
                match = pattern.fullmatch(name) if name.endswith(endings) else None
                if match and match["rest"] in names:
                    numbers = tuple(int(n) for n in match.groups()[1:-1])
                    layers.setdefault(match["prefix"], Counter())[numbers] += 1
            for prefix, counts in layers.items():
                one = _Instance(rule, prefix, path, tuple(sorted(counts)))
                if prefix not in best or counts.total() > best[prefix][0]:
                    best[prefix] = (counts.total(), one)
        found += [one for _, one in best.values()]
    return tuple(found)


def _path_pattern(path: str) -> re.Pattern[str]:
    numbered = re.sub(r"\\\{[a-z]+\\\}", r"(\\d+)", re.escape(path))
    return re.compile(rf"(?P<prefix>(?:.*\.)?){numbered}(?P<rest>.+)")


def _base(one: _Instance, numbers: tuple[int, ...]) -> str:
    values = iter(numbers)
    return one.prefix + re.sub(r"\{[a-z]+\}", lambda _: str(next(values)), one.path)


def _complete(one: _Instance, family: Family, shapes: Shapes) -> bool:
    """Whether the first layer has every block that the family does not call optional."""
    base = _base(one, one.numbers[0])
    blocks = (*one.rule.attention, *one.rule.mlp)
    needed = [rule for block in blocks if not block.optional for rule in block.maps]
    needed += one.rule.sequence[:2]
    present = all(any(base + name in shapes for name in rule.weights()) for rule in needed)
    return present and all(base + name in shapes for name in family.requires)


def _matched(one: _Instance, shapes: Shapes) -> int:
    names = one.rule.names()
    return sum(base + name in shapes for base in (_base(one, n) for n in one.numbers)
               for name in names)  # fmt: skip


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
        choice: _Choice,
        known: Mapping[str, Known],
        notes: Notes,
    ) -> None:
        self.shapes, self.config, self.choice = shapes, config, choice
        self.known, self.notes = known, notes
        self.several = len(choice.instances) > 1

    def build(self) -> tuple[list[PairGroup], list[HeadGroup]]:
        pairs: list[PairGroup] = []
        heads: list[HeadGroup] = []
        for one in self.choice.instances:
            self._note_gaps(one)
            self._note_defaults(one.rule)
            scopes = [self._scope(one, i) for i in range(len(one.numbers))]
            for scope in scopes:
                for rule in one.rule.attention:
                    build = partial(attention_groups, rule, scope)
                    found, spaces = attempted(build, ([], []), scope)
                    pairs += found
                    heads += spaces
                for rule in one.rule.mlp:
                    pairs += attempted(partial(mlp_groups, rule, scope), [], scope)
            if one.rule.sequence:
                pairs += sequence_groups(one.rule, scopes, self._outside(one))
        return pairs, heads

    def _stack_name(self, one: _Instance) -> str:
        alike = sum(other.rule.name == one.rule.name for other in self.choice.instances)
        return one.rule.name if alike == 1 else one.prefix.rstrip(".") or one.rule.name

    def _scope(self, one: _Instance, position: int) -> Scope:
        numbers = one.numbers[position]
        base = _base(one, numbers)
        single = len(numbers) == 1
        label = f"layer.{numbers[0]}" if single else base.rstrip(".")
        stack = self._stack_name(one)
        return Scope(
            shapes=self.shapes, base=base, label=f"{stack}.{label}" if self.several else label,
            stack=stack, layer=numbers[0] if single else position, known=self.known,
            config=self.config, notes=self.notes, trusted=self.choice.trusted,
        )  # fmt: skip

    def _outside(self, one: _Instance) -> Scope:
        stack = self._stack_name(one)
        return Scope(
            shapes=self.shapes, base=one.prefix, label=stack, stack=stack, layer=None,
            known=self.known, config=self.config, notes=self.notes, trusted=self.choice.trusted,
        )  # fmt: skip

    def _note_gaps(self, one: _Instance) -> None:
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
    return Graph(family, tuple(pairs), tuple(heads), unmapped, notes.texts())
