"""Grouped-query attention with and without rotary embeddings, and its conservation laws.

Scores of query head h of a group are q_hᵀ R k, R the relative rotation. Any g that commutes with
all R preserves them by (g W_Q,h, g^{-T} W_K), one g for all heads of the group: all of GL(d_h)
without rotation, aI + bJ in each plane with it, whose symmetric part is a scale per plane. Values
and outputs have no rotation. And without norms the residual stream as a whole may change its basis:
all its writers by g, all its readers by g^{-1}; the skip is the identity in any basis.

Without rotation, a key's bias adds the same number to all scores of a query, which the softmax
ignores: its gradient is zero, and it may be left out of the law. A query's bias may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from flagscope.lab.experiments.attention_laws.conserved import (
    Quantity,
    State,
    read_gram,
    write_gram,
)
from flagscope.lab.experiments.attention_laws.law_network import LawNetwork, affine


@dataclass(frozen=True)
class AttentionNetwork(LawNetwork):
    """One layer of causal grouped-query attention and a ReLU MLP, without norms, with all biases.

    Attributes
    ----------
    rotary_base
        Frequencies are base^(-2j/d_h) on the pairs (j, j + d_h/2); None for no rotation.
    """

    rotary_base: float | None = None
    tokens: int = 8
    features: int = 6
    width: int = 16
    groups: int = 2
    queries: int = 2
    head: int = 6
    hidden: int = 24
    outputs: int = 4

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters; heads as (group, query head of the group, …)."""
        g, m, e, d = self.groups, self.queries, self.head, self.width
        return {
            "embed": (d, self.features), "b_embed": (d,),
            "q": (g, m, e, d), "b_q": (g, m, e), "k": (g, e, d), "b_k": (g, e),
            "v": (g, e, d), "b_v": (g, e), "o": (g, m, d, e), "b_o": (d,),
            "up": (self.hidden, d), "b_up": (self.hidden,),
            "down": (d, self.hidden), "b_down": (d,),
            "unembed": (self.outputs, d), "b_unembed": (self.outputs,),
        }  # fmt: skip

    def inputs(self) -> tuple[int, ...]:
        """Shape of a sequence of tokens."""
        return self.tokens, self.features

    def __call__(
        self, state: State, x: Float[Tensor, "seeds n t f"]
    ) -> Float[Tensor, "seeds rows outputs"]:
        """Output of every token, with examples and tokens in one axis."""
        h = affine(x, state["embed"], state["b_embed"])
        h = h + self.attention(state, h)
        inner = functional.relu(affine(h, state["up"], state["b_up"]))
        h = h + affine(inner, state["down"], state["b_down"])
        return affine(h, state["unembed"], state["b_unembed"]).flatten(1, 2)

    def attention(
        self, state: State, h: Float[Tensor, "seeds n t d"]
    ) -> Float[Tensor, "seeds n t d"]:
        """Output of the heads, which is added to the stream."""
        q = einsum(state["q"], h, "s g m e d, s n t d -> s g m n t e")
        k = (
            einsum(state["k"], h, "s g e d, s n t d -> s g n t e")
            + state["b_k"][..., None, None, :]
        )
        v = (
            einsum(state["v"], h, "s g e d, s n t d -> s g n t e")
            + state["b_v"][..., None, None, :]
        )
        q = q + state["b_q"][..., None, None, :]
        if self.rotary_base is not None:
            q, k = self.rotated(q), self.rotated(k)
        scores = einsum(q, k, "s g m n t e, s g n u e -> s g m n t u") / sqrt(self.head)
        later = torch.ones(self.tokens, self.tokens, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        read = einsum(weights, v, "s g m n t u, s g n u e -> s g m n t e")
        written = einsum(state["o"], read, "s g m d e, s g m n t e -> s n t d")
        return written + state["b_o"][:, None, None]

    def rotated(self, x: Float[Tensor, "*batch t e"]) -> Float[Tensor, "*batch t e"]:
        """Rotated by position times frequency in the planes (j, j + d_h/2)."""
        if self.rotary_base is None:
            return x
        half = self.head // 2
        frequencies = self.rotary_base ** (-torch.arange(half, dtype=x.dtype) / half)
        angles = torch.arange(self.tokens, dtype=x.dtype)[:, None] * frequencies
        first, second = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def laws(self) -> tuple[Quantity, ...]:
        """Q-K (its traces per plane under rotation), V-O, and the residual stream as a whole."""
        if self.rotary_base is None:
            query_key = (
                Quantity("Q-K", _query_key),
                Quantity("Q-K, b_K left out", lambda state: _query_key(state, without="b_k")),
            )
        else:
            query_key = (Quantity("Q-K, traces per plane", _plane_traces),)
        return (*query_key, Quantity("V-O", _value_output), Quantity("stream", _stream))

    def controls(self) -> tuple[Quantity, ...]:
        """Single heads with their share, laws without biases, and the whole Q-K under rotation."""
        quantities = [
            Quantity("Q-K of single heads", _single_query),
            Quantity("V-O of single heads", _single_output),
            Quantity("attention output to MLP input", _stream_to_mlp),
        ]
        if self.rotary_base is None:
            quantities.append(Quantity("Q-K, b_Q left out", lambda s: _query_key(s, without="b_q")))
        else:
            quantities.append(Quantity("Q-K, whole matrix", _query_key))
            quantities.append(
                Quantity("traces per plane, b_K left out", lambda s: _plane_traces(s, "b_k"))
            )
        return tuple(quantities)


def _query_key(state: State, without: str = "") -> Float[Tensor, "seeds groups e e"]:
    """Σ_h (A_h + b_Q b_Qᵀ) - (B_K + b_K b_Kᵀ)."""
    queries = write_gram(state["q"], None if without == "b_q" else state["b_q"])
    return queries.sum(2) - write_gram(state["k"], None if without == "b_k" else state["b_k"])


def _single_query(state: State) -> Float[Tensor, "seeds groups m e e"]:
    """A_h + b_Q b_Qᵀ minus an equal share of B_K + b_K b_Kᵀ."""
    queries = write_gram(state["q"], state["b_q"])
    return queries - write_gram(state["k"], state["b_k"])[:, :, None] / queries.shape[2]


def _plane_traces(state: State, without: str = "") -> Float[Tensor, "seeds groups planes"]:
    diagonal = _query_key(state, without).diagonal(dim1=-2, dim2=-1)
    first, second = diagonal.chunk(2, -1)
    return first + second


def _value_output(state: State) -> Float[Tensor, "seeds groups e e"]:
    """A_V + b_V b_Vᵀ - Σ_h B_{O,h}."""
    return write_gram(state["v"], state["b_v"]) - read_gram(state["o"]).sum(2)


def _single_output(state: State) -> Float[Tensor, "seeds groups m e e"]:
    share = write_gram(state["v"], state["b_v"])[:, :, None] / state["o"].shape[2]
    return share - read_gram(state["o"])


def _stream(state: State) -> Float[Tensor, "seeds d d"]:
    """Sum of the write Grams of the stream's writers minus read Grams of its readers."""
    written = write_gram(state["embed"], state["b_embed"])
    written = written + write_gram(state["o"]).sum((1, 2)) + write_gram(state["b_o"][..., None])
    written = written + write_gram(state["down"], state["b_down"])
    heads = read_gram(state["q"]).sum((1, 2)) + read_gram(state["k"]).sum(1)
    heads = heads + read_gram(state["v"]).sum(1)
    return written - heads - read_gram(state["up"]) - read_gram(state["unembed"])


def _stream_to_mlp(state: State) -> Float[Tensor, "seeds d d"]:
    """`_stream` of the attention's output and the MLP's input alone."""
    written = write_gram(state["o"]).sum((1, 2)) + write_gram(state["b_o"][..., None])
    return written - read_gram(state["up"])
