"""Attention blocks: Q-K and V-O pairs of each head, and the heads' spaces in the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from flagscope.arch.config_values import Known, config_entry, config_flag, config_value
from flagscope.arch.graph import HeadGroup, Member, PairGroup, Rotary
from flagscope.arch.layout import LayoutMismatchError, axis_sizes, parse_layout
from flagscope.arch.limits import check_count
from flagscope.arch.map_solver import Place
from flagscope.arch.maps import LinearMap
from flagscope.arch.norm import Norm
from flagscope.arch.norm_finder import named_norm, stream_norm
from flagscope.arch.pair_side import Side
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import AttentionRule, RotaryRule
from flagscope.errors import ArchitectureError
from flagscope.records import Attention, Freedom, HeadSpace

Groups = tuple[list[PairGroup], list[HeadGroup]]

LINEAR: tuple[str, Freedom] = ("linear", "gl")
# Clipping to a range is elementwise and equal for all dimensions.
CLIPPED: tuple[str, Freedom] = ("clip", "permutation")

HEADS_UNKNOWN = (
    "attention heads are not told apart, since their number follows neither from the config nor "
    "from the tensors: give --heads N or --config F"
)


def attention_groups(rule: AttentionRule, context: RuleContext) -> Groups:
    """Pairs and head spaces of one attention block, for those of its tensors that exist.

    Q-K: W_Q of a query head writes into R^{d_h}, (W_K)ᵀ of its key-value head reads it (the
    logits are xᵀ W_Kᵀ W_Q y). V-O: W_V of the key-value head writes, W_O of the head reads.
    """
    places = [place for map_rule in rule.maps if (place := context.locate(map_rule))]
    if not places:
        if not rule.optional:
            context.notes.add("no attention tensors of the family's names", context.label)
        return [], []
    missing = [
        map_rule.role for map_rule in rule.maps if all(p.rule is not map_rule for p in places)
    ]
    if missing:
        context.notes.add(f"attention without the maps {', '.join(missing)}", context.label)
    maps = _counted_groups(places, context).solve(places)
    if maps is None:
        context.notes.add(HEADS_UNKNOWN, context.label)
        return [], []
    check_count(max(maps.values(), key=lambda map_: map_.count), "heads")
    pairs = []
    if "q" in maps and "k" in maps:
        pairs.append(_query_key(rule, maps, context))
    if "v" in maps and "o" in maps:
        pairs.append(_value_output(rule, maps, context))
    heads = [_head_group(rule, map_, context) for role, map_ in maps.items() if role in rule.spaces]
    return pairs, heads


def _counted_groups(places: Sequence[Place], context: RuleContext) -> RuleContext:
    """The context, with the number of key-value heads from the rows of a fused QKV.

    Each group has two heads besides its queries. If the config gives a number of groups that fits
    the rows, it is used; otherwise the rows decide, as a config may state the number under a flag.
    """
    by_role = {place.rule.role: place for place in places}
    queries, output, heads = by_role.get("q"), by_role.get("o"), context.known.get("h")
    if queries is None or queries.rule.layout != "(g s k) d" or heads is None or output is None:
        return context
    try:
        sizes, _ = axis_sizes(
            parse_layout(output.layout),
            output.shape,
            {axis: size.value for axis, size in context.known.items()},
        )
    except LayoutMismatchError:
        return context
    rows, remainder = divmod(queries.shape[0], sizes.get("k") or 1)
    groups, odd = divmod(rows - heads.value, 2)
    if "k" not in sizes or remainder or odd or groups < 1 or heads.value % groups:
        return context
    if "g" in context.known and context.known["g"].value == groups:
        return context
    if "g" in context.known:
        said = context.known["g"]
        context.notes.add(
            f"{said.origin} says {said.value} key-value heads, the rows of the fused maps hold "
            f"{groups}, which is taken", context.label,
        )  # fmt: skip
    known = {**context.known, "g": Known(groups, f"the rows of {queries.tensor!r}")}
    return replace(context, known=known)


def attention_label(rule: AttentionRule, context: RuleContext) -> str:
    """Prefix of the names of an attention block's pairs, such as ``layer.3.cross``."""
    label = context.label if rule.kind == "self" else f"{context.label}.{rule.kind}"
    return f"{label}.{rule.name}" if rule.name else label


def _attention(rule: AttentionRule) -> Attention:
    return "cross" if rule.kind == "cross" else "self"


def _group_size(queries: LinearMap, shared: LinearMap) -> int:
    size, remainder = divmod(queries.count, shared.count) if shared.count else (0, 1)
    if remainder:
        raise ArchitectureError(
            f"{queries.tensor!r} of shape {queries.shape} has {queries.count} query heads, "
            f"{shared.tensor!r} of shape {shared.shape} has {shared.count} key-value heads: "
            "not a multiple",
            hint="check num_attention_heads, num_key_value_heads and head_dim in the config, or "
            "give the number of query heads (--heads N)",
        )
    return size


def _query_key(
    rule: AttentionRule, maps: Mapping[str, LinearMap], context: RuleContext
) -> PairGroup:
    query, key = maps["q"], maps["k"]
    size = _group_size(query, key)
    between, freedom, rotary = _between(rule, query.outputs, context)
    label = attention_label(rule, context)
    return PairGroup(
        name=f"{label}.qk", kind="qk", between=between, stack=context.stack,
        attention=_attention(rule), layer=context.layer, freedom=freedom, d=query.outputs,
        write=Side(query), read=Side(key, transposed=True), rotary=rotary,
        query_norm=_head_norm("query", query, rule, rotary, context),
        key_norm=_head_norm("key", key, rule, rotary, context),
        heads_alike=context.trusted and not rule.heads_differ and between != "relative",
        members=tuple(
            Member(f"{label}.head.{h}.qk", write_index=h, read_index=h // size, head=h,
                   kv_head=h // size)
            for h in range(query.count)
        ),
    )  # fmt: skip


def _value_output(
    rule: AttentionRule, maps: Mapping[str, LinearMap], context: RuleContext
) -> PairGroup:
    value, output = maps["v"], maps["o"]
    size = _group_size(output, value)
    label = attention_label(rule, context)
    clipped = config_entry(context.config, rule.clipped) is not None
    between, freedom = CLIPPED if clipped else LINEAR
    return PairGroup(
        name=f"{label}.ov", kind="ov", between=between if context.trusted else "unknown",
        stack=context.stack, attention=_attention(rule), layer=context.layer,
        freedom=freedom if context.trusted else "none", d=value.outputs,
        write=Side(value), read=Side(output),
        members=tuple(
            Member(f"{label}.head.{h}.ov", write_index=h // size, read_index=h, head=h,
                   kv_head=h // size)
            for h in range(output.count)
        ),
    )  # fmt: skip


def _between(
    rule: AttentionRule, dimension: int, context: RuleContext
) -> tuple[str, Freedom, Rotary | None]:
    if not context.trusted:
        return "unknown", "none", None
    turned = _turned(rule, dimension, context)
    if turned % 2:
        context.notes.add(
            f"the rotary embedding would turn {turned} of {dimension} dimensions, which is odd: "
            "no freedom is claimed for Q-K; does the config give the rotary fraction?"
        )
        return "rope", "none", None
    rotary = Rotary(turned, _layout(rule.rotary, context)) if rule.rotary and turned else None
    if context.tensor(rule.query_norm) or context.tensor(rule.key_norm):
        return "norm", "scale", rotary
    if _normalised(rule, rotary, context):
        return "norm", "scale", rotary
    if context.tensor(rule.relative):
        return "relative", "none", rotary
    if config_entry(context.config, rule.clipped) is not None:
        return (*CLIPPED, None) if rotary is None else ("clip", "none", rotary)
    if rotary is not None:
        return "rope", "rotary", rotary
    return (*LINEAR, None)


def _layout(rule: RotaryRule, context: RuleContext) -> Literal["half", "interleaved"]:
    entry = config_entry(context.config, rule.interleaved)
    interleaved = entry[1] if entry is not None else rule.layout == "interleaved"
    return "interleaved" if interleaved else "half"


def _normalised(rule: AttentionRule, rotary: Rotary | None, context: RuleContext) -> bool:
    """Whether queries and keys are normalised after the rotary embedding."""
    return rotary is not None and config_flag(rule.normalised, context.config)


def _head_norm(
    side: Literal["query", "key"],
    map_: LinearMap,
    rule: AttentionRule,
    rotary: Rotary | None,
    context: RuleContext,
) -> Norm | None:
    """The norm of the queries or keys: a LayerNorm if it has a bias or the stream uses LayerNorm;
    a norm without tensors acts per head."""
    modules = rule.query_norm if side == "query" else rule.key_norm
    norm = named_norm(modules, context, kind="rmsnorm", placement="map")
    if norm is None and context.trusted and _normalised(rule, rotary, context):
        return Norm(
            name=f"{map_.tensor.removesuffix('.weight')} (norm)", kind="rmsnorm", gain=None,
            bias=None, mean=None, variance=None, eps=1e-6, offset=0.0, placement="map",
            shape=(map_.outputs,),
        )  # fmt: skip
    centres = rule.norm is not None and rule.norm.kind == "layernorm"
    return replace(norm, kind="layernorm") if norm and (norm.bias or centres) else norm


def _turned(rule: AttentionRule, dimension: int, context: RuleContext) -> int:
    """Number of a head's dimensions that the rotary embedding rotates."""
    if rule.rotary is None or config_flag(rule.rotary.unless, context.config):
        return 0
    if not _layer_turns(rule.rotary, context):
        return 0
    turned = config_value(rule.rotary.dims, context.config) if rule.rotary.dims else 0
    if not turned:
        turned = dimension * config_value(rule.rotary.fraction, context.config)
    if not turned <= dimension:
        raise ArchitectureError(
            f"the config turns {turned:g} of a head's {dimension} dimensions (rotary embedding)",
            hint="correct the config: the rotary fraction is at most 1",
        )
    return max(0, int(turned))


def _layer_turns(rule: RotaryRule, context: RuleContext) -> bool:
    entry = config_entry(context.config, rule.layers)
    if context.layer is None:
        return True
    if entry is not None and isinstance(entry[1], Sequence) and entry[1]:
        said = entry[1][context.layer] if context.layer < len(entry[1]) else True
        return said in rule.values if rule.values else bool(said)
    interval = int(config_value(rule.interval, context.config)) if rule.interval else 0
    return interval < 1 or (context.layer + 1) % interval != 0


def _head_group(rule: AttentionRule, map_: LinearMap, context: RuleContext) -> HeadGroup:
    spaces: dict[str, HeadSpace] = {"q": "q", "k": "k", "v": "v", "o": "o"}
    space = spaces[map_.role]
    stream = map_.outputs if space == "o" else map_.inputs
    normed = space != "o" and (context.trusted or context.norms)
    return HeadGroup(
        stack=context.stack, attention=_attention(rule), layer=context.layer or 0, space=space,
        map=map_, count=map_.count, rank=min(map_.outputs, map_.inputs), d=stream,
        norm=stream_norm(rule.norm, context) if normed else None,
    )  # fmt: skip
