"""Base class of networks with conservation laws: shapes, function, quantities.

Every parameter has a leading seed axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.lab.experiments.attention_laws.conserved import Quantity, State


class LawNetwork(ABC):
    """Networks of many seeds: parameter shapes, function and quantities."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter for one seed; biases have names that start with b."""

    @abstractmethod
    def inputs(self) -> tuple[int, ...]:
        """Shape of one example."""

    @abstractmethod
    def __call__(self, state: State, x: Float[Tensor, "seeds n *shape"]) -> Tensor:
        """Outputs, shape (seeds, rows, outputs)."""

    @abstractmethod
    def laws(self) -> tuple[Quantity, ...]:
        """Quantities that a symmetry conserves."""

    @abstractmethod
    def controls(self) -> tuple[Quantity, ...]:
        """Quantities that no symmetry conserves."""

    def initial(
        self, seeds: Iterable[int], *, scale: float = 1.0, sharpness: float = 1.0
    ) -> dict[str, Tensor]:
        """Random parameters in float64, of standard deviation `scale` over √fan-in.

        Biases are random too, so that they matter; gains are near 1. Query and key maps are larger
        by `sharpness`, so that attention depends on the tokens.
        """
        drawn: dict[str, list[Tensor]] = {name: [] for name in self.shapes()}
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for name, shape in self.shapes().items():
                values = torch.randn(shape, generator=generator, dtype=torch.float64)
                if name == "gain":
                    drawn[name].append(1 + 0.2 * values)
                else:
                    fan_in = 4 if name.startswith("b") else shape[-1]
                    size = scale * sharpness if name in ("q", "k") else scale
                    drawn[name].append(values * size / sqrt(fan_in))
        return {name: torch.stack(values) for name, values in drawn.items()}


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W x + b on rows with any number of axes, after the seed axis."""
    flat = x.flatten(1, -2) @ weight.mT + bias[:, None]
    return flat.unflatten(1, x.shape[1:-1])
