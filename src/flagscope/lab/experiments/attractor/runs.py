"""Gradient descent of deep linear networks with weight decay, and measurements at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import principal_sines
from flagscope.lab.imbalance import imbalance_matrix
from flagscope.lab.linear import linear_gradients

Weights = list[Float[Tensor, "seeds out in"]]
# Singular values up to this count as zero: it is between dead values, at most 1e-13, and survivors,
# at least 0.05. The strengths of the targets are of order 1.
ZERO = 1e-6
# A largest sine below this counts as containment; round-off gives 1e-8 at most.
CONTAINED = 1e-6


def whitened_targets(
    strengths: Sequence[float], *, inputs: int, outputs: int, seeds: Sequence[int]
) -> Float[Tensor, "seeds outputs inputs"]:
    """E y xᵀ with given singular values in random directions, one for each seed.

    Examples
    --------
    >>> targets = whitened_targets([2.0, 1.0], inputs=4, outputs=3, seeds=[0])
    >>> [round(value, 12) for value in torch.linalg.svdvals(targets)[0].tolist()]
    [2.0, 1.0, 0.0]
    """
    targets = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        left, right = (
            torch.linalg.qr(
                torch.randn(d, len(strengths), generator=generator, dtype=torch.float64)
            ).Q
            for d in (outputs, inputs)
        )
        targets.append((left * torch.tensor(strengths, dtype=torch.float64)) @ right.mT)
    return torch.stack(targets)


def planted_flag(
    targets: Float[Tensor, "seeds outputs inputs"], *, width: int, write: int, read: int, seed: int
) -> Weights:
    """Initial weights at a strict flag: W1 writes `write` of the `read` directions that W2 reads.

    The written directions are those of the target's leading singular vectors; W2 sends the others
    to outputs that the target does not use.

    Parameters
    ----------
    targets
        E y xᵀ, of rank at most `write`.
    width
        d.
    write, read
        Dimensions of V and U, write < read.
    seed
        Seed of the hidden directions and of the singular values, which are between ½ and 3/2.
    """
    left, _, right = torch.linalg.svd(targets)
    generator = torch.Generator().manual_seed(seed)
    count = len(targets)
    drawn = torch.randn(count, width, read, generator=generator, dtype=torch.float64)
    hidden = torch.linalg.qr(drawn).Q
    sizes = 0.5 + torch.rand(2, count, 1, read, generator=generator, dtype=torch.float64)
    first = (hidden * sizes[0])[..., :write] @ right[:, :write]
    second = (left[..., :read] * sizes[1]) @ hidden.mT
    return [first, second]


def descend(
    weights: Weights,
    xx: Tensor,
    yx: Tensor,
    *,
    step: float,
    decay: float,
    steps: int,
    record: Callable[[int, Weights], None],
    moments: Sequence[int],
    report: Callable[[float], None],
) -> tuple[Weights, list[Float[Tensor, "seeds d d"]]]:
    """Descend ½ E ‖y - W_L … W_1 x‖² + (λ/2) Σ ‖W‖² by w ← (1 - ηλ) w - η ∇.

    Parameters
    ----------
    weights
        Initial W_1 … W_L of every seed.
    xx, yx
        E x xᵀ and E y xᵀ; zeros for no loss.
    step, decay, steps
        η, λ and the number of steps.
    record
        Called with n and the weights at the given moments.
    moments
        When to record.
    report
        Called with the fraction done.

    Returns
    -------
    tuple
        Final weights, and for every adjacent pair the contribution of finite steps to A - B:
        η² Σ (1-ηλ)^{2(n-1-k)} (G1 G1ᵀ - G2ᵀ G2)_k, see the experiment ridge-rate.
    """
    shrink = 1 - step * decay
    driven = [torch.zeros_like(imbalance_matrix(a, b)) for a, b in pairwise(weights)]
    chosen = set(moments)
    for n in range(steps + 1):
        if n in chosen:
            record(n, weights)
            report(n / max(steps, 1))
        if n == steps:
            break
        gradients = linear_gradients(weights, xx, yx)
        for i, (g1, g2) in enumerate(pairwise(gradients)):
            driven[i] = shrink**2 * driven[i] + step**2 * (g1 @ g1.mT - g2.mT @ g2)
        weights = [shrink * w - step * g for w, g in zip(weights, gradients, strict=True)]
    return weights, driven


def product(weights: Weights) -> Float[Tensor, "seeds out in"]:
    """W_L … W_1."""
    composite = weights[0]
    for weight in weights[1:]:
        composite = weight @ composite
    return composite


def ranks(matrices: Float[Tensor, "seeds m n"]) -> list[int]:
    """Number of singular values above `ZERO`, seed by seed."""
    return (torch.linalg.svdvals(matrices) > ZERO).sum(dim=-1).tolist()


def relative_imbalance(w1: Tensor, w2: Tensor) -> list[float | None]:
    """‖A - B‖ / (‖A‖ + ‖B‖) by seed; None if both layers have died."""
    norm = torch.linalg.matrix_norm
    total = norm(w1 @ w1.mT) + norm(w2.mT @ w2)
    ratio = norm(imbalance_matrix(w1, w2)) / total.clamp(min=torch.finfo(total.dtype).tiny)
    alive = total > ZERO**2
    return [r if a else None for r, a in zip(ratio.tolist(), alive.tolist(), strict=True)]


def adjacent(
    w1: Float[Tensor, "seeds d m"], w2: Float[Tensor, "seeds n d"]
) -> list[dict[str, Any]]:
    """Relative position of the write space V of W1 and the read space U of W2, by seed.

    Returns
    -------
    list of dict
        "write" and "read", dimensions of V and U; "sine", the largest sine of the smaller space
        with the larger, None if one of them is 0; "strict_flag", whether the smaller space is not
        0 and a proper subspace of the larger.
    """
    left, _, _ = torch.linalg.svd(w1)
    _, _, right = torch.linalg.svd(w2)
    pairs = []
    for seed, (write, read) in enumerate(zip(ranks(w1), ranks(w2), strict=True)):
        sine = None
        if write and read:
            v, u = left[seed, :, :write], right[seed, :read].mT
            sine = float(principal_sines(v, u).max())
        strict = sine is not None and sine < CONTAINED and write != read
        pairs.append({"write": write, "read": read, "sine": sine, "strict_flag": strict})
    return pairs


def leading_sine(w1: Tensor, w2: Tensor, r: int) -> list[float]:
    """Largest sine between the leading r-dimensional write and read spaces, by seed."""
    left, _, _ = torch.linalg.svd(w1)
    _, _, right = torch.linalg.svd(w2)
    return principal_sines(left[..., :r], right[:, :r].mT).amax(dim=-1).tolist()


def departures(
    start: Weights, end: Weights, driven: Sequence[Tensor], law: float
) -> list[dict[str, float | None]]:
    """Distance of the final A - B from its initial value and from its law, by seed.

    Parameters
    ----------
    start, end
        Weights.
    driven
        Contribution of finite steps, from `descend`.
    law
        (1 - ηλ)^{2n}.

    Returns
    -------
    list of dict
        Over adjacent pairs the largest "drift", ‖D_n - D_0‖ / ‖D_0‖, and "off_law",
        ‖D_n - driven - law D_0‖ / ‖D_0‖; "law_ratio", ‖D_n‖ / (law ‖D_0‖) of the first pair, None
        if the law is below round-off.
    """
    norm = torch.linalg.matrix_norm
    before, after = ([imbalance_matrix(a, b) for a, b in pairwise(w)] for w in (start, end))
    size = [norm(d) for d in before]
    count = range(len(before))
    drift = torch.stack([norm(after[i] - before[i]) / size[i] for i in count]).amax(dim=0)
    missed = [norm(after[i] - driven[i] - law * before[i]) / size[i] for i in count]
    off = torch.stack(missed).amax(dim=0)
    known = law > torch.finfo(off.dtype).eps
    ratio = (norm(after[0]) / (law * size[0])).tolist() if known else [None] * len(off)
    return [
        {"drift": a, "off_law": b, "law_ratio": c}
        for a, b, c in zip(drift.tolist(), off.tolist(), ratio, strict=True)
    ]


def ends(weights: Weights) -> list[dict[str, Any]]:
    """Ranks, singular values, Grams and spaces, one dictionary for each seed.

    Returns
    -------
    list of dict
        "ranks" of the layers and "rank_of_product"; "values", the singular values of the product;
        "least_alive" and "largest_dead", singular values of layers on the two sides of `ZERO`;
        "norm", the largest; "imbalance", "sines" and "strict_flags" of all adjacent pairs; "ridge",
        Σ ‖W‖², and "nuclear", the nuclear norm of the product.
    """
    whole = product(weights)
    values = torch.linalg.svdvals(whole)
    spectra = [torch.linalg.svdvals(w) for w in weights]
    by_layer = [ranks(w) for w in weights]
    pairs = [adjacent(a, b) for a, b in pairwise(weights)]
    imbalances = [relative_imbalance(a, b) for a, b in pairwise(weights)]
    rows = []
    for i, rank in enumerate(ranks(whole)):
        layers = [layer[i] for layer in by_layer]
        every = torch.cat([x[i] for x in spectra])
        alive, dead = every[every > ZERO], every[every <= ZERO]
        rows.append(
            {
                "ranks": layers,
                "rank_of_product": rank,
                "values": values[i].tolist(),
                "least_alive": float(alive.min()) if len(alive) else None,
                "largest_dead": float(dead.max()) if len(dead) else None,
                "norm": float(every.max()),
                "imbalance": [pair[i] for pair in imbalances],
                "sines": [pair[i]["sine"] for pair in pairs],
                "strict_flags": [pair[i]["strict_flag"] for pair in pairs],
                "ridge": sum(float(x[i].square().sum()) for x in spectra),
                "nuclear": float(values[i].sum()),
            }
        )
    return rows
