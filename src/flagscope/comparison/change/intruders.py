"""Leading directions of one side that the other lacks: as peft counts them, and against a null."""

from __future__ import annotations

import math

import torch

from flagscope.comparison.change.leading import Directions
from flagscope.null import spectral_norm_log_sf, spectral_norm_quantile
from flagscope.records.comparison.change import Intruders

#: Of `peft.tuners.lora.intruders.reduce_intruder_dimension`.
TOP_K, EPSILON = 10, 0.5

# A random update of equal norm exceeds this norm in one map of a hundred.
_LEVEL = 0.01
# An intruder has more of its energy outside than inside.
_MOST_OUTSIDE = 0.5

_TOO_LARGE = "for maps above 1,024 it is counted on request alone: intruders=True"
_NOTHING_LEADS = "no direction of the map stands out of the bulk"
_UNTESTABLE = "an update of this size hides all leading directions, or too few are known"


def intruders_of(
    side: Directions, other: Directions, *, square: float, rounding: float, left: bool, part: bool
) -> Intruders:
    """Directions of one side that the other lacks.

    Where W' = W + E, a triplet (σ, u, v) of W' has at most the energy 2 ‖E‖²/δ² in the left
    and right singular spaces of W whose singular values are σ - δ or less, both together (Wedin).
    With δ twice the norm that a random update exceeds with probability 1 %, no direction of either
    kind lies in these by more than half, in 99 of 100 maps, however near-equal singular values are.
    The directions of W that stand out of the bulk count as inside in any case.

    Parameters
    ----------
    side, other
        Whose directions are looked at, and in whose directions.
    square
        ‖ΔW‖².
    rounding
        Spectral norm of the storage rounding of both maps.
    left
        Whether peft's left singular vectors, of the tensor as stored, are the output directions.
    part
        Whether the map is a part of its tensor.

    References
    ----------
    R. Shuttleworth, J. Andreas, A. Torralba, P. Sharma, arXiv 2410.21228, for the count; P.-Å.
    Wedin, BIT 12 (1972) 99-111, for the bound.
    """
    count, peft_status = _peft(side, other, left=left, part=part)
    tested, write, read, log10_p = 0, 0, 0, None
    if side.signal.rank:
        tested, write, read, log10_p = _tested(side, other, square=square, rounding=rounding)
    status = "ok" if tested else _UNTESTABLE if side.signal.rank else _NOTHING_LEADS
    return Intruders(
        peft_count=count,
        peft_top_k=TOP_K,
        peft_epsilon=EPSILON,
        peft_status=peft_status,
        tested=tested,
        write=write if tested else None,
        read=read if tested else None,
        p=None if log10_p is None else 10.0**log10_p,
        log10_p=log10_p,
        status=status,
    )


def _tested(
    side: Directions, other: Directions, *, square: float, rounding: float
) -> tuple[int, int, int, float | None]:
    """Directions tested, those outside as output and as input directions, and log10 p."""
    shape = side.shape
    edge = max(spectral_norm_quantile(_LEVEL, square=square, shape=shape), rounding)
    outside = _outside(side, other)
    known = other.sigma
    sigma = side.sigma[: side.signal.rank]
    cuts = (known >= (sigma - 2 * edge)[:, None]).sum(-1)
    reaches = (cuts < len(known)) | (other.following < sigma - 2 * edge) | other.dense
    # A direction that leads on the other side is none, however its singular value moved.
    cuts = cuts.clamp_min(other.signal.rank)
    at = torch.nonzero((sigma > 2 * edge) & reaches).flatten()
    tested = len(at)
    write, read = (int((energy[cuts[at], at] > _MOST_OUTSIDE).sum()) for energy in outside)
    furthest = _furthest(sigma[at], other, (outside[0] + outside[1])[:, at], cuts[at])
    log10_p = None
    if tested:
        log10_p = 0.0
        # Rounding errors are not of equal size, and their own estimate of ‖E‖ comes first.
        if furthest > rounding:
            tail = spectral_norm_log_sf(furthest, square=square, shape=shape)
            log10_p = min(0.0, tail / math.log(10))
    return tested, write, read, log10_p


def _outside(side: Directions, other: Directions) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy of leading directions outside the first c directions of the other side, c = 0, 1 …"""
    part = slice(0, side.signal.rank)
    results = []
    for left in (True, False):
        x = side.left(part) if left else side.right(part)
        inside = other.overlaps(x, left=left).square().cumsum(0)
        inside = torch.cat(
            [torch.zeros_like(inside[:1]) if len(inside) else x.new_zeros(1, x.shape[1]), inside]
        )
        results.append((1 - inside).clamp(0, 1))
    return results[0], results[1]


def _furthest(
    sigma: torch.Tensor, other: Directions, outside: torch.Tensor, cuts: torch.Tensor
) -> float:
    """Least norm of E that allows what a direction has outside: the most over the cuts from one."""
    known = other.sigma
    last = known.new_tensor([0.0 if other.dense else other.following])
    behind = torch.cat([known, last])[: len(outside)]
    least = (sigma - behind[:, None]).clamp_min(0) * (outside / 2).sqrt()
    considered = torch.arange(len(outside))[:, None] >= cuts
    return float((least * considered).amax()) if len(sigma) else 0.0


def _peft(side: Directions, other: Directions, *, left: bool, part: bool) -> tuple[int | None, str]:
    if part:
        return None, "the map is a part of a tensor that peft takes as a whole"
    if not (side.dense and other.dense):
        return None, _TOO_LARGE
    top = slice(0, min(TOP_K, len(side.sigma)))
    x = side.left(top) if left else side.right(top)
    nearest = other.overlaps(x, left=left).abs().amax(0)
    return int((nearest < EPSILON).sum()), "ok"
