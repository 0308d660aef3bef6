"""Checks a custom family file against the tensors: an unknown name is an error.

A shipped family is found by its names and describes many models, so some of its names may be
missing. A custom file describes this model, so a name in it that no tensor has is a mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from flagscope.arch.family_match import Instance, layer_base
from flagscope.arch.rules import (
    AttentionRule,
    Family,
    LatentRule,
    MapRule,
    MlpRule,
    NormRule,
    StackRule,
    load_families,
    norm_tensors,
)
from flagscope.errors import ArchitectureError

Shapes = Mapping[str, tuple[int, ...]]
Block = AttentionRule | MlpRule | LatentRule
_NEAR = 3


def check_stated(family: Family, instances: Sequence[Instance], shapes: Shapes, file: str) -> None:
    """Raise if paths, modules or norms of a family file do not exist in a checkpoint.

    In an optional block, either all maps may be missing or none.

    Raises
    ------
    ArchitectureError
        With the key of the first such name, and the nearest names.
    """
    # A copy or extension of a shipped file names norms that only some models have.
    own = family.name not in load_families() and family.named
    for index, stack in enumerate(family.stacks):
        key = f"{file}.stacks[{index}]"
        matching = [instance for instance in instances if instance.rule is stack]
        if not matching:
            raise _no_path(stack, shapes, key)
        inner = _relative_names(matching, shapes)
        blocks = list(_blocks(stack))
        whole = {name for _, block in blocks if all(_exists(rule, inner) for rule in block.maps)
                 for rule in block.maps for name in _roles(rule)}  # fmt: skip
        for block_key, block in blocks:
            present = [rule for rule in block.maps if _exists(rule, inner)]
            # A different form of a block may share its last map with it.
            shared = {name for rule in present for name in _roles(rule)} <= whole
            optional = not isinstance(block, LatentRule) and block.optional
            if optional and len(present) < len(block.maps) and shared:
                continue
            _check_block(block, inner, f"{key}.{block_key}", stack.paths, own=own)
    for index, sequence in enumerate(family.sequences):
        for number, rule in enumerate(sequence.maps):
            if not set(rule.weights()) & shapes.keys():
                raise _no_tensor(f"{file}.sequences[{index}].maps[{number}].module",
                                 rule.weights(), sorted(shapes), "")  # fmt: skip


def with_key(error: ArchitectureError, family: Family, file: str) -> ArchitectureError:
    """Add the key to an error about tensors that do not fit a family file."""
    text, best = str(error), ""
    for key, rule in _rules(family):
        named = any(re.search(rf"(?:^|['.]){re.escape(name)}'", text) for name in rule.weights())
        if named and f"'{rule.layout}" in text:
            best = f"{key}.layout"
            break
        if any(f"'{part}'" in text for part in rule.window.values()):
            best = f"{key}.window"
            break
        best = best or (key if named else "")
    where = f"{file}.{best}" if best else file
    return ArchitectureError(f"{where}: {text}", hint=error.hint)


def _rules(family: Family) -> Iterator[tuple[str, MapRule]]:
    """Yield (key, map) for all blocks and sequences of a family."""
    for index, stack in enumerate(family.stacks):
        for key, block in _blocks(stack):
            yield from ((f"stacks[{index}].{key}.{rule.role}", rule) for rule in block.maps)
    for index, sequence in enumerate(family.sequences):
        for number, rule in enumerate(sequence.maps):
            yield f"sequences[{index}].maps[{number}]", rule


def _blocks(stack: StackRule) -> Iterator[tuple[str, Block]]:
    groups: tuple[tuple[str, Sequence[Block]], ...] = (
        ("attention", stack.attention), ("mlp", stack.mlp), ("latent", stack.latent)
    )  # fmt: skip
    for name, blocks in groups:
        yield from ((f"{name}[{index}]", block) for index, block in enumerate(blocks))


def _check_block(
    block: Block, names: Sequence[str], key: str, paths: tuple[str, ...], *, own: bool
) -> None:
    for rule in block.maps:
        if not _exists(rule, names):
            raise _no_tensor(f"{key}.{rule.role}.module", rule.weights(), names, paths[0])
    if isinstance(block, AttentionRule) and own:
        for name, modules in (("query_norm", block.query_norm), ("key_norm", block.key_norm),
                              ("relative", block.relative)):  # fmt: skip
            if modules and not set(norm_tensors(modules)) & set(names):
                wanted = [f"{module}.weight" for module in modules]
                raise _no_tensor(f"{key}.{name}", wanted, names, paths[0])
    norms: list[tuple[str, NormRule | None]] = [("norm", block.norm)]
    if not isinstance(block, LatentRule):
        norms.append(("output_norm", block.output_norm))
    for name, norm in norms:
        if norm is not None and not norm.no_tensors and not set(norm.names()) & set(names):
            wanted = [tensor for tensor in norm.names() if not tensor.endswith(("_mean", "_var"))]
            raise _no_tensor(f"{key}.{name}.module", wanted, names, paths[0])


def _roles(rule: MapRule) -> set[tuple[str, str]]:
    return {(rule.role, name) for name in rule.weights()}


def _exists(rule: MapRule, names: Sequence[str]) -> bool:
    wanted = [
        re.compile(re.escape(name).replace(r"\{expert\}", "[0-9]+").replace(r"\*", "[0-9]+"))
        for name in rule.weights()
    ]
    return any(pattern.fullmatch(name) for pattern in wanted for name in names)


def _relative_names(instances: Sequence[Instance], shapes: Shapes) -> list[str]:
    """Names of the tensors in the layers of a stack, relative to the layer."""
    bases = {
        layer_base(instance, numbers) for instance in instances for numbers in instance.numbers
    }
    return sorted({name.removeprefix(base) for name in shapes for base in bases
                   if name.startswith(base)})  # fmt: skip


def _no_tensor(
    key: str, wanted: Sequence[str], names: Sequence[str], path: str
) -> ArchitectureError:
    near = list(dict.fromkeys(
        close for name in wanted
        for close in difflib.get_close_matches(name, names, n=_NEAR, cutoff=0.5)
    ))[:_NEAR]  # fmt: skip
    missing = " or ".join(repr(path + name) for name in wanted[:2])
    shown = near or list(names[:_NEAR])
    return ArchitectureError(
        f"{key}: no tensor is named {missing}",
        hint=("the nearest names are " if near else "there are ")
        + ", ".join(repr(name) for name in shown)
        + ("; names are relative to the path" if path else ""),
    )


def _no_path(stack: StackRule, shapes: Shapes, key: str) -> ArchitectureError:
    path = stack.paths[0]
    numbered = re.compile(rf"(?:.*\.)?{re.escape(path)}[0-9]+\.")
    first = next((name for name in shapes if "{" not in path and numbered.match(name)), None)
    if first is not None:
        return ArchitectureError(
            f"{key}.path: {path!r} has no number, but tensors below it are numbered ({first!r})",
            hint=f"write {path + '{layer}.'!r}",
        )
    pattern = re.compile(r"(?:.*\.)?" + re.sub(r"\\\{[a-z]+\\\}", "[0-9]+", re.escape(path)))
    below = sorted({name[m.end() :] for name in shapes if (m := pattern.match(name))})
    if below and path:
        rules = [rule for _, block in _blocks(stack) for rule in block.maps]
        wanted = rules[0].weights() if rules else ()
        return _no_tensor(f"{key}.{_first_key(stack)}", wanted, below, path)
    places = sorted({re.sub(r"(?<![^.])[0-9]+(?![^.])", "{layer}", name, count=1)
                     .partition("{layer}.")[0] + "{layer}." for name in shapes
                     if re.search(r"(?<![^.])[0-9]+\.", name)})  # fmt: skip
    near = difflib.get_close_matches(path, places, n=_NEAR, cutoff=0.3) or places[:_NEAR]
    return ArchitectureError(
        f"{key}.path: no tensor's name begins with {path!r}; the first is {min(shapes)!r}",
        hint=f"numbered layers lie under {', '.join(map(repr, near))}" if near
        else "leave the family to be found, or name another one",
    )  # fmt: skip


def _first_key(stack: StackRule) -> str:
    for key, block in _blocks(stack):
        for rule in block.maps:
            return f"{key}.{rule.role}.module"
    return "path"
