"""Near-copies: groups of heads whose spaces are nearer to a copy of each other than to chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Of more heads the leaves are left in the order of the tree: the best order takes their cube.
_ORDERED = 300


def near_copy_clusters(
    total: Float[np.ndarray, "H H"], ranks: Sequence[int], d: int, *, near: float
) -> tuple[list[list[int]], list[int]]:
    """Groups of near-copies, and an order of the heads in which similar ones stand together.

    Parameters
    ----------
    total
        Σcos² between all pairs of heads; two heads at least.
    ranks
        Their dimensions, at least 1. Σcos² over the smaller one is the share of directions that two
        heads have in common: 1 for copies, and the larger one over d by chance.
    d
        Dimension of the stream.
    near
        The part of the way from what chance shares to a copy that the heads of a group are, on
        average, at least. Where heads are half as large as the stream, chance alone shares half.

    References
    ----------
    Average linkage: R. R. Sokal and C. D. Michener, Univ. Kansas Sci. Bull. 38 (1958) 1409-1438.

    Examples
    --------
    >>> total = np.array([[2.0, 0.1, 1.9], [0.1, 2.0, 0.2], [1.9, 0.2, 2.0]])
    >>> near_copy_clusters(total, [2] * 3, 20, near=0.5)
    ([[0, 2]], [1, 2, 0])
    """
    # Imported here since the two take a quarter of a second, and a model without heads needs none.
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    chance = np.maximum.outer(ranks, ranks) / d
    apart = 1 - total / np.minimum.outer(ranks, ranks)
    # A head that fills the stream shares all by dimension alone, which says nothing.
    distance = np.divide(apart, 1 - chance, out=np.ones_like(apart), where=chance < 1)
    distance = np.maximum(distance, 0)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(
        squareform(distance, checks=False), "average", optimal_ordering=len(total) <= _ORDERED
    )
    labels = fcluster(tree, 1 - near, criterion="distance")
    groups: dict[int, list[int]] = {}
    for head, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(head)
    return [group for group in groups.values() if len(group) > 1], leaves_list(tree).tolist()
