"""Merges of fine-tuned networks: average, sum, TIES, task singular vectors, isotropic.

Every merge takes the updates of several tasks, by the names of parameters, and returns the one
update that is added to the base. No coefficient is chosen on data: they are those written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.geometry import numerical_rank

Update = Mapping[str, Tensor]

# Share of the entries that TIES keeps, its authors' default.
DENSITY = 0.2


def average(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Mean of the updates, which is the mean of the networks."""
    return {name: torch.stack([u[name] for u in updates]).mean(0) for name in updates[0]}


def total(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Sum of the updates: task arithmetic with coefficient 1.

    References
    ----------
    G. Ilharco et al., Editing models with task arithmetic, ICLR 2023.
    """
    return {name: torch.stack([u[name] for u in updates]).sum(0) for name in updates[0]}


def flattened(update: Update) -> Float[Tensor, " n"]:
    """All entries of an update as one vector."""
    return torch.cat([update[name].flatten() for name in update])


def trimmed(vector: Float[Tensor, " n"], density: float = DENSITY) -> Float[Tensor, " n"]:
    """The vector with all but its largest entries set to zero.

    Examples
    --------
    >>> trimmed(torch.tensor([1.0, -5.0, 2.0, 0.5, 0.1])).tolist()
    [0.0, -5.0, 0.0, 0.0, 0.0]
    """
    kept = torch.topk(vector.abs(), max(1, round(density * len(vector)))).indices
    return torch.zeros_like(vector).index_copy(0, kept, vector[kept])


def ties(updates: Sequence[Update], density: float = DENSITY) -> dict[str, Tensor]:
    """Trim, elect signs, and average those that agree with the elected sign.

    Trimming is over all entries of an update together. An entry without agreeing values is zero.

    References
    ----------
    P. Yadav et al., TIES-merging: resolving interference when merging models, NeurIPS 2023.

    Examples
    --------
    >>> first, second = {"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([-1.0, 2.0])}
    >>> ties([first, second], density=1.0)["w"].tolist()
    [3.0, 1.5]
    """
    vectors = torch.stack([trimmed(flattened(u), density) for u in updates])
    elected = vectors.sum(0).sign()
    agree = (vectors.sign() == elected) & (vectors != 0)
    mean = (vectors * agree).sum(0) / agree.sum(0).clamp(min=1)
    sizes = [updates[0][name].numel() for name in updates[0]]
    parts = zip(updates[0], mean.split(sizes), strict=True)
    return {name: part.view_as(updates[0][name]) for name, part in parts}


def leading_triples(
    w: Float[Tensor, "m n"], most: int
) -> tuple[Float[Tensor, "m k"], Float[Tensor, " k"], Float[Tensor, "k n"]]:
    """Leading singular triples, at most so many, and none beyond the numerical rank."""
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    rank = int(numerical_rank(s, shape=(w.shape[0], w.shape[1])))
    count = min(most, rank)
    return u[:, :count], s[:count], vt[:count]


def singular_vectors(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Task singular vectors: each task's leading directions, orthogonalised against the others'.

    Of each matrix a task keeps its share of the min(m, n) singular triples; the left and the right
    vectors of all tasks are replaced by the nearest orthonormal ones. Embeddings count as matrices;
    vectors are averaged.

    References
    ----------
    A. A. Gargiulo et al., Task singular vectors: reducing task interference in model merging,
    CVPR 2025: TSV-Merge.
    """
    return _by_matrix(updates, _whitened_sum)


def isotropic(updates: Sequence[Update]) -> dict[str, Tensor]:
    """The sum of the updates with all singular values replaced by their mean (Iso-C).

    The mean is over the singular values above round-off: beyond them the directions are arbitrary.
    Embeddings count as matrices; vectors are averaged.

    References
    ----------
    D. Marczak et al., No task left behind: isotropic model merging with common and task-specific
    subspaces, ICML 2025.
    """
    return _by_matrix(updates, _flat_spectrum)


#: The merges by name.
MERGES: Mapping[str, Callable[[Sequence[Update]], dict[str, Tensor]]] = {
    "average": average,
    "sum": total,
    "TIES": ties,
    "TSV": singular_vectors,
    "isotropic": isotropic,
}


def agreeing_support(
    first: Float[Tensor, " n"], second: Float[Tensor, " n"]
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """Where both vectors are non-zero, and where their signs agree there."""
    both = (first != 0) & (second != 0)
    return both, both & (first.sign() == second.sign())


def _by_matrix(
    updates: Sequence[Update], merge: Callable[[list[Tensor]], Tensor]
) -> dict[str, Tensor]:
    merged = average(updates)
    for name, mean in merged.items():
        if mean.ndim == 2:
            merged[name] = merge([u[name] for u in updates])
    return merged


def _whitened_sum(ws: list[Tensor]) -> Tensor:
    share = max(1, min(ws[0].shape) // len(ws))
    triples = [leading_triples(w, share) for w in ws]
    u = torch.cat([left for left, _, _ in triples], dim=1)
    s = torch.cat([values for _, values, _ in triples])
    v = torch.cat([right.mT for _, _, right in triples], dim=1)
    return (_nearest_orthonormal(u) * s) @ _nearest_orthonormal(v).mT


def _nearest_orthonormal(x: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
    """The polar factor; directions that are lost to round-off are left at zero."""
    p, s, qt = torch.linalg.svd(x, full_matrices=False)
    rank = int(numerical_rank(s, shape=(x.shape[0], x.shape[1]))) if len(s) else 0
    return p[:, :rank] @ qt[:rank]


def _flat_spectrum(ws: list[Tensor]) -> Tensor:
    u, s, vt = leading_triples(torch.stack(ws).sum(0), min(ws[0].shape))
    return s.mean() * (u @ vt) if len(s) else torch.zeros_like(ws[0])
