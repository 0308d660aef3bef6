"""MLP blocks: up and down, and the gate if there is one."""

from __future__ import annotations

from itertools import count

from flagscope.arch.activations import activation_freedom
from flagscope.arch.config_values import config_value
from flagscope.arch.graph import Member, PairGroup
from flagscope.arch.limits import check_count
from flagscope.arch.map_solver import Place
from flagscope.arch.maps import LinearMap
from flagscope.arch.pair_side import Side
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import MlpRule
from flagscope.records import Freedom


def mlp_groups(rule: MlpRule, context: RuleContext) -> list[PairGroup]:
    """Pairs of one MLP block: up-down, and gate-down in down(act(gate x) * up x).

    The elementwise product between up and down of a gated block commutes with every positive
    scaling; the gate commutes with what its activation commutes with. Each expert is a block:
    along a batch axis of one tensor, or in separate tensors.
    """
    if not any("{expert}" in module for map_rule in rule.maps for module in map_rule.modules):
        return _block(rule, context, _places(rule, context, None), None)
    groups: list[PairGroup] = []
    for expert in count():
        places = _places(rule, context, expert)
        if not places:
            break
        groups += _block(rule, context, places, expert)
    if not groups and not rule.optional:
        context.notes.add("no experts of the family's names", context.label)
    return groups


def _places(rule: MlpRule, context: RuleContext, expert: int | None) -> list[Place]:
    return [place for map_rule in rule.maps if (place := context.locate(map_rule, expert))]


def _block(
    rule: MlpRule, context: RuleContext, places: list[Place], expert: int | None
) -> list[PairGroup]:
    if not places:
        if not rule.optional:
            context.notes.add("no MLP tensors of the family's names", context.label)
        return []
    if rule.optional and any(place.rule.role == "down" for place in places) and len(places) == 1:
        return []  # a different form of the block, whose last map has the same name
    maps = context.solve(places)
    if maps is None or "up" not in maps or "down" not in maps:
        context.notes.add("the MLP lacks its first or last map", context.label)
        return []
    gated = any(map_rule.role == "gate" for map_rule in rule.maps)
    name = rule.name if expert is None else f"expert.{expert}.{rule.name}"
    if gated and "gate" not in maps:
        context.notes.add("the MLP's gate is missing, and what lies between unknown", context.label)
        return [_pair(f"{name}.up", maps["up"], maps["down"], "unknown", "none", context, expert)]
    activation = (
        str(config_value(rule.activation, context.config)) if context.trusted else "unknown"
    )
    freedom = activation_freedom(activation)
    if not gated:
        return [_pair(name, maps["up"], maps["down"], activation, freedom, context, expert)]
    # Scalings commute with the product, but not with a clip or shift before it.
    passing: Freedom = "none"
    if context.trusted:
        passing = "permutation" if rule.bounded else "scaling"
    return [
        _pair(f"{name}.up", maps["up"], maps["down"], "gated", passing, context, expert),
        # the product with `up` admits no mixing of neurons even under a linear gate
        _pair(f"{name}.gate", maps["gate"], maps["down"], activation,
              "scaling" if freedom == "gl" else freedom, context, expert),
    ]  # fmt: skip


def _pair(
    name: str,
    write: LinearMap,
    read: LinearMap,
    between: str,
    freedom: Freedom,
    context: RuleContext,
    expert: int | None,
) -> PairGroup:
    full = f"{context.label}.{name}"
    members: tuple[Member, ...] = (Member(full, expert=expert),)
    if write.batch and write.count == read.count:
        check_count(write, "experts")
        members = tuple(
            Member(f"{context.label}.expert.{e}.{name}", write_index=e, read_index=e, expert=e)
            for e in range(write.count)
        )
    return PairGroup(
        name=full, kind="mlp", between=between, stack=context.stack, attention=None,
        layer=context.layer, freedom=freedom, d=write.outputs, write=Side(write), read=Side(read),
        members=members,
    )  # fmt: skip
