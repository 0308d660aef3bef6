"""What the weights alone say about a pair of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import principal_cosines, signal_rank_of
from flagscope.lab.experiments.merge_prediction.fine_tuning import Tuned
from flagscope.lab.experiments.merge_prediction.merges import (
    agreeing_support,
    flattened,
    leading_triples,
    trimmed,
)

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Leading:
    """Leading directions of an update of one matrix, at its signal rank and at the TSV share."""

    read: Float[Tensor, "m r"]
    write: Float[Tensor, "n r"]
    left: Float[Tensor, "m k"]
    values: Float[Tensor, " k"]
    right: Float[Tensor, "n k"]


def leading(w: Float[Tensor, "m n"], tasks: int = 2) -> Leading:
    """Leading directions of an update that is stored as (inputs, outputs).

    The signal rank is that of `flagscope.geometry`, and one at least: where nothing stands out of
    the bulk, the leading direction is still the largest.
    """
    u, s, vt = leading_triples(w, min(w.shape))
    rank = min(max(1, int(signal_rank_of(w))), len(s))
    share = min(max(1, min(w.shape) // tasks), len(s))
    return Leading(u[:, :rank], vt[:rank].mT, u[:, :share], s[:share], vt[:share].mT)


def overlap_beyond_chance(
    first: Float[Tensor, "d p"], second: Float[Tensor, "d q"]
) -> float | None:
    """Σcos² between two spaces, 0 where chance puts it on average and 1 at its largest.

    None where one space is zero or the whole space, so that chance leaves nothing open.

    Examples
    --------
    >>> axes = torch.eye(4, dtype=torch.float64)
    >>> overlap_beyond_chance(axes[:, :2], axes[:, :2])
    1.0
    >>> round(overlap_beyond_chance(axes[:, :2], axes[:, 1:3]), 12)
    0.0
    """
    d, p, q = len(first), first.shape[1], second.shape[1]
    chance, most = p * q / d, min(p, q)
    if most == chance:
        return None
    overlap = float(principal_cosines(first, second).square().sum())
    return (overlap - chance) / (most - chance)


def singular_task_interference(first: Leading, second: Leading) -> float:
    """‖(UᵀU - I) Σ (VᵀV - I)‖₁ of the joined singular vectors, as a share of the trace of Σ.

    References
    ----------
    A. A. Gargiulo et al., Task singular vectors: reducing task interference in model merging,
    CVPR 2025.

    Examples
    --------
    >>> axes = torch.eye(4, dtype=torch.float64)
    >>> apart = [leading(torch.outer(axes[i], axes[i])) for i in (0, 1)]
    >>> singular_task_interference(*apart), singular_task_interference(apart[0], apart[0])
    (0.0, 1.0)
    """
    u, v = torch.cat([first.left, second.left], 1), torch.cat([first.right, second.right], 1)
    s = torch.cat([first.values, second.values])
    eye = torch.eye(len(s), dtype=s.dtype)
    crossed = ((u.mT @ u - eye) * s) @ (v.mT @ v - eye)
    return float(crossed.abs().sum() / s.sum())


def energy_cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float | None:
    """Cosine of two updates as vectors; None if one is zero."""
    x, y = flattened(first), flattened(second)
    scale = float(x.norm() * y.norm())
    return float(x @ y) / scale if scale > 0 else None


def sign_conflict(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float | None:
    """Of the entries that both trimmed updates keep, the share with opposite signs.

    Examples
    --------
    >>> sign_conflict(torch.tensor([1.0, 0.0, -2.0]), torch.tensor([3.0, 1.0, 2.0]))
    0.5
    """
    both, agree = agreeing_support(first, second)
    count = int(both.sum())
    return 1 - int(agree.sum()) / count if count else None


def weight_measures(
    base: Mapping[str, Tensor], tuned: Sequence[Tuned], pairs: Pairs
) -> dict[str, list[float | None]]:
    """Every measure for every pair, by name; None where undefined.

    For LoRA also the energy cosine and the overlap of read spaces of what was learnt beyond the
    common start of A (`Tuned.learnt`).
    """
    spaces = [_leading_of(t.update) for t in tuned]
    kept = [trimmed(flattened(t.update)) for t in tuned]
    sizes = [_relative_size(base, t.update) for t in tuned]
    measures = {
        "write_overlap": [_mean_overlap(spaces[i], spaces[j], "write") for i, j in pairs],
        "read_overlap": [_mean_overlap(spaces[i], spaces[j], "read") for i, j in pairs],
        "energy_cosine": [energy_cosine(tuned[i].update, tuned[j].update) for i, j in pairs],
        "interference": [
            _mean([singular_task_interference(x, spaces[j][n]) for n, x in spaces[i].items()])
            for i, j in pairs
        ],
        "sign_conflict": [sign_conflict(kept[i], kept[j]) for i, j in pairs],
        "size": [(sizes[i] + sizes[j]) / 2 for i, j in pairs],
    }
    learnt = [t.learnt for t in tuned if t.learnt is not None]
    if len(learnt) == len(tuned):
        own = [_leading_of(update) for update in learnt]
        measures["energy_cosine_corrected"] = [
            energy_cosine(learnt[i], learnt[j]) for i, j in pairs
        ]
        measures["read_overlap_corrected"] = [
            _mean_overlap(own[i], own[j], "read") for i, j in pairs
        ]
    return measures


def _leading_of(update: Mapping[str, Tensor]) -> dict[str, Leading]:
    """Leading directions of the updates of maps; embeddings are lookups, and left out."""
    return {
        name: leading(w)
        for name, w in update.items()
        if w.ndim == 2 and ".h." in name and bool(w.any())
    }


def _mean_overlap(
    first: Mapping[str, Leading], second: Mapping[str, Leading], side: str
) -> float | None:
    return _mean(
        [
            overlap_beyond_chance(getattr(first[name], side), getattr(second[name], side))
            for name in first
            if name in second
        ]
    )


def _relative_size(base: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> float:
    """Norm of the update over that of the parameters it changes."""
    return float(flattened(update).norm() / flattened({n: base[n] for n in update}).double().norm())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
