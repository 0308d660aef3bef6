"""What two adapters' changes of one module share, from the factors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flagscope.checkpoint.dtypes import torch_dtype
from flagscope.checkpoint.lora import AdapterWeights, Factors
from flagscope.geometry import (
    FactoredChange,
    factored_change,
    inner_of_changes,
    numerical_rank,
    participation_ratio,
)
from flagscope.null import (
    CommonStart,
    common_start,
    overlap_significance,
    start_overlap,
)
from flagscope.records.comparison.adapter_pairs import (
    AdapterModule,
    ModulePair,
    PairStatus,
    SpaceOverlap,
    StartRecord,
)

_LISTED = 64
# A common start is plain where the correlation is this unlikely and this many times that of rows
# with other numbers: training alone may align factors, and has no reason to keep rows in order.
_PLAIN_LOG10_P, _OVER_OTHER_ROWS = -6.0, 3.0
# Changes are the same where they differ by less than rounding of the factors would.
_SAME = 1e-6
# What is left is called shared from so many standard deviations, and this cosine, on.
_FAR, _LEAST = 5.0, 0.05


@dataclass(frozen=True)
class Side:
    """One adapter's factors of a module, float64, kernels flattened.

    Attributes
    ----------
    factors, b, a
        B (m, r) and A (r, n).
    change
        s·B A.
    noise
        Bound of the spectral norm of the error of s·B A from the storage of its factors.
    rank
        Directions above it.
    spaces
        Orthonormal bases of what they write and read.
    """

    factors: Factors
    b: Tensor
    a: Tensor
    change: FactoredChange
    noise: float
    rank: int
    spaces: tuple[Tensor, Tensor]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of B A."""
        return len(self.b), self.a.shape[1]

    @property
    def record(self) -> AdapterModule:
        """Its numbers."""
        values = self.change.singular_values
        return AdapterModule(
            module=self.factors.module, rank=self.factors.rank, scaling=self.factors.scaling,
            norm=self.change.norm, singular_values=values[:_LISTED].tolist(),
            used_rank=self.rank, dead_directions=self.factors.rank - self.rank,
            participation=float(participation_ratio(values)),
        )  # fmt: skip


def adapter_side(adapter: AdapterWeights, module: str) -> Side:
    """One module of an adapter."""
    factors = adapter.factors[module]
    b, a = (adapter.values(name).flatten(1) for name in (factors.b, factors.a))
    change = factored_change(b, a, scaling=factors.scaling)
    noise = _noise(adapter, factors, b, a)
    values = change.singular_values
    rank = int(numerical_rank(values, shape=(len(b), a.shape[1]), noise=noise))
    return Side(factors, b, a, change, noise, rank, change.spaces(rank))


def _noise(adapter: AdapterWeights, factors: Factors, b: Tensor, a: Tensor) -> float:
    """Bound of the error of s·B A: each entry of a factor errs by half a unit at most."""
    units = [_unit(adapter.file.tensors[name].dtype) for name in (factors.b, factors.a)]
    norms = [float(factor.norm()) for factor in (b, a)]
    return abs(factors.scaling) * norms[0] * norms[1] * sum(units)


def _unit(dtype: str) -> float:
    kind = torch_dtype(dtype)
    if kind is None or not kind.is_floating_point:
        return 0.0
    return torch.finfo(kind).eps / 2


def module_pair(one: Side, two: Side) -> ModulePair:
    """Two adapters' changes of one module, of the same shape."""
    inner = inner_of_changes(one.change, two.change)
    size = one.change.norm * two.change.norm
    random = "lora_B" if one.factors.embedding else "lora_A"
    start = common_start(_rows(one, random), _rows(two, random))
    plain = start is not None and _is_plain(start)
    left, left_z = _left(one, two, start if plain else None, random, inner, size)
    write = _overlap(one, two, "write", start if plain and random == "lora_B" else None)
    read = _overlap(one, two, "read", start if plain and random == "lora_A" else None)
    cosine = inner / size if size > 0 else None
    return ModulePair(
        a=one.record, b=two.record, inner=inner, energy_cosine=cosine,
        energy_cosine_left=left, left_z=left_z,
        start=None if start is None else StartRecord(
            factor=random, correlation=start.correlation, other_rows=start.other_rows,
            log10_p=start.significance.log10_p, common=plain,
        ),
        write=write, read=read,
        status=_status(one, two, inner, left, left_z, plain, (write, read)),
    )  # fmt: skip


def _rows(side: Side, factor: str) -> Tensor:
    return side.a if factor == "lora_A" else side.b.T


def _is_plain(start: CommonStart) -> bool:
    log10_p = start.significance.log10_p
    unlikely = log10_p is not None and log10_p < _PLAIN_LOG10_P
    return unlikely and start.correlation > _OVER_OTHER_ROWS * start.other_rows


def _left(
    one: Side, two: Side, start: CommonStart | None, random: str, inner: float, size: float
) -> tuple[float | None, float | None]:
    """Cosine without the part along common rows, and its z against rows in random direction.

    With b_i = α_i a_i + e_i the inner product is Σ α_i⟨g_i, a_i⟩ + Σ⟨g_i, e_i⟩, g_i the rows of
    s_b B_bᵀ ΔW_a; the second sum has variance Σ‖e_i‖²‖g_i‖²/n for e_i in random direction, the
    parts along a_i taken out of both.
    """
    if size == 0:
        return None, None
    first, second = _rows(one, random), _rows(two, random)
    shared = min(len(first), len(second))
    other = one.b.T if random == "lora_A" else one.a
    outer = two.b.T if random == "lora_A" else two.a
    # Rows g: (outer · otherᵀ) · first, times both scalings.
    g = (outer @ other.T) @ first * (one.factors.scaling * two.factors.scaling)
    rest, common = second.clone(), 0.0
    if start is not None:
        along = start.coefficients[:shared, None] * first[:shared]
        common = float((g[:shared] * along).sum())
        rest[:shared] -= along
        unit = first[:shared] / first[:shared].norm(dim=1, keepdim=True).clamp_min(1e-300)
        g[:shared] -= (g[:shared] * unit).sum(1, keepdim=True) * unit
    freedom = max(1, first.shape[1] - (start is not None))
    variance = float((rest.square().sum(1) * g.square().sum(1)).sum()) / freedom
    left = inner - common
    return left / size, (left / math.sqrt(variance) if variance > 0 else None)


def _overlap(one: Side, two: Side, kind: str, start: CommonStart | None) -> SpaceOverlap:
    """Overlap of the spaces of the changes, at the ranks that each uses."""
    axis = 0 if kind == "write" else 1
    d, p, q = one.shape[axis], one.rank, two.rank
    if p == 0 or q == 0:
        return SpaceOverlap(
            rank_a=p, rank_b=q, d=d, overlap=None, ratio=None, log10_p=None,
            status="a change is zero",
        )  # fmt: skip
    x, y = one.spaces[axis], two.spaces[axis]
    total = float((x.T @ y).square().sum())
    found = overlap_significance(total, p, q, d)
    numbers: dict[str, float | None] = {}
    full = p == one.factors.rank and q == two.factors.rank
    if start is not None and full:
        random = "lora_A" if kind == "read" else "lora_B"
        by_start = start_overlap(_rows(one, random), _rows(two, random), start.coefficients)
        z = (total - by_start.mean) / by_start.sd if by_start.sd > 0 else None
        numbers = {"explained": by_start.mean, "explained_sd": by_start.sd, "left_z": z}
    status = found.status
    if start is not None and not full:
        status = "directions are dead: what the common start gives was not computed"
    return SpaceOverlap(
        rank_a=p, rank_b=q, d=d, overlap=total, ratio=total * d / (p * q), log10_p=found.log10_p,
        status=status, **numbers,
    )  # fmt: skip


def _status(
    one: Side,
    two: Side,
    inner: float,
    left: float | None,
    left_z: float | None,
    plain: bool,
    overlaps: tuple[SpaceOverlap, SpaceOverlap],
) -> PairStatus:
    if left is None:
        return "zero"
    size = one.change.norm * two.change.norm
    squares = one.change.norm**2 + two.change.norm**2
    if squares - 2 * inner <= _SAME * squares:
        return "same"
    if abs(inner) >= (1 - _SAME) * size:
        return "shared_beyond_start"  # a multiple: equal rows of one factor do not make it
    if left_z is not None and abs(left_z) > _FAR and abs(left) > _LEAST:
        return "shared_beyond_start"
    unlikely = any(
        overlap.log10_p is not None and overlap.log10_p < _PLAIN_LOG10_P for overlap in overlaps
    )
    return "shared_by_start" if plain else ("shared_beyond_start" if unlikely else "chance")
