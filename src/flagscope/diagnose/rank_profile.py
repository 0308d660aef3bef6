"""The profile over ranks of a pair: the overlap ratio of its leading spaces as their rank grows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.values import rank_grid, rounded
from flagscope.geometry import incidence_at_ranks
from flagscope.records import Incidence


def leading_surface(
    cosines: Float[Tensor, "p q"], rank_write: int, rank_read: int, d: int
) -> tuple[list[tuple[int, float]], Incidence]:
    """The overlap ratio of the r strongest directions of both maps, and the incidence surface, on
    a grid of ranks.

    Parameters
    ----------
    cosines
        K, between the singular vectors of both maps, in the order of their singular values.
    rank_write, rank_read
        The largest ranks.
    d
        Dimension of the shared space.

    Examples
    --------
    >>> import torch
    >>> leading_surface(torch.eye(2), 2, 2, d=4)[0]
    [(1, 4.0), (2, 2.0)]
    """
    rows, columns = rank_grid(rank_write), rank_grid(rank_read)
    diagonal = rank_grid(min(rank_write, rank_read))
    every = sorted({*rows, *columns, *diagonal})
    left, right = ([r for r in every if r <= extent] for extent in cosines.shape)
    surface = incidence_at_ranks(cosines, left, right).tolist()
    at = {r: i for i, r in enumerate(every)}
    profile = [(r, float(f"{surface[at[r]][at[r]] * d / (r * r):.6g}")) for r in diagonal]
    grid = [[surface[at[r]][at[c]] for c in columns] for r in rows]
    return profile, Incidence(ranks_write=rows, ranks_read=columns, surface=rounded(grid))
