"""Perceptrons and gated networks that expose the neurons between two maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from flagscope.lab.imbalance import homogeneity_drive, mask_drive
from flagscope.lab.networks import activation, initial_network

# Sizes of the networks of both experiments on the obstruction.
WIDTH = 64
STEP = 0.2
# Time of a step relative to that of a ReLU, by activation.
COST = {"gelu": 1.4, "gated:silu": 1.8, "tanh": 1.2}


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons between a writing and a reading map, on given inputs.

    Attributes
    ----------
    pair
        Name of the pair, such as "up-down".
    z, h
        Preactivations and values, shapes (seeds, n, d), both in the graph of the output.
    """

    pair: str
    z: Float[Tensor, "seeds n d"]
    h: Float[Tensor, "seeds n d"]


@dataclass(frozen=True, eq=False)
class OpenNetwork:
    """Networks of three or four maps, one for each seed, that expose the neurons of their pairs.

    Attributes
    ----------
    weights
        By name, shapes (seeds, out, in); they require gradients.
    activation
        "gated:NAME" for out · down · (NAME(gate x) * (up x)), else a perceptron's activation.
    """

    weights: dict[str, Float[Tensor, "seeds out in"]]
    activation: str

    @property
    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Write and read maps of each pair, by name."""
        names = [("1", "2")]
        if self.activation.startswith("gated:"):
            names = [("up", "down"), ("gate", "down"), ("down", "out")]
        return {f"{a}-{b}": (self.weights[a], self.weights[b]) for a, b in names}

    def __call__(self, x: Float[Tensor, "n features"]) -> tuple[Tensor, list[Neurons]]:
        """Outputs (seeds, n, classes), and the neurons of every pair."""
        w = {name: weight.mT for name, weight in self.weights.items()}
        kind, _, gate = self.activation.partition(":")
        if kind == "gated":
            up, opened = x @ w["up"], x @ w["gate"]
            h = activated(gate, opened) * up
            down = h @ w["down"]
            gated = [Neurons("up-down", up, h), Neurons("gate-down", opened, h)]
            return down @ w["out"], [*gated, Neurons("down-out", down, down)]
        z = x @ w["1"]
        h = activated(self.activation, z)
        return activated(self.activation, h @ w["2"]) @ w["3"], [Neurons("1-2", z, h)]


def open_network(
    activation: str, features: int, width: int, classes: int, seeds: Sequence[int]
) -> OpenNetwork:
    """A random network with two hidden layers, or a gated one, with variance 1/fan-in.

    Examples
    --------
    >>> network = open_network("gated:silu", 8, 6, 3, seeds=[0, 1])
    >>> {name: tuple(weight.shape) for name, weight in network.weights.items()}
    {'up': (2, 6, 8), 'gate': (2, 6, 8), 'down': (2, 6, 6), 'out': (2, 3, 6)}
    >>> list(network.pairs)
    ['up-down', 'gate-down', 'down-out']
    """
    widths = [features, width, width, classes]
    drawn = initial_network(widths, seeds).weights
    if not activation.startswith("gated:"):
        return OpenNetwork(dict(zip("123", drawn, strict=True)), activation)
    up, down, out = drawn
    # Seeds far from the others, so that no gate equals an up map.
    (gate,) = initial_network([features, width], [s + 10**6 for s in seeds]).weights
    return OpenNetwork({"up": up, "gate": gate, "down": down, "out": out}, activation)


def activated(name: str, z: Tensor) -> Tensor:
    """The activation `name` of the laboratory's networks, or silu, of z."""
    return functional.silu(z) if name == "silu" else activation(name)(z)


def drives(
    neurons: Sequence[Neurons], loss: Float[Tensor, ""]
) -> list[tuple[Float[Tensor, "seeds d d"], Float[Tensor, "seeds d d"]]]:
    """`mask_drive` and `homogeneity_drive` of each pair, with p and D by backpropagation.

    Parameters
    ----------
    neurons
        Neurons as returned by a network.
    loss
        Loss of the same outputs, summed over seeds; its graph is kept.
    """
    drives: list[tuple[Tensor, Tensor]] = []
    for pair in neurons:
        (p,) = torch.autograd.grad(loss, pair.h, retain_graph=True)
        (derivative,) = torch.autograd.grad(pair.h.sum(), pair.z, retain_graph=True)
        z, h = pair.z.detach(), pair.h.detach()
        drives.append((mask_drive(z, p, derivative), homogeneity_drive(z, h, p, derivative)))
    return drives
