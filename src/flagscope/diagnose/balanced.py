"""Gauge fixing of a group of pairs: the maps in the normal form of their own freedom.

Pairs that share a map (the query heads of one key head, the output heads of one value head) share
its gauge, so the normal form equates the sums of their Grams with the Gram of the shared map: the
quantities that gradient flow conserves. A sum is taken in one unit for its parts, and is not taken
without one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from flagscope.arch import Member, PairGroup
from flagscope.geometry import (
    Matrices,
    balancing_transform,
    line_norms,
    neuron_scales,
    plane_scales,
    power_of_two,
)

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
        As the pairs' maps, (n, d, m1) and (n, m2, d), in units of their own.
    statuses
        'ok', or why a pair has no such normal form.
    """

    write: Matrices
    read: Matrices
    statuses: list[str]


def fixes_completely(group: PairGroup, members: Sequence[Member]) -> bool:
    """Whether the gauge can make A = B pair by pair, so that no alignment is left to measure.

    So it is for all of GL(d) where no two pairs share a map.
    """
    return group.freedom == "gl" and _owners(members)[1] == len(members)


def missing_parts(group: PairGroup, finite: Sequence[bool]) -> list[str | None]:
    """Reason why the sum that each pair of a group is part of is not known, or None.

    Parameters
    ----------
    group
        The pairs.
    finite
        Whether both maps of each are finite.
    """
    owner, _ = _owners(group.members)
    lost: dict[int, list[str]] = {}
    for member, key, sound in zip(group.members, owner, finite, strict=True):
        if not sound:
            lost.setdefault(key, []).append(member.name)
    return [_missing(lost[key]) if key in lost else None for key in owner]


def _missing(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]}, which shares a map with it, is not finite"
    return f"{names[0]} and {len(names) - 1:,} more, which share a map with it, are not finite"


def balanced_maps(
    group: PairGroup, members: Sequence[Member], write: Matrices, read: Matrices
) -> BalancedMaps:
    """The maps in the normal form of the group's freedom, a key of `GAUGES`.

    Parameters
    ----------
    group
        Gives the freedom and, for rotary embeddings, the planes.
    members
        The n pairs, in the order of the maps; all pairs that share a map must be among them, but
        for those whose other map is zero.
    write, read
        Their maps, finite. The transforms are found in float64, whatever their type; the noise of
        storage is taken in proportion to the norms of the maps.
    """
    if group.freedom == "scaling":
        return _balanced_neurons(write, read)
    w1, w2 = write.values.double(), read.values.double()
    owner, owners = _owners(members)
    a, unit_a = _sum_distinct(
        w1 @ w1.mT, write.exponents, owner, owners, [m.write_index for m in members]
    )
    b, unit_b = _sum_distinct(
        w2.mT @ w2, read.exponents, owner, owners, [m.read_index for m in members]
    )
    if group.freedom == "rotary":
        g, inverse, statuses = _rotary_gauge(group, a, b)
    else:
        fixed = balancing_transform(a, b)
        g, inverse, statuses = fixed.transform, fixed.inverse, [*fixed.statuses()]
    of = torch.tensor(owner)
    # A and B in units of 4^a and 4^b are balanced by 2^((b-a)/2) g.
    half = (unit_b - unit_a)[of] // 2
    at = of.to(w1.device)
    return BalancedMaps(
        _in_proportion(write, g[at] @ w1, write.exponents + half),
        _in_proportion(read, w2 @ inverse[at], read.exponents - half),
        [statuses[o] for o in owner],
    )


def _balanced_neurons(write: Matrices, read: Matrices) -> BalancedMaps:
    rows, columns = line_norms(write.values, dim=-1), line_norms(read.values, dim=-2)
    s = neuron_scales(rows.square(), columns.square()).scales.to(write.values)
    half = (write.exponents + read.exponents) // 2
    return BalancedMaps(
        _in_proportion(write, s[..., None] * write.values, half),
        _in_proportion(read, read.values / s[:, None, :], half),
        ["ok"] * len(s),
    )


def _in_proportion(raw: Matrices, values: Tensor, units: Int[Tensor, " n"]) -> Matrices:
    """Gauge-fixed maps in the type of the raw ones, with their noise in proportion to the norms."""
    norms = [torch.linalg.matrix_norm(maps).cpu().double() for maps in (values, raw.values)]
    factor = norms[0] / norms[1]
    fixed = Matrices(
        values, raw.delta * factor, raw.mean_square * factor.square(), raw.repeated, units
    )
    return fixed.narrowed(raw.values.dtype)


def _owners(members: Sequence[Member]) -> tuple[list[int], int]:
    """Index of the set of pairs with a common map that each pair is in, and the number of sets."""
    shared_write = len({m.write_index for m in members}) < len(members)
    keys = [m.write_index if shared_write else m.read_index for m in members]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [number[key] for key in keys], len(number)


def _sum_distinct(
    grams: Tensor, exponents: Tensor, owner: list[int], owners: int, indices: list[int]
) -> tuple[Tensor, Int[Tensor, " k"]]:
    """Sum of the Grams of each set of pairs, every map of it counted once, and its unit.

    A map is 2^e times what gave its Gram; the sum is in units of 4^u, u the largest e of its set.
    """
    of = torch.tensor(owner)
    unit = torch.zeros(owners, dtype=torch.int64)
    unit.scatter_reduce_(0, of, exponents, "amax", include_self=False)
    parts = power_of_two(grams, 2 * (exponents - unit[of]).to(grams.device)[:, None, None])
    total = grams.new_zeros(owners, *grams.shape[1:])
    seen: set[tuple[int, int]] = set()
    for part, key in zip(parts, zip(owner, indices, strict=True), strict=True):
        if key not in seen:
            seen.add(key)
            total[key[0]] += part
    return total, unit


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
