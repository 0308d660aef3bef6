"""Finds the norms of a layer from the names in a rule and from the config."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.arch.config_values import config_flag, config_truth, config_value
from flagscope.arch.norm import Norm, NormKind
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import NormRule, norm_tensor

_NORM_KEYS = ("weight", "bias", "running_mean", "running_var")


def stream_norm(rule: NormRule | None, context: RuleContext) -> Norm | None:
    """The norm of the stream described by a rule, if its tensors exist."""
    if rule is None or (rule.not_first and context.layer == 0):
        return None
    kind = _kind(rule, context)
    offset = rule.offset + config_flag(rule.less_one, context.config)
    eps = float(config_value(rule.eps, context.config))
    placement = _placement(rule, context)
    if rule.no_tensors:
        return Norm(
            name=context.base + rule.modules[0], kind=kind, gain=None, bias=None, mean=None,
            variance=None, eps=eps, offset=offset, placement=placement,
        )  # fmt: skip
    return named_norm(
        rule.modules, context, kind=kind, eps=eps, offset=offset, placement=placement,
        stored=rule.stored,
    )  # fmt: skip


def named_norm(
    modules: Sequence[str],
    context: RuleContext,
    *,
    kind: NormKind,
    placement: str,
    eps: float = 1e-5,
    offset: float = 0.0,
    stored: tuple[str, ...] = ("weight", "bias"),
) -> Norm | None:
    """The norm in the first of these modules that has a tensor."""
    for module in modules:
        names = {
            key: norm_tensor(context.base + module, called)
            for key, called in zip(_NORM_KEYS, (*stored, *_NORM_KEYS[2:]), strict=True)
        }
        tensors = {key: name for key, name in names.items() if name in context.shapes}
        if tensors:
            return Norm(
                name=context.base + module.removesuffix("_"), kind=kind,
                gain=tensors.get("weight"), bias=tensors.get("bias"),
                mean=tensors.get("running_mean"), variance=tensors.get("running_var"), eps=eps,
                offset=offset, placement=placement,
                shape=context.shapes.get(tensors.get("weight", "")),
            )  # fmt: skip
    return None


def layer_scale(names: Sequence[str], context: RuleContext) -> Norm | None:
    """The vector that multiplies the output of a block, if there is one."""
    for name in names:
        tensor = context.base + name
        if tensor in context.shapes:
            return Norm(
                name=tensor, kind="scale", gain=tensor, bias=None, mean=None, variance=None,
                eps=0.0, offset=0.0, placement="map", shape=context.shapes[tensor],
            )  # fmt: skip
    return None


def _kind(rule: NormRule, context: RuleContext) -> NormKind:
    if rule.kind != "by_bias":
        return rule.kind
    biases = (norm_tensor(context.base + module, rule.stored[1]) for module in rule.modules)
    return "layernorm" if any(name in context.shapes for name in biases) else "rmsnorm"


def _placement(rule: NormRule, context: RuleContext) -> str:
    if rule.pre is not None and not config_truth(rule.pre, context.config):
        return "post"
    if rule.post is not None and config_truth(rule.post, context.config):
        return "post"
    return "pre" if rule.pre is not None or rule.post is not None else rule.placement
