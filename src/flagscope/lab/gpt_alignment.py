"""Measures the alignment of a small GPT during training, by the public scan of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import flagscope
from flagscope.lab.gpt import GPTShape, State
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.null import mean_overlap_significance
from flagscope.records import HeadRecord, PairRecord

SPACES = ("q", "k", "v", "o")
KINDS = ("qk", "ov", "mlp")
LINEAR = ("qk", "ov")  # pairs with freedom GL(d_h)
_DIGITS = 6


def alignment(state: State, shape: GPTShape) -> dict[str, Any]:
    """All observables of a checkpoint, one number per layer.

    Returns
    -------
    dict
        By name, a list over layers; None for an undefined number.

        - `R_q`, `R_k`, `R_v`, `R_o`: head overlap ratio, functional; `z_q`, …: its distance from
          the Haar null in standard deviations, `log10_p_q`, … its two-sided p-value.
        - `C_qk`, `C_ov`, `C_mlp`, and `rho_`, `nu_` in place of `C_`: commutator ratio, gram
          correlation and commutation defect, medians over the heads of the layer. Those of
          Q-K and V-O are gauge.
        - `product_rank_qk`, `product_rank_ov`: participation ratio of W2 W1, functional;
        `balanced_rank_…`: that of either map after gauge fixing; medians over the heads.
        - `conserved_qk`, `conserved_ov`: ‖A + b bᵀ - B (- b' b'ᵀ)‖, which gradient flow conserves
          (see `conserved_norms`); medians over the heads.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026).
    """
    result = flagscope.scan(
        state,
        config=shape.config(),
        only=("pairs", "heads"),
        rank=LAB_RULE,
        device="cpu",
        workers=1,
    ).result
    values: dict[str, Any] = {}
    for space in SPACES:
        groups = [record for record in result.heads if record.space == space]
        values |= _of_heads(space, sorted(groups, key=_layer))
    for kind in KINDS:
        pairs = sorted((record for record in result.pairs if record.kind == kind), key=_layer)
        values |= _of_pairs(kind, [list(layer) for _, layer in groupby(pairs, key=_layer)])
    for kind in LINEAR:
        values[f"conserved_{kind}"] = [
            _rounded(median(norms)) for norms in conserved_norms(state, shape, kind).tolist()
        ]
    return values


def _layer(record: PairRecord | HeadRecord) -> int:
    return -1 if record.layer is None else record.layer


def _of_heads(space: str, groups: Sequence[HeadRecord]) -> dict[str, list[float | None]]:
    return {
        f"R_{space}": [_rounded(group.overlap_ratio) for group in groups],
        f"z_{space}": [_rounded(group.z) for group in groups],
        f"log10_p_{space}": [_rounded(_haar_log10_p(group)) for group in groups],
    }


def _haar_log10_p(group: HeadRecord) -> float | None:
    """log10 p of the Haar null, as in the claims; the p of a scan also accounts for scales."""
    if group.overlap_ratio is None or group.rank is None:
        return None
    # All heads of the trained model have the same rank.
    ranks = [group.rank] * group.count
    return mean_overlap_significance(group.overlap_ratio, ranks, group.d).log10_p


def _of_pairs(kind: str, layers: Sequence[Sequence[PairRecord]]) -> dict[str, list[float | None]]:
    values = {
        f"C_{kind}": [_median(p.commutator_ratio for p in layer) for layer in layers],
        f"rho_{kind}": [_median(p.gram_correlation for p in layer) for layer in layers],
        f"nu_{kind}": [_median(p.commutation_defect for p in layer) for layer in layers],
    }
    if kind in LINEAR:
        values[f"product_rank_{kind}"] = [
            _median(p.functional and p.functional.product_effective_rank for p in layer)
            for layer in layers
        ]
        values[f"balanced_rank_{kind}"] = [
            _median(p.balanced and p.balanced.effective_rank for p in layer) for layer in layers
        ]
    return values


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(median(known)) if known else None


def _rounded(value: float | None) -> float | None:
    """Round to six digits, so that files of many checkpoints stay small."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def conserved_norms(state: State, shape: GPTShape, kind: str) -> Float[Tensor, "n_layer n_head"]:
    """Frobenius norm of the matrix that gradient flow conserves, for each head.

    Q-K: A_Q + b_Q b_Qᵀ - B_K - b_K b_Kᵀ. V-O: A_V + b_V b_Vᵀ - B_O. Under gradient flow with an L2
    penalty λ/2 on both maps and their biases the matrix decays as e^{-2λt} exactly. Float64.

    References
    ----------
    S. S. Du, W. Hu, J. D. Lee, Algorithmic regularization in learning deep homogeneous models:
    layers are automatically balanced, NeurIPS 2018, theorem 2.1.
    """
    norms = []
    for layer in range(shape.n_layer):
        block = f"transformer.h.{layer}.attn."
        maps = [state[f"{block}c_attn.{part}"].double() for part in ("weight", "bias")]
        by_role = torch.vstack(maps).unflatten(1, (3, shape.n_head, -1))  # bias as a further input
        q, k, v = by_role.permute(1, 2, 3, 0)  # (n_head, d_h, d + 1) each
        o = state[f"{block}c_proj.weight"].double().unflatten(0, (shape.n_head, -1))
        write, read = (q, k) if kind == "qk" else (v, o)
        norms.append(torch.linalg.matrix_norm(write @ write.mT - read @ read.mT))
    return torch.stack(norms)
