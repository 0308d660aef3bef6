"""Perceptrons of many seeds in one tensor program: every parameter has a leading seed axis.

Seeds never mix: each operation acts on every seed separately, so a seed gives the same network
alone as among others, up to the rounding of batched products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from flagscope.errors import InputError

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Network:
    """Multilayer perceptrons of one shape, one for each seed.

    Attributes
    ----------
    weights
        W_1 … W_L, shapes (seeds, d_l, d_{l-1}).
    biases
        b_1 … b_L, shapes (seeds, d_l), or None.
    activation
        Name of the activation between layers, see `activation`.
    """

    weights: list[Float[Tensor, "seeds out in"]]
    biases: list[Float[Tensor, "seeds out"]] | None
    activation: str = "linear"

    @property
    def parameters(self) -> list[Tensor]:
        """Weights, then biases."""
        return [*self.weights, *(self.biases or [])]

    def preactivations(
        self, x: Float[Tensor, "*seeds n features"]
    ) -> list[Float[Tensor, "seeds n out"]]:
        """z_1 … z_L on inputs in rows, shared by all seeds or separate; z_L is the output."""
        layers: list[Tensor] = []
        h = x.expand(len(self.weights[0]), *x.shape) if x.ndim == 2 else x
        act = activation(self.activation)
        for layer, weight in enumerate(self.weights):
            h = act(layers[-1]) if layers else h
            if self.biases is None:
                layers.append(torch.bmm(h, weight.mT))
            else:
                layers.append(torch.baddbmm(self.biases[layer][:, None], h, weight.mT))
        return layers

    def __call__(self, x: Float[Tensor, "*seeds n features"]) -> Float[Tensor, "seeds n out"]:
        """The output of every seed's network."""
        return self.preactivations(x)[-1]


def initial_network(
    widths: Sequence[int],
    seeds: Iterable[int],
    *,
    activation: str = "linear",
    bias: bool = False,
    scale: float | Literal["he", "lecun"] = "lecun",
    dtype: torch.dtype = torch.float64,
) -> Network:
    """Random networks of widths d_0, d_1, …, d_L that require gradients, one for each seed.

    Parameters
    ----------
    widths
        d_0 … d_L.
    seeds
        Seeds, each with one network drawn from its own generator.
    activation
        See `activation`.
    bias
        Whether layers have biases; they start at zero.
    scale
        Standard deviation of a weight times √d_in: a number, 1 for "lecun", √2 for "he".
    dtype
        Data type of the parameters. Weights are drawn in float64 and then cast, so that the draw
        does not depend on it.

    Examples
    --------
    >>> network = initial_network([4, 8, 2], seeds=range(3))
    >>> [tuple(weight.shape) for weight in network.weights]
    [(3, 8, 4), (3, 2, 8)]
    """
    gain = {"he": sqrt(2), "lecun": 1.0}[scale] if isinstance(scale, str) else scale
    drawn: list[list[Tensor]] = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        drawn.append(
            [
                torch.randn(d, before, dtype=torch.float64, generator=generator)
                * (gain / sqrt(before))
                for before, d in pairwise(widths)
            ]
        )
    if len(widths) < 2 or not drawn:
        raise InputError(f"a network needs two widths and a seed, got {list(widths)}")
    weights = [torch.stack(layer).to(dtype).requires_grad_() for layer in zip(*drawn, strict=True)]
    biases = [torch.zeros(w.shape[:2], dtype=dtype).requires_grad_() for w in weights]
    return Network(weights, biases if bias else None, activation)


def activation(name: str) -> Activation:
    """An activation by name: linear, relu, tanh, gelu, or leaky:SLOPE.

    Examples
    --------
    >>> activation("leaky:0.5")(torch.tensor([-2.0, 2.0]))
    tensor([-1.,  2.])
    """
    plain: dict[str, Activation] = {
        "linear": lambda z: z,
        "relu": functional.relu,
        "tanh": torch.tanh,
        "gelu": functional.gelu,
    }
    if name in plain:
        return plain[name]
    kind, _, text = name.partition(":")
    if kind == "leaky":
        with suppress(ValueError):
            slope = float(text)
            return lambda z: functional.leaky_relu(z, slope)
    raise InputError(f"there is no activation {name!r}", hint=f"{', '.join(plain)} or leaky:SLOPE")


def grams(
    network: Network, layer: int = 0
) -> tuple[Float[Tensor, "seeds d d"], Float[Tensor, "seeds d d"]]:
    """Write Gram A = W1 W1ᵀ and read Gram B = W2ᵀ W2 of weights `layer` and `layer + 1`."""
    w1, w2 = network.weights[layer].detach(), network.weights[layer + 1].detach()
    return w1 @ w1.mT, w2.mT @ w2
