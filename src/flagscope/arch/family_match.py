"""Matches a checkpoint to a family, and finds its stacks of layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flagscope.arch.composite_models import is_other_part, language_section
from flagscope.arch.limits import LAYER_NUMBER
from flagscope.arch.notes import Notes
from flagscope.arch.rule_context import RuleContext, Shapes
from flagscope.arch.rules import Family, StackRule, load_families, norm_tensor, own_family
from flagscope.errors import ArchitectureError

_ATTENTION = re.compile(r"\b(?:self_?)?att(?:n|ention)?\b")
_EXPERT = re.compile(r"\bexperts\.\d+\.")


@dataclass(frozen=True)
class Instance:
    """A stack in a checkpoint: under one prefix, by one of its paths."""

    rule: StackRule
    prefix: str
    path: str
    numbers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Choice:
    """A family and its stacks in a checkpoint; not trusted if no family has the model type.

    `config` is the config of these stacks: all of it, or the language model's own section.
    """

    family: Family
    instances: tuple[Instance, ...]
    trusted: bool
    config: Mapping[str, Any] | None = None


def choose(
    shapes: Shapes, config: Mapping[str, Any] | None, name: str | None, notes: Notes
) -> Choice | None:
    """The named family, else that of the model type, else the one whose names fit.

    If a model of several parts has a type that belongs to no family, its language model is taken.
    """
    nested = None if owner_of(config) else language_section(config)
    section = config if nested is None else nested[1]
    choice = _chosen(shapes, section, name, notes, nested is not None)
    if choice is None or nested is None:
        return choice and replace(choice, config=config)
    notes.add(
        f"a model of several parts (model type {(config or {}).get('model_type')!r}): its language "
        f"model is mapped, which {nested[0]} tells of; the other parts are listed as unmapped"
    )
    return replace(choice, config=section)


def owner_of(config: Mapping[str, Any] | None) -> Family | None:
    """The family of a config's own model type."""
    model_type = (config or {}).get("model_type")
    known = load_families().values()
    return next((family for family in known if model_type in family.model_types), None)


def recognised(config: Mapping[str, Any] | None) -> bool:
    """Whether a family is known for the model type, or for that of its language model."""
    nested = language_section(config)
    return owner_of(config) is not None or (nested is not None and owner_of(nested[1]) is not None)


def _chosen(
    shapes: Shapes, config: Mapping[str, Any] | None, name: str | None, notes: Notes, nested: bool
) -> Choice | None:
    known = load_families()
    if name is not None:
        family = own_family(name) if name.endswith(".toml") else known.get(name)
        if family is None:
            raise ArchitectureError(
                f"unknown family {name!r}",
                hint=f"give the path of a family file (.toml), none, or one of {', '.join(known)}",
            )
        choice = Choice(family, _instances(family, shapes, nested), True)
        names = {
            n for sequence in family.sequences for rule in sequence.maps for n in rule.weights()
        }
        absent = not choice.instances and not names & shapes.keys()
        if (family.stacks or names) and absent and family.file is None:
            raise ArchitectureError(
                f"no tensor is named as in family {name!r}; the first is {min(shapes)!r}",
                hint="leave the family to be found, or name another one",
            )
        return choice
    owner = owner_of(config)
    model_type = (config or {}).get("model_type")
    if owner is not None:
        instances = _instances(owner, shapes, nested)
        if instances:
            return _laid_out(Choice(owner, instances, True), shapes, nested, notes)
        notes.add(f"the config says model type {model_type!r}, but no tensor has its names")
    return _fitting(shapes, None if owner else model_type, notes, nested)


def _fitting(shapes: Shapes, model_type: object, notes: Notes, nested: bool) -> Choice | None:
    """The family whose names explain most tensors, including all its required blocks."""
    best: tuple[tuple[int, bool, int, int, bool], Family, tuple[Instance, ...]] | None = None
    for family in load_families().values():
        instances = _instances(family, shapes, nested)
        complete = [instance for instance in instances if _complete(instance, family, shapes)]
        if not complete or any(_contradicted(instance, shapes) for instance in complete):
            continue
        matched = sum(_matched(instance, shapes) for instance in complete)
        preferred = sum(instance.prefix in family.prefixes for instance in complete)
        fits = all(_fits(instance, shapes) for instance in complete)
        rank = (matched, fits, len(family.requires), preferred, family.named)
        if best is None or rank > best[0]:
            best = (rank, family, tuple(complete))
    if best is None:
        return None
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
    return Choice(family, instances, model_type is None)


def _laid_out(choice: Choice, shapes: Shapes, nested: bool, notes: Notes) -> Choice:
    """The choice, or a family with the same names whose layouts fit the tensors.

    For example, nn.Linear stores the transpose of GPT-2's Conv1D under the same names.
    """
    if all(_fits(instance, shapes) for instance in choice.instances):
        return choice
    names = {name for instance in choice.instances for name in instance.rule.names()}
    for family in load_families().values():
        if not family.named or family is choice.family:
            continue
        instances = _instances(family, shapes, nested)
        alike = instances and all(_complete(instance, family, shapes) for instance in instances)
        shared = {name for instance in instances for name in instance.rule.names()} & names
        if alike and shared and all(_fits(instance, shapes) for instance in instances):
            notes.add(
                f"the config says model type {choice.family.model_types[0]!r}, but the weights lie "
                f"as in {family.title}, which has the same names: they are read as such"
            )
            return Choice(family, instances, True)
    return choice


def _contradicted(instance: Instance, shapes: Shapes) -> bool:
    """Whether the first layer has tensors that the family lacks: attention, a norm's bias."""
    base = layer_base(instance, instance.numbers[0])
    if not instance.rule.attention and any(
        name.startswith(base) and _ATTENTION.search(name, len(base)) for name in shapes
    ):
        return True
    norms = [block.norm for block in (*instance.rule.attention, *instance.rule.mlp) if block.norm]
    return any(
        norm_tensor(base + module, norm.stored[1]) in shapes
        for norm in norms if norm.kind == "rmsnorm" for module in norm.modules
    )  # fmt: skip


def _fits(instance: Instance, shapes: Shapes) -> bool:
    """Whether the layouts of the first layer's blocks fit their tensors for some sizes."""
    base = layer_base(instance, instance.numbers[0])
    context = RuleContext(shapes=shapes, base=base, label="", stack="", layer=None)
    for block in (*instance.rule.attention, *instance.rule.mlp):
        expert = (
            0 if any("{expert}" in name for rule in block.maps for name in rule.modules) else None
        )
        places = [place for rule in block.maps if (place := context.locate(rule, expert))]
        try:
            context.solve(places)
        except ArchitectureError:
            return False
    return True


def _instances(family: Family, shapes: Shapes, nested: bool) -> tuple[Instance, ...]:
    """The stacks of a family; in a model of several parts, those of its language model."""
    instances: list[Instance] = []
    for rule in family.stacks:
        names = rule.names()
        endings = tuple(
            n.rpartition("{expert}")[2] for n in names
        )  # a quick test first, as most names of a large model end differently
        best: dict[str, tuple[int, Instance]] = {}
        for path in rule.paths:
            pattern = _path_pattern(path)
            layers: dict[str, Counter[tuple[int, ...]]] = {}
            for name in shapes:
                match = pattern.fullmatch(name) if name.endswith(endings) else None
                if match and _of_any_expert(match["rest"]) in names:
                    numbers = tuple(int(n) for n in match.groups()[1:-1])
                    layers.setdefault(match["prefix"], Counter())[numbers] += 1
            for prefix, counts in layers.items():
                if nested and is_other_part(prefix):
                    continue
                instance = Instance(rule, prefix, path, tuple(sorted(counts)))
                if prefix not in best or counts.total() > best[prefix][0]:
                    best[prefix] = (counts.total(), instance)
        instances += [instance for _, instance in best.values()]
    return tuple(instances)


def _path_pattern(path: str) -> re.Pattern[str]:
    numbered = re.sub(r"\\\{[a-z]+\\\}", f"({LAYER_NUMBER})", re.escape(path))
    return re.compile(rf"(?P<prefix>(?:.*\.)?){numbered}(?P<rest>.+)")


def _of_any_expert(name: str) -> str:
    return _EXPERT.sub("experts.{expert}.", name) if "experts." in name else name


def layer_base(instance: Instance, numbers: tuple[int, ...]) -> str:
    """Prefix of the tensor names of a layer."""
    values = iter(numbers)
    return instance.prefix + re.sub(r"\{[a-z]+\}", lambda _: str(next(values)), instance.path)


def _complete(instance: Instance, family: Family, shapes: Shapes) -> bool:
    """Whether the first layer has every block that is not optional in the family."""
    base = layer_base(instance, instance.numbers[0])
    blocks = (*instance.rule.attention, *instance.rule.mlp)
    needed = [rule for block in blocks if not block.optional for rule in block.maps]
    needed += instance.rule.sequence[:2]
    present = all(any(base + name in shapes for name in rule.weights()) for rule in needed)
    return present and all(base + name in shapes for name in family.requires)


def _matched(instance: Instance, shapes: Shapes) -> int:
    names = instance.rule.names()
    first = [name.replace("{expert}", "0") for name in names]
    bases = [layer_base(instance, numbers) for numbers in instance.numbers]
    return sum(base + name in shapes for base in bases for name in first)
