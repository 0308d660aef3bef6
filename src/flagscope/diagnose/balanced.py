"""Gauge fixing of a group of pairs: the maps in the normal form of their own freedom.

Pairs that share a map (the query heads of one key head, the output heads of one value head) share
its gauge, so the normal form equates the sums of their Grams with the Gram of the shared map: the
quantities that gradient flow conserves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Member, PairGroup
from flagscope.geometry import balancing_transform, neuron_scales, plane_scales

GAUGES = {
    "gl": "all of GL(d), fixed by A = B (sums over the maps that share a head)",
    "rotary": "scale of each rotary plane, fixed by equal traces of A and B over the plane",
    "scaling": "scale of each neuron, fixed by diag A = diag B",
}


@dataclass(frozen=True)
class BalancedMaps:
    """Maps after gauge fixing.

    Attributes
    ----------
    write, read
        As the pairs' maps, (n, d, m1) and (n, m2, d).
    statuses
        'ok', or why a pair has no such normal form.
    """

    write: Float[Tensor, "n d m1"]
    read: Float[Tensor, "n m2 d"]
    statuses: list[str]


def fixes_completely(group: PairGroup, members: Sequence[Member]) -> bool:
    """Whether the gauge can make A = B pair by pair, so that no alignment is left to measure.

    So it is for all of GL(d) where no two pairs share a map.
    """
    return group.freedom == "gl" and _owners(members)[1] == len(members)


def balanced_maps(
    group: PairGroup,
    members: Sequence[Member],
    w1: Float[Tensor, "n d m1"],
    w2: Float[Tensor, "n m2 d"],
) -> BalancedMaps:
    """The maps in the normal form of the group's freedom, a key of `GAUGES`.

    Parameters
    ----------
    group
        Gives the freedom and, for rotary embeddings, the planes.
    members
        The n pairs, in the order of the maps; all pairs that share a map must be among them.
    w1, w2
        Write and read maps. The transforms are found in float64, whatever their type.
    """
    if group.freedom == "scaling":
        # Norms of rows and columns without a squared copy of the maps.
        rows, columns = (torch.linalg.vector_norm(w, dim=k) for w, k in ((w1, -1), (w2, -2)))
        s = neuron_scales(rows.square(), columns.square()).scales
        return BalancedMaps(s[..., None] * w1, w2 / s[:, None, :], ["ok"] * len(w1))
    kind, w1, w2 = w1.dtype, w1.double(), w2.double()
    owner, owners = _owners(members)
    a = _sum_distinct(w1 @ w1.mT, owner, owners, [m.write_index for m in members])
    b = _sum_distinct(w2.mT @ w2, owner, owners, [m.read_index for m in members])
    if group.freedom == "rotary":
        g, inverse, statuses = _rotary_gauge(group, a, b)
    else:
        fixed = balancing_transform(a, b)
        g, inverse, statuses = fixed.transform, fixed.inverse, [*fixed.statuses()]
    of = torch.tensor(owner, device=w1.device)
    write, read = (g[of] @ w1).to(kind), (w2 @ inverse[of]).to(kind)
    return BalancedMaps(write, read, [statuses[o] for o in owner])


def _owners(members: Sequence[Member]) -> tuple[list[int], int]:
    """Which set of pairs with a common map each pair is in, and how many sets there are."""
    shared_write = len({m.write_index for m in members}) < len(members)
    keys = [m.write_index if shared_write else m.read_index for m in members]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [number[key] for key in keys], len(number)


def _sum_distinct(grams: Tensor, owner: list[int], owners: int, indices: list[int]) -> Tensor:
    """Sum of the Grams of each set of pairs, every map of it counted once."""
    total = grams.new_zeros(owners, *grams.shape[1:])
    seen: set[tuple[int, int]] = set()
    for gram, key in zip(grams, zip(owner, indices, strict=True), strict=True):
        if key not in seen:
            seen.add(key)
            total[key[0]] += gram
    return total


def _rotary_gauge(group: PairGroup, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, list[str]]:
    """One scale a plane; all of GL on the dimensions that are not turned."""
    rotary = group.rotary
    if rotary is None:
        raise ValueError(f"{group.name}: a rotary freedom without a rotary embedding")
    planes = torch.tensor(rotary.planes(), device=a.device)
    scales = plane_scales(a, b, planes).scales
    diagonal = a.new_ones(a.shape[:-1])
    diagonal[:, planes[:, 0]] = scales
    diagonal[:, planes[:, 1]] = scales
    g, inverse = torch.diag_embed(diagonal), torch.diag_embed(1 / diagonal)
    statuses: list[str] = ["ok"] * len(a)
    turned = set(planes.flatten().tolist())
    rest = [i for i in range(a.shape[-1]) if i not in turned]
    if rest:
        at = torch.tensor(rest, device=a.device)
        rows, columns = at[:, None], at[None, :]
        fixed = balancing_transform(a[:, rows, columns], b[:, rows, columns])
        g[:, rows, columns], inverse[:, rows, columns] = fixed.transform, fixed.inverse
        statuses = [*fixed.statuses()]
    return g, inverse, statuses
