"""Numbers that are watched during a training: losses, the gradient norm, and what weights show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import (
    commutator_ratio,
    gram_correlation,
    head_spaces,
    imbalance,
    pair_spectra,
    pairwise_overlaps,
    participation_ratio,
)
from flagscope.lab.gpt import GPTShape, State
from flagscope.monitor.weights import block_norms, norms_of

KINDS = {"qk": "Q-K", "ov": "V-O", "mlp": "MLP"}
_DIGITS = 6


@dataclass(frozen=True)
class Signal:
    """A number that is watched.

    Attributes
    ----------
    name, label
        Its key in what was measured, and its name on the page.
    logarithm
        Whether its logarithm is watched: sizes and effective ranks.
    upward
        Whether only a rise raises an alarm: losses and the gradient norm.
    aligned
        Whether it says how maps or heads are aligned.
    """

    name: str
    label: str
    logarithm: bool = False
    upward: bool = False
    aligned: bool = False


#: What people watch. The training loss and the gradient norm are means over the steps since the
#: measurement before.
BASELINES = (
    Signal("gradient_norm", "gradient norm", logarithm=True, upward=True),
    Signal("training_loss", "training loss", upward=True),
    Signal("held_out_loss", "held-out loss", upward=True),
)
_OF_KINDS = tuple(
    signal
    for kind, letters in KINDS.items()
    for signal in (
        Signal(f"pairs/{kind}/gram_correlation", f"ρ, {letters}", aligned=True),
        Signal(f"pairs/{kind}/commutator_ratio", f"C, {letters}", aligned=True),
        Signal(f"pairs/{kind}/imbalance", f"imbalance, {letters}"),
        Signal(
            f"pairs/{kind}/participation_min", f"least effective rank, {letters}", logarithm=True
        ),
    )
)
_OF_NETWORK = (
    Signal("heads/overlap_ratio_max", "largest mean overlap of heads", aligned=True),
    Signal("heads/squared_cosine_max", "overlap of the two closest heads", aligned=True),
    Signal("pairs/qk/product_rank_min", "least effective rank of W_Qᵀ W_K", logarithm=True),
    Signal("pairs/ov/product_rank_min", "least effective rank of W_O W_V", logarithm=True),
    Signal("pairs/qk/product_norm_max", "largest spectral norm of W_Qᵀ W_K", logarithm=True),
    Signal("weights/norm", "norm of all weights", logarithm=True),
    Signal("weights/block_norm_max", "norm of the largest block", logarithm=True),
    Signal("weights/spectral_norm_max", "largest spectral norm of a matrix", logarithm=True),
    Signal("weights/stable_rank_min", "least stable rank of a matrix", logarithm=True),
)
#: What is read from the weights alone.
DIAGNOSTICS = (*_OF_KINDS, *_OF_NETWORK)
#: Diagnostics of which the second question asks when they settle.
ALIGNMENT = tuple(signal for signal in DIAGNOSTICS if signal.aligned)

Pairs = tuple[Float[Tensor, "n d m1"], Float[Tensor, "n m2 d"]]


def weight_numbers(state: State, shape: GPTShape) -> dict[str, float]:
    """The diagnostics of finite weights, by name.

    Those that `flagscope.AlignmentMonitor` logs have its names and values: means over the pairs of
    a kind, and the least or largest value of the network. They are computed here without a scan,
    which would also test them against chance. Stable rank is ‖W‖_F² / ‖W‖₂². Float64.
    """
    layers = [_parts(state, shape, layer) for layer in range(shape.n_layer)]
    q, k, v, o, up, down = (torch.cat(parts) for parts in zip(*layers, strict=True))
    numbers: dict[str, float] = {}
    pairs: dict[str, Pairs] = {"qk": (q, k.mT), "ov": (v, o.mT), "mlp": (up, down)}
    for kind, (write, read) in pairs.items():
        numbers |= {f"pairs/{kind}/{name}": x for name, x in _of_pairs(write, read)}
    for kind in ("qk", "ov"):
        write, read = pairs[kind]
        values = torch.linalg.svdvals(read @ write)
        numbers[f"pairs/{kind}/product_rank_min"] = float(participation_ratio(values).min())
        numbers[f"pairs/{kind}/product_norm_max"] = float(values.max())
    numbers |= _of_heads([space for layer in layers for space in layer[:4]])
    norms = norms_of(state)
    maps = [weight.double() for name, weight in state.items() if ".h." in name and weight.ndim == 2]
    spectral = torch.stack([torch.linalg.matrix_norm(weight, ord=2) for weight in maps])
    frobenius = torch.stack([torch.linalg.matrix_norm(weight) for weight in maps])
    numbers |= {
        "weights/norm": sum(norm**2 for norm in norms.values()) ** 0.5,
        "weights/block_norm_max": max(block_norms(norms).values()),
        "weights/spectral_norm_max": float(spectral.max()),
        "weights/stable_rank_min": float((frobenius / spectral).square().min()),
    }
    # Six digits, so that files of many measurements stay small.
    return {x.name: float(f"{numbers[x.name]:.{_DIGITS}g}") for x in DIAGNOSTICS}


def _parts(state: State, shape: GPTShape, layer: int) -> tuple[Tensor, ...]:
    """Q, K, V and O of each head of a layer as (d_h, d), and the maps of its MLP as (out, in)."""
    block = f"transformer.h.{layer}."
    weights: dict[str, Any] = {
        name: state[f"{block}{name}.weight"].double()
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    by_role = weights["attn.c_attn"].unflatten(1, (3, shape.n_head, -1)).permute(1, 2, 3, 0)
    o = weights["attn.c_proj"].unflatten(0, (shape.n_head, -1))
    return (*by_role, o, weights["mlp.c_fc"].mT[None], weights["mlp.c_proj"].mT[None])


def _of_pairs(write: Tensor, read: Tensor) -> Iterator[tuple[str, float]]:
    s = pair_spectra(write, read)
    yield "gram_correlation", float(gram_correlation(s).mean())
    yield "commutator_ratio", float(commutator_ratio(s).mean())
    yield "imbalance", float(imbalance(s).mean())
    ends = torch.cat([participation_ratio(s.sigma_write), participation_ratio(s.sigma_read)])
    yield "participation_min", float(ends.min())


def _of_heads(spaces: list[Float[Tensor, "H r d"]]) -> dict[str, float]:
    """Overlaps of the heads of a layer in one space: the largest mean, and of any two heads."""
    means, largest = [], []
    for maps in spaces:
        count, rank, d = maps.shape
        overlaps = pairwise_overlaps(head_spaces(maps))
        apart = overlaps[~torch.eye(count, dtype=torch.bool)]
        means.append(float(apart.mean()) / (rank * rank / d))
        largest.append(float(apart.max()) / rank)
    return {"heads/overlap_ratio_max": max(means), "heads/squared_cosine_max": max(largest)}
