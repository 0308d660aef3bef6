"""MLP blocks: up and down, and the gate where there is one."""

from __future__ import annotations

from flagscope.arch.activations import activation_freedom
from flagscope.arch.family import MlpRule
from flagscope.arch.graph import Freedom, Member, PairGroup
from flagscope.arch.maps import LinearMap
from flagscope.arch.scope import Scope, config_value
from flagscope.arch.sides import Side


def mlp_groups(rule: MlpRule, scope: Scope) -> list[PairGroup]:
    """Pairs of one MLP block: up-down, and gate-down in down(act(gate x) * up x).

    Between up and down of a gated block lies the elementwise product, which every positive
    scaling passes; the gate passes what its activation passes.
    """
    found = [place for one in rule.maps if (place := scope.locate(one))]
    if not found:
        if not rule.optional:
            scope.notes.add("no MLP tensors of the family's names", scope.label)
        return []
    maps = scope.solve(found)
    if maps is None or "up" not in maps or "down" not in maps:
        scope.notes.add("the MLP lacks its first or last map", scope.label)
        return []
    gated = any(one.role == "gate" for one in rule.maps)
    if gated and "gate" not in maps:
        scope.notes.add("the MLP's gate is missing, and what lies between unknown", scope.label)
        return [_pair("mlp.up", maps["up"], maps["down"], "unknown", "none", scope)]
    activation = str(config_value(rule.activation, scope.config)) if scope.trusted else "unknown"
    freedom = activation_freedom(activation)
    if not gated:
        return [_pair("mlp", maps["up"], maps["down"], activation, freedom, scope)]
    passing: Freedom = "scaling" if scope.trusted else "none"
    return [
        _pair("mlp.up", maps["up"], maps["down"], "gated", passing, scope),
        # the product with `up` admits no mixing of neurons even under a linear gate
        _pair("mlp.gate", maps["gate"], maps["down"], activation,
              "scaling" if freedom == "gl" else freedom, scope),
    ]  # fmt: skip


def _pair(
    name: str, write: LinearMap, read: LinearMap, between: str, freedom: Freedom, scope: Scope
) -> PairGroup:
    full = f"{scope.label}.{name}"
    return PairGroup(
        name=full, kind="mlp", between=between, stack=scope.stack, attention=None,
        layer=scope.layer, freedom=freedom, d=write.outputs, write=Side(write), read=Side(read),
        members=(Member(full),),
    )  # fmt: skip
