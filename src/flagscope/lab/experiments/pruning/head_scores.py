"""Scores that rank attention heads for pruning, and the cost of pruning them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import flagscope
from flagscope.lab.gpt import GPTShape, State, mean_loss
from flagscope.lab.gpt_alignment import SPACES
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.records import HeadRecord

Scores = Float[np.ndarray, "n_layer n_head"]


@dataclass(frozen=True, eq=False)
class Redundancy:
    """Overlap of each head's spaces with those of the other heads of its layer.

    Attributes
    ----------
    scores
        - `overlap_q`, …, `overlap_o`: mean overlap ratio with the other heads (Haar mean 1);
          `overlap`: mean of the four.
        - `nearest`: overlap ratio with the nearest other head, by the mean of the four spaces.
        - `membership`: number of directions beyond chance (eigenvalues of the sum of projectors
          above their 1 % level, the eight largest a space) that the head shares.
    pairwise
        Overlap ratio of any two heads of a layer, mean of the four spaces; NaN on the diagonal.
    """

    scores: dict[str, Scores]
    pairwise: Float[np.ndarray, "n_layer H H"]


def redundancy(state: State, shape: GPTShape) -> Redundancy:
    """Redundancy of the heads, from the public scan of the weights.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026).
    """
    heads = flagscope.scan(
        state, config=shape.config(), only="heads", rank=LAB_RULE, device="cpu", workers=1
    ).result.heads
    by_space = {
        space: sorted((head for head in heads if head.space == space), key=lambda head: head.layer)
        for space in SPACES
    }
    ratios = {
        space: np.stack([_others(group) for group in groups]) for space, groups in by_space.items()
    }
    mean = np.mean(list(ratios.values()), axis=0)
    members = [np.stack([_memberships(group) for group in groups]) for groups in by_space.values()]
    scores = {f"overlap_{space}": np.nanmean(ratio, axis=-1) for space, ratio in ratios.items()}
    scores["overlap"] = np.nanmean(mean, axis=-1)
    scores["nearest"] = np.nanmax(mean, axis=-1)
    scores["membership"] = np.sum(members, axis=0)
    return Redundancy(scores, mean)


def _others(record: HeadRecord) -> Float[np.ndarray, "H H"]:
    ratios = np.array(record.pairwise, dtype=float)
    np.fill_diagonal(ratios, np.nan)
    return ratios


def _memberships(record: HeadRecord) -> Float[np.ndarray, " H"]:
    counts = np.zeros(record.count)
    for direction in record.shared:
        counts[direction.heads] += 1
    return counts


def magnitude_scores(state: State, shape: GPTShape) -> dict[str, Scores]:
    """Norms of each head's value and output maps.

    `norms`: ‖W_V‖ ‖W_O‖, which depends on the basis within the head. `product`: ‖W_O W_V‖, which
    does not.
    """
    norms, products = [], []
    for layer in range(shape.n_layer):
        block = f"transformer.h.{layer}.attn."
        maps = state[f"{block}c_attn.weight"].double().unflatten(1, (3, shape.n_head, -1))
        v = maps[:, 2].permute(1, 0, 2)  # (H, d, d_h)
        o = state[f"{block}c_proj.weight"].double().unflatten(0, (shape.n_head, -1))
        norms.append(torch.linalg.matrix_norm(v) * torch.linalg.matrix_norm(o))
        products.append(torch.linalg.matrix_norm(v @ o))
    return {"norms": torch.stack(norms).numpy(), "product": torch.stack(products).numpy()}


def gradient_importance(
    state: State, shape: GPTShape, text: Int[Tensor, " n"], *, windows: int = 64
) -> Scores:
    """Mean over windows of text of |∂ loss / ∂ gate|, with a separate gradient for each window.

    References
    ----------
    P. Michel, O. Levy, G. Neubig, Are Sixteen Heads Really Better than One?, NeurIPS 2019,
    section 4.1.
    """
    gates = torch.ones(shape.n_layer, shape.n_head, requires_grad=True)
    total = torch.zeros(shape.n_layer, shape.n_head, dtype=torch.float64)
    # Evenly spaced over the text, so that no single topic dominates.
    for start in torch.linspace(0, len(text) - shape.n_positions - 1, windows).long().tolist():
        window = text[start : start + shape.n_positions + 1]
        loss = mean_loss(state, window, shape, gates=gates)
        total += torch.autograd.grad(loss, gates)[0].abs().double()
    return (total / windows).numpy()


class Ablation:
    """Held-out loss of a model without some of its heads.

    Parameters
    ----------
    state, shape, text
        The model, and the text on which its loss is measured.
    tick
        Called after every evaluation.
    """

    def __init__(
        self,
        state: State,
        shape: GPTShape,
        text: Int[Tensor, " n"],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._state, self._shape, self._text, self._tick = state, shape, text, tick

    def loss(self, removed: Sequence[int]) -> float:
        """Loss without these heads, numbered layer by layer; the same as with their W_O zero."""
        gates = torch.ones(self._shape.n_layer, self._shape.n_head)
        gates.view(-1)[list(removed)] = 0
        with torch.no_grad():
            loss = float(mean_loss(self._state, self._text, self._shape, gates=gates))
        self._tick()
        return loss

    def curve(self, order: Sequence[int]) -> list[float]:
        """Loss after removing none, one, … and all heads in order."""
        return [self.loss(order[:count]) for count in range(len(order) + 1)]

    def interactions(self, base: float, single: Sequence[float]) -> list[tuple[int, int, float]]:
        """Cost of removing two heads of a layer, beyond the sum of their single costs."""
        pairs = []
        for layer in range(self._shape.n_layer):
            first = layer * self._shape.n_head
            for i, j in combinations(range(first, first + self._shape.n_head), 2):
                beyond = self.loss([i, j]) - single[i] - single[j] + base
                pairs.append((i, j, beyond))
        return pairs
