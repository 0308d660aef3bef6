"""Convolutional blocks: the sequence inside a block, and the stream between blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

from flagscope.arch.activations import activation_freedom
from flagscope.arch.config_values import config_value
from flagscope.arch.graph import Member, PairGroup
from flagscope.arch.map_solver import Place
from flagscope.arch.maps import LinearMap
from flagscope.arch.norm import Norm
from flagscope.arch.norm_finder import named_norm
from flagscope.arch.pair_side import Side
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import MapRule, StackRule
from flagscope.records import Freedom, PairKind

Node = tuple[str, LinearMap, Norm | None]
"""A module's label, its map, and the BatchNorm directly after it."""


def sequence_groups(
    rule: StackRule, blocks: Sequence[RuleContext], outside: RuleContext
) -> list[PairGroup]:
    """Pairs within each block and, along the stream, from each block to the next.

    Parameters
    ----------
    rule
        The stack, with its sequence, activation and stream.
    blocks
        The blocks in the order of execution.
    outside
        Context of the stem and the last layer.
    """
    activation = str(config_value(rule.activation, outside.config)) if rule.activation else "linear"
    if _preactivation(rule, blocks):
        outside.notes.add(
            "the norms stand before the convolutions (a pre-activation network): pairs are listed "
            "without folding, and what lies between is unknown"
        )
        blocks = [replace(context, trusted=False) for context in blocks]
        outside = replace(outside, trusted=False)
    groups: list[PairGroup] = []
    previous = _nodes((rule.stream.entry,) if rule.stream else (), outside)
    for context in blocks:
        nodes = _nodes(rule.sequence, context)
        shortcut = _nodes((rule.stream.shortcut,) if rule.stream else (), context)
        for write, read in product(previous, (*nodes[:1], *shortcut)):
            groups += _residual(write, read, activation, context)
        for before, (write, read) in zip([None, *nodes], pairwise(nodes), strict=False):
            if before is not None and before[1].outputs != write[1].inputs:
                context.notes.add(
                    f"{write[1].tensor!r} is a grouped convolution; left out as writer"
                )
            else:
                groups += _inner(write, read, activation, context)
        previous = [*nodes[-1:], *shortcut]
    last = replace(outside, layer=len(blocks))
    exits = _nodes((rule.stream.exit,), last) if rule.stream else []
    if rule.stream and not exits and last.base:  # a head may be outside the trunk
        exits = _nodes((rule.stream.exit,), replace(last, base=""))
    for write, read in product(previous, exits):
        groups += _residual(write, read, activation, last)
    return groups


def _nodes(rules: Sequence[MapRule | None], context: RuleContext) -> list[Node]:
    nodes: list[Node] = []
    for rule in rules:
        place = context.locate(rule) if rule else None
        if rule is not None and place is not None:
            label = place.tensor.removesuffix(".weight").removesuffix(".convolution")
            maps = context.solve([place])
            if maps is not None:
                nodes.append((label, maps[rule.role], _norm(rule, place, context)))
    return nodes


def _norm(rule: MapRule, place: Place, context: RuleContext) -> Norm | None:
    if not context.trusted:
        return None
    # alternatives in a live module correspond by position: take the norm of the module found
    index = rule.weights().index(place.tensor.removeprefix(context.base))
    names = rule.norms[index : index + 1] if len(rule.norms) == len(rule.modules) else rule.norms
    return named_norm(names, context, kind="batchnorm", placement="map")


def _preactivation(rule: StackRule, blocks: Sequence[RuleContext]) -> bool:
    for context in blocks:
        for _, map_, norm in _nodes(rule.sequence, context):
            shape = context.shapes.get(norm.gain) if norm and norm.gain else None
            if shape is not None and shape != (map_.outputs,):
                return True
    return False


def _inner(write: Node, read: Node, activation: str, context: RuleContext) -> list[PairGroup]:
    name = f"{write[0]}-{read[0].rpartition('.')[2]}"
    between = activation if context.trusted else "unknown"
    return _pair(name, "conv", between, activation_freedom(between), write, read, context)


def _residual(write: Node, read: Node, activation: str, context: RuleContext) -> list[PairGroup]:
    between = activation if context.trusted else "unknown"
    return _pair(f"{write[0]}-{read[0]}", "residual", between, "none", write, read, context)


def _pair(
    name: str,
    kind: PairKind,
    between: str,
    freedom: Freedom,
    write: Node,
    read: Node,
    context: RuleContext,
) -> list[PairGroup]:
    (_, writer, norm), (_, reader, _) = write, read
    if writer.outputs != reader.inputs:
        context.notes.add(
            f"{name}: {writer.tensor!r} writes {writer.outputs} channels, {reader.tensor!r} reads "
            f"{reader.inputs} (a grouped convolution or a reshape between); left out"
        )
        return []
    # BatchNorm between linear maps commutes only with scalings of single channels
    left: Freedom = "scaling" if norm is not None and freedom == "gl" else freedom
    return [
        PairGroup(
            name=name, kind=kind, between=between, stack=context.stack, attention=None,
            layer=context.layer, freedom=left, d=writer.outputs, write=Side(writer),
            read=Side(reader), members=(Member(name),), write_norm=norm,
        )
    ]  # fmt: skip
