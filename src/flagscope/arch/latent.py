"""Low-rank maps in two factors: the latent spaces of queries, keys and values."""

from __future__ import annotations

from flagscope.arch.graph import Member, PairGroup
from flagscope.arch.norm_finder import stream_norm
from flagscope.arch.pair_side import Side
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import LatentRule


def latent_groups(rule: LatentRule, context: RuleContext) -> list[PairGroup]:
    """The pair of one compression and its expansion, with the norm between them.

    Multi-head latent attention (DeepSeek-AI, arXiv 2405.04434) writes queries, and keys with
    values, as W_up norm(W_down x). The norm removes the size of W_down x; permutations of the
    dimensions commute with it if the gain is permuted too.
    """
    places = [place for map_rule in rule.maps if (place := context.locate(map_rule))]
    if len(places) < len(rule.maps):
        return []  # full rank, such as queries in smaller models: no pair
    maps = context.solve(places)
    if maps is None:
        context.notes.add(
            "the sizes of a latent space are not known: give --config F", context.label
        )
        return []
    name = f"{context.label}.{rule.name}"
    norm = stream_norm(rule.norm, context) if context.trusted else None
    return [
        PairGroup(
            name=name, kind="latent", between="norm" if norm else "unknown", stack=context.stack,
            attention=None, layer=context.layer, freedom="scale" if norm else "none",
            d=maps["compress"].outputs,
            write=Side(maps["compress"]), read=Side(maps["expand"]), members=(Member(name),),
            read_norm=norm,
        )
    ]  # fmt: skip
