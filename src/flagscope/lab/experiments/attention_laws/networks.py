"""Residual linear and batch-normalised networks with their laws, and all networks by name.

x + W2 (W1 x + b1) + b2: a change g inside the block preserves the function, as it does without the
skip. Across the skip it does not: only the stream as a whole may change its basis.

A BatchNorm after W1 removes the scale of each of its rows: the loss is constant along w_i, so that
⟨g_i, w_i⟩ = 0, and ‖w_i‖² gains η² ‖g_i‖² per step and decays, whatever W2 does. After it, the gain
and shift of a neuron are tied to the column of W2 that reads it, also through a ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from flagscope.lab.experiments.attention_laws.attention_network import AttentionNetwork
from flagscope.lab.experiments.attention_laws.conserved import (
    Quantity,
    State,
    read_gram,
    write_gram,
)
from flagscope.lab.experiments.attention_laws.law_network import LawNetwork, affine


@dataclass(frozen=True)
class ResidualLinearNetwork(LawNetwork):
    """Linear network: blocks x + W2 (W1 x + b1) + b2 between an embedding and an unembedding."""

    blocks: int = 2
    features: int = 8
    width: int = 16
    inner: int = 10
    outputs: int = 4

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters, with blocks as the leading axis."""
        n, d, e = self.blocks, self.width, self.inner
        return {
            "embed": (d, self.features), "b_embed": (d,),
            "first": (n, e, d), "b_first": (n, e), "second": (n, d, e), "b_second": (n, d),
            "unembed": (self.outputs, d), "b_unembed": (self.outputs,),
        }  # fmt: skip

    def inputs(self) -> tuple[int, ...]:
        """A vector."""
        return (self.features,)

    def __call__(
        self, state: State, x: Float[Tensor, "seeds n f"]
    ) -> Float[Tensor, "seeds n outputs"]:
        """The output of every example."""
        h = affine(x, state["embed"], state["b_embed"])
        for i in range(self.blocks):
            inner = affine(h, state["first"][:, i], state["b_first"][:, i])
            h = h + affine(inner, state["second"][:, i], state["b_second"][:, i])
        return affine(h, state["unembed"], state["b_unembed"])

    def laws(self) -> tuple[Quantity, ...]:
        """The pair inside each block, and the stream as a whole."""
        return Quantity("pair inside a block", _inside), Quantity("stream", _linear_stream)

    def controls(self) -> tuple[Quantity, ...]:
        """Adjacent maps with the skip between them, and a bias left out."""
        return (
            Quantity("pair across the skip", _across),
            Quantity(
                "pair inside a block, bias left out",
                lambda s: write_gram(s["first"]) - read_gram(s["second"]),
            ),
        )


@dataclass(frozen=True)
class NormedNetwork(LawNetwork):
    """W2 ReLU(BatchNorm(W1 x)), normalised by the full batch.

    Attributes
    ----------
    epsilon
        Added to the variance. Only without it is the output invariant under scaling of W1's rows.
    """

    epsilon: float = 0.0
    features: int = 8
    hidden: int = 16
    outputs: int = 4

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters; W1 has no bias, as the normalisation would remove it."""
        h = self.hidden
        return {
            "first": (h, self.features), "gain": (h,), "b_shift": (h,),
            "second": (self.outputs, h), "b_second": (self.outputs,),
        }  # fmt: skip

    def inputs(self) -> tuple[int, ...]:
        """A vector."""
        return (self.features,)

    def __call__(
        self, state: State, x: Float[Tensor, "seeds n f"]
    ) -> Float[Tensor, "seeds n outputs"]:
        """The output of every example."""
        z = x @ state["first"].mT
        centred = z - z.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + self.epsilon).rsqrt()
        normed = centred * scale * state["gain"][:, None] + state["b_shift"][:, None]
        return affine(functional.relu(normed), state["second"], state["b_second"])

    def laws(self) -> tuple[Quantity, ...]:
        """Squared row norms of W1, and per neuron the pair of gain and shift with W2."""
        return (
            Quantity("squared row norms of W1", lambda s: s["first"].square().sum(-1)),
            Quantity(
                "γ² + β² less diagonal of B",
                lambda s: s["gain"].square() + s["b_shift"].square() - _column_norms(s["second"]),
            ),
        )

    def controls(self) -> tuple[Quantity, ...]:
        """A - B of W1 and W2, as if there were nothing between them."""
        return (
            Quantity(
                "A - B through BatchNorm", lambda s: write_gram(s["first"]) - read_gram(s["second"])
            ),
            Quantity(
                "diagonal of A - B through BatchNorm",
                lambda s: s["first"].square().sum(-1) - _column_norms(s["second"]),
            ),
        )


def _inside(state: State) -> Float[Tensor, "seeds blocks e e"]:
    """A + b bᵀ - B of W1 and W2 of each block."""
    return write_gram(state["first"], state["b_first"]) - read_gram(state["second"])


def _across(state: State) -> Float[Tensor, "seeds pairs d d"]:
    """A + b bᵀ - B of W2 of a block and W1 of the next."""
    written = write_gram(state["second"], state["b_second"])
    return written[:, :-1] - read_gram(state["first"])[:, 1:]


def _linear_stream(state: State) -> Float[Tensor, "seeds d d"]:
    """Write Grams of the writers minus read Grams of the readers, for the linear network."""
    blocks = write_gram(state["second"], state["b_second"]) - read_gram(state["first"])
    ends = write_gram(state["embed"], state["b_embed"]) - read_gram(state["unembed"])
    return ends + blocks.sum(1)


def _column_norms(weight: Float[Tensor, "seeds m d"]) -> Float[Tensor, "seeds d"]:
    return weight.square().sum(-2)


NETWORKS: dict[str, LawNetwork] = {
    "attention": AttentionNetwork(),
    "rotary": AttentionNetwork(rotary_base=100.0),
    "residual": ResidualLinearNetwork(),
    "batchnorm": NormedNetwork(),
    "batchnorm-epsilon": NormedNetwork(epsilon=1e-5),
}
