"""What merges that are not linear leave in single entries: TIES and DARE."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flagscope.checkpoint import Checkpoint, widen
from flagscope.records.comparison.content_parts import MixturePattern

# Entries looked at: rows of each of a few tensors.
_ENTRIES, _TENSORS = 1 << 17, 8
# A change is a multiple of the parent's up to this, which bins of multiples have as width.
_WIDTH = 0.02
_FARTHEST = 16.0


def mixture_patterns(
    side: int, names: Sequence[tuple[str, ...]], checkpoints: Sequence[Checkpoint]
) -> tuple[MixturePattern, ...]:
    """Shares of a sample of entries that are the base's, a parent's, or one multiple of its change.

    TIES keeps the entries of one sign and drops the small ones, DARE drops entries at random and
    enlarges the others: both leave many entries equal to the base's.

    References
    ----------
    P. Yadav et al., "TIES-merging", arXiv 2306.01708; L. Yu et al., "Language models are super
    Mario", arXiv 2311.03099.
    """
    if not names:
        return ()
    step = max(1, len(names) // _TENSORS)
    columns = [_sampled(each, checkpoints) for each in names[::step][:_TENSORS]]
    values = torch.cat(columns, 1)
    x, base = values[side], values[1 - side]
    return tuple(_pattern(number, x, base, parent) for number, parent in enumerate(values[2:]))


def _sampled(names: tuple[str, ...], checkpoints: Sequence[Checkpoint]) -> torch.Tensor:
    shape = checkpoints[0].tensors[names[0]].shape
    each = max(1, int(torch.tensor(shape[1:]).prod()))
    rows = (slice(0, max(1, min(shape[0], _ENTRIES // each))),)
    parts = [
        widen(checkpoint.read(name, rows), scale=checkpoint.scale(name, rows)).reshape(-1)
        for name, checkpoint in zip(names, checkpoints, strict=True)
    ]
    return torch.stack(parts)[:, :_ENTRIES]


def _pattern(
    number: int, x: torch.Tensor, base: torch.Tensor, parent: torch.Tensor
) -> MixturePattern:
    change, theirs = x - base, parent - base
    moved = (change != 0) & (theirs != 0)
    multiples = (change[moved] / theirs[moved]).clamp(-_FARTHEST, _FARTHEST)
    multiple, scaled = None, 0.0
    changed = int((change != 0).sum())
    if len(multiples):
        bins = (multiples / _WIDTH).round()
        most = bins.mode().values
        # Half a bin further, so that a multiple at a border is not cut in two.
        near = (multiples / _WIDTH - most).abs() <= 1.0
        multiple = float(multiples[near].median())
        scaled = int(near.sum()) / changed
    return MixturePattern(
        parent=number, equal_to_base=float((change == 0).double().mean()),
        equal_to_parent=float((x == parent).double().mean()), scaled=scaled, multiple=multiple,
    )  # fmt: skip
