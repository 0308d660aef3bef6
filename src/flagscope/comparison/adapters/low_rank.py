"""Whether the change of a tensor is of low rank, as another adapter's would be."""

from __future__ import annotations

import torch

from flagscope.comparison.adapters.blocks import Source

# Directions looked for beyond twice the adapter's rank.
_FURTHER = 8
# Share of the change's energy, rounding taken off, that so few directions of a low-rank one have.
_SHARE = 0.95
# With more directions than this part of the smaller side, much of any change lies in them.
_PART = 4


def is_low_rank(source: Source) -> bool | None:
    """Whether 2r + 8 directions have nearly all of merged - base; None for tensors too small.

    By one pass with a random test matrix and one that measures what its range has of the change.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53 (2011) 217-288, algorithm 4.1.
    """
    rows, columns = source.shape
    count = min(2 * source.factors.rank + _FURTHER, min(rows, columns) // _PART)
    if count < 1:
        return None
    generator = torch.Generator().manual_seed(0)
    test = torch.randn(columns, count, generator=generator, dtype=torch.float64)
    range_ = torch.cat([block.difference @ test for block in source.blocks()])
    basis = torch.linalg.qr(range_).Q
    inside = torch.zeros(count, columns, dtype=torch.float64)
    energy = noise = 0.0
    for block in source.blocks():
        inside += basis[block.start : block.stop].T @ block.difference
        energy += float(block.difference.square().sum())
        noise += float((block.merged_step.square() + block.base_step.square()).sum()) / 12
    share = float(inside.square().sum()) / max(energy - noise, energy * 1e-3, 1e-300)
    return share >= _SHARE
