"""Maps of low rank in two factors: the latent spaces of queries, keys and values."""

from __future__ import annotations

from flagscope.arch.graph import Member, PairGroup
from flagscope.arch.rules import LatentRule
from flagscope.arch.scope import Scope
from flagscope.arch.sides import Side


def latent_groups(rule: LatentRule, scope: Scope) -> list[PairGroup]:
    """The pair of one compression and its expansion, with the norm that stands between them.

    Multi-head latent attention (DeepSeek-AI, arXiv 2405.04434) writes queries, and keys with
    values, as W_up norm(W_down x). The norm takes out the size of W_down x;
    an order of the dimensions passes it if the gain goes along.
    """
    found = [place for one in rule.maps if (place := scope.locate(one))]
    if len(found) < len(rule.maps):
        return []  # without a low rank (such as queries in smaller models) there is no pair
    maps = scope.solve(found)
    if maps is None:
        scope.notes.add("the sizes of a latent space are not known: give --config F", scope.label)
        return []
    name = f"{scope.label}.{rule.name}"
    norm = scope.norm(rule.norm) if scope.trusted else None
    return [
        PairGroup(
            name=name, kind="latent", between="norm" if norm else "unknown", stack=scope.stack,
            attention=None, layer=scope.layer, freedom="scale" if norm else "none",
            d=maps["compress"].outputs,
            write=Side(maps["compress"]), read=Side(maps["expand"]), members=(Member(name),),
            read_norm=norm,
        )
    ]  # fmt: skip
