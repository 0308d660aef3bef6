"""Descent of the norm along the orbit of a pair of maps, closed or not."""

from __future__ import annotations

from typing import Any

import torch

from flagscope.geometry import (
    has_closed_affine_orbit,
)
from flagscope.lab.experiments.strata.pairs import well_conditioned

# Steps of the norm flow: imbalance falls like exp(-n) if the orbit is closed, else like 1/n.
_FLOW_STEPS = 1500


def norm_flow(d: int, seed: int) -> list[dict[str, Any]]:
    """Descend ‖gW1‖² + ‖W2g⁻¹‖² over g from pairs of maps with closed and non-closed orbits.

    The gradient in g at the identity is the moment map A - B. By Kempf and Ness the minimum is
    attained, at A = B, if and only if the orbit is closed.
    """
    generator = torch.Generator().manual_seed(1000 * d + seed)
    rank = max(1, d // 2)
    flows = []
    for kind in ("balanced", "write into the kernel", "unequal ranks"):
        # Balanced maps of singular values 1 … 2, one redirected or cut off, all transformed by g.
        base = torch.diag(torch.linspace(1, 2, d, dtype=torch.float64))
        w1, w2 = base[:, :rank].clone(), base[:rank].clone()
        if kind == "write into the kernel":
            w2[rank - 1] = w2[rank - 1].roll(1)
        elif kind == "unequal ranks":
            w2[rank - 1] = 0
        moved = well_conditioned(d, generator)
        w1, w2 = moved @ w1, torch.linalg.solve(moved, w2, left=False)
        ranks = [int(torch.linalg.matrix_rank(w, atol=1e-9)) for w in (w1, w2)]
        product_rank = int(torch.linalg.matrix_rank(w2 @ w1, atol=1e-9))
        g = torch.eye(d, dtype=torch.float64)
        size = torch.linalg.matrix_norm(w1) ** 2 + torch.linalg.matrix_norm(w2) ** 2
        imbalances, conditions = [], []
        for n in range(1, _FLOW_STEPS + 1):
            moment = w1 @ w1.mT - w2.mT @ w2
            step = torch.linalg.matrix_exp(-0.5 * moment / size)
            w1, w2, g = step @ w1, torch.linalg.solve(step, w2, left=False), step @ g
            if n in (_FLOW_STEPS // 2, _FLOW_STEPS):
                total = torch.linalg.matrix_norm(w1 @ w1.mT) + torch.linalg.matrix_norm(w2.mT @ w2)
                imbalances.append(float(torch.linalg.matrix_norm(moment) / total))
                conditions.append(float(torch.linalg.cond(g)))
        flows.append(
            {
                "d": d,
                "seed": seed,
                "kind": kind,
                "closed": has_closed_affine_orbit(
                    rank_write=ranks[0], rank_read=ranks[1], rank_product=product_rank
                ),
                "imbalance": imbalances[1],
                "imbalance_before": imbalances[0],
                "condition_growth": conditions[1] / conditions[0],
            }
        )
    return flows
