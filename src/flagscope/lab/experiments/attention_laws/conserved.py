"""Quadratic forms of the weights that a symmetry of the loss conserves, up to decay.

Let q be a quadratic form of all parameters w, and q(w, g) its polar form. Gradient descent with
ridge, w ← (1 - ηλ) w - η g, takes D = q(w) to

    (1 - ηλ)² D - 2η (1 - ηλ) q(w, g) + η² q(g).

If a one-parameter group of linear maps exp(tX), X symmetric, preserves the loss, then
⟨g, X w⟩ = 0 for every w: with q(w) = ⟨w, X w⟩ the middle term vanishes, and D_n is
(1 - ηλ)^{2n} D_0 plus a sum of η² q(g), each with its decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Quantity:
    """A quadratic form of the parameters, with values in a tensor space.

    Attributes
    ----------
    name
        Name in texts.
    of
        Function from parameters by name, each with a leading seed axis, to a tensor with that axis.
    """

    name: str
    of: Callable[[State], Float[Tensor, "seeds ..."]]


class LawLedger:
    """A quantity, with the predictions of the law and of the exact recursion of finite steps.

    Attributes
    ----------
    decayed
        (1 - ηλ)^{2n} D_0, shape (seeds, …).
    expected
        The recursion S ← (1 - ηλ)² S + η² q(g) from S_0 = D_0: equal to D if the quantity is
        conserved.
    """

    def __init__(self, quantity: Quantity, parameters: State, *, step: float, decay: float) -> None:
        self.quantity = quantity
        self.parameters = parameters
        self.step = step
        self.shrink = (1 - step * decay) ** 2
        self.decayed = self._now()
        self.expected = self.decayed.clone()

    def book(self) -> None:
        """Account for one step; call after gradients are computed, before weights change."""
        gradients: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                raise InputError(f"{name} has no gradient", hint="call this after backward")
            gradients[name] = parameter.grad
        self.decayed = self.decayed * self.shrink
        self.expected = self.expected * self.shrink + self.step**2 * self.quantity.of(gradients)

    def remainder(self) -> Float[Tensor, " seeds"]:
        """‖D - (1 - ηλ)^{2n} D_0‖ over ‖(1 - ηλ)^{2n} D_0‖."""
        return _norm(self._now() - self.decayed) / _norm(self.decayed)

    def driven(self) -> Float[Tensor, " seeds"]:
        """‖D - S‖ over ‖(1 - ηλ)^{2n} D_0‖: the effect of first-order terms on the quantity."""
        return _norm(self._now() - self.expected) / _norm(self.decayed)

    def _now(self) -> Tensor:
        return self.quantity.of({name: p.detach() for name, p in self.parameters.items()})


def write_gram(
    weight: Float[Tensor, "*batch d m"], bias: Float[Tensor, "*batch d"] | None = None
) -> Float[Tensor, "*batch d d"]:
    """W Wᵀ, plus b bᵀ if there is a bias.

    Examples
    --------
    >>> import torch
    >>> write_gram(torch.eye(2), torch.tensor([1.0, 2.0]))
    tensor([[2., 2.],
            [2., 5.]])
    """
    gram = weight @ weight.mT
    return gram if bias is None else gram + bias[..., :, None] * bias[..., None, :]


def read_gram(weight: Float[Tensor, "*batch m d"]) -> Float[Tensor, "*batch d d"]:
    """Wᵀ W."""
    return weight.mT @ weight


def _norm(values: Float[Tensor, "seeds ..."]) -> Float[Tensor, " seeds"]:
    return torch.linalg.vector_norm(values.flatten(1), dim=1)
