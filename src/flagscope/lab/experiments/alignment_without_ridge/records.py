"""Records of adjacent layers trained without weight decay, and exact bounds on them.

Under gradient flow D_k = W_k W_kᵀ - W_{k+1}ᵀ W_{k+1} is constant. With σ_k the largest
singular value of W_k, u_k and v_k its singular vectors, and one output, so that W_L is a row:

- traces: ‖W_k‖² = ‖W_L‖² + Σ_{j≥k} tr D_j;
- Weyl: σ_k² ≥ σ_{k+1}² - ‖D_k‖₂, and so σ_k² ≥ ‖W_L‖² - Σ_{j≥k} ‖D_j‖₂;
- rank one: ‖W_k‖² - σ_k² ≤ ε_k = Σ_{j≥k} (tr D_j + ‖D_j‖₂), however large the norms grow;
- alignment: with v = v_{k+1}, σ_k² - 2‖D_k‖₂ ≤ vᵀ (W_{k+1}ᵀ W_{k+1} + D_k) v = vᵀ W_k W_kᵀ v
  ≤ σ_k² ⟨u_k, v⟩² + ε_k, and so 1 - ⟨u_k, v_{k+1}⟩² ≤ (2‖D_k‖₂ + ε_k) / σ_k².
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import principal_sines

# Series by pair and seed, by layer and seed, and by seed.
PAIR_SERIES = ("relative", "sine", "conserved")
LAYER_SERIES = ("leading", "least", "stable_rank")
SEED_SERIES = ("loss", "right", "gradient")


class Records:
    """Time series of a training, and how close the networks come to the bounds.

    Parameters
    ----------
    weights
        W_1 … W_L at the start, shapes (seeds, out, in).
    dimension
        Dimension of the compared dominant spaces of adjacent layers.
    """

    def __init__(self, weights: Sequence[Tensor], *, dimension: int) -> None:
        self.dimension = dimension
        self.start = _differences(weights)
        self.driven = [torch.zeros_like(d) for d in self.start]
        self.scalar = weights[-1].shape[1] == 1
        self.bounds = rank_bounds(self.start)
        names = (*PAIR_SERIES, *LAYER_SERIES, *SEED_SERIES)
        self.series: dict[str, list[Tensor]] = {name: [] for name in names}
        self.moments: list[int] = []
        seeds = len(weights[0])
        self.worst = {
            name: torch.zeros(len(self.start), seeds, dtype=torch.float64)
            for name in ("miss", "rank_ratio", "angle_ratio")
        }

    def drive(self, steps: Float[Tensor, "seeds 1 1"], gradients: Sequence[Tensor]) -> None:
        """Add the change of A - B in a step of gradient descent: η² (G1 G1ᵀ - G2ᵀ G2)."""
        for i, (g1, g2) in enumerate(pairwise(gradients)):
            self.driven[i] = self.driven[i] + steps**2 * (g1 @ g1.mT - g2.mT @ g2)

    def add(
        self,
        n: int,
        weights: Sequence[Tensor],
        loss: Float[Tensor, " seeds"],
        right: Float[Tensor, " seeds"],
        gradient: Float[Tensor, " seeds"],
    ) -> None:
        """Record one moment."""
        r = self.dimension
        factors = [torch.linalg.svd(w, full_matrices=False) for w in weights]
        leading = torch.stack([f.S[:, 0].square() for f in factors])
        total = torch.stack([w.square().sum((-2, -1)) for w in weights])
        pairs = [_pair(w1, w2) for w1, w2 in pairwise(weights)]
        sines = [
            principal_sines(f1.U[..., :r], f2.Vh[:, :r].mT).amax(-1) for f1, f2 in pairwise(factors)
        ]
        values = {
            "relative": torch.stack([size / grams for size, grams in pairs]),
            "sine": torch.stack(sines),
            "conserved": torch.stack(
                [size / _norm(d) for (size, _), d in zip(pairs, self.start, strict=True)]
            ),
            "leading": leading,
            "least": torch.stack([f.S[:, r - 1].square() for f in factors]),
            "stable_rank": total / leading,
            "loss": loss,
            "right": right,
            "gradient": gradient,
        }
        self.moments.append(n)
        for name, value in values.items():
            self.series[name].append(value)
        self._compare(weights, total - leading, values["sine"].square() * leading[:-1])

    def _compare(self, weights: Sequence[Tensor], excess: Tensor, turned: Tensor) -> None:
        """Update the worst cases: of the exact law, and of both bounds if there is one output."""
        free = [d - e for d, e in zip(_differences(weights), self.driven, strict=True)]
        misses = [_norm(d - d0) / _norm(d0) for d, d0 in zip(free, self.start, strict=True)]
        now = {"miss": torch.stack(misses)}
        if self.scalar:
            turn = 2 * torch.stack([torch.linalg.matrix_norm(d, 2) for d in self.start])
            now["rank_ratio"] = excess[:-1] / self.bounds
            now["angle_ratio"] = turned / (turn + self.bounds)
        for name, value in now.items():
            self.worst[name] = torch.maximum(self.worst[name], value)

    def summary(self) -> dict[str, Any]:
        """Series as lists by moment, pair or layer, and seed; worst cases by pair and seed."""
        series = {name: torch.stack(values).tolist() for name, values in self.series.items()}
        worst = {name: value.tolist() for name, value in self.worst.items()}
        return {"moments": self.moments, **series, **worst}


def rank_bounds(
    differences: Sequence[Float[Tensor, "seeds d d"]],
) -> Float[Tensor, "pairs seeds"]:
    """ε_k = Σ_{j≥k} (tr D_j + ‖D_j‖₂) for the writing layers: see the module's docstring.

    Examples
    --------
    >>> d1, d2 = torch.diag(torch.tensor([3.0, -1.0])), torch.diag(torch.tensor([0.5, 0.0]))
    >>> rank_bounds([d1[None], d2[None]]).flatten().tolist()
    [6.0, 1.0]
    """
    terms = [
        d.diagonal(dim1=-2, dim2=-1).sum(-1) + torch.linalg.matrix_norm(d, 2) for d in differences
    ]
    return torch.stack(terms).flip(0).cumsum(0).flip(0)


def _differences(weights: Sequence[Tensor]) -> list[Float[Tensor, "seeds d d"]]:
    return [w1 @ w1.mT - w2.mT @ w2 for w1, w2 in pairwise(weights)]


def _pair(write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """‖A - B‖ and ‖A‖ + ‖B‖."""
    a, b = write @ write.mT, read.mT @ read
    return _norm(a - b), _norm(a) + _norm(b)


def _norm(x: Float[Tensor, "seeds m n"]) -> Float[Tensor, " seeds"]:
    return torch.linalg.matrix_norm(x)
