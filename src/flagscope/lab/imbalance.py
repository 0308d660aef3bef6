"""Terms that drive the imbalance A - B of two adjacent maps, per step and over training.

The experiment obstruction derives the terms: masks, which act off the diagonal, and the failure of
homogeneity e = h - D z, which also acts on the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError


def mask_drive(
    z: Float[Tensor, "seeds n d"],
    p: Float[Tensor, "seeds n d"],
    derivative: Float[Tensor, "seeds n d"],
) -> Float[Tensor, "seeds d d"]:
    """-Σ_n (D_i - D_j)(p_i z_j - p_j z_i): effect on A - B of masks that differ between neurons.

    Zero on the diagonal, and everywhere if all neurons have the same derivative.

    Parameters
    ----------
    z
        Preactivations, in rows.
    p
        Gradient of the loss with respect to the neurons' values, in rows.
    derivative
        D, of the same shape as z.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026), the commutator obstruction.

    Examples
    --------
    >>> import torch
    >>> z, p = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 5.0]]])
    >>> mask_drive(z, p, torch.tensor([[[1.0, 0.0]]]))
    tensor([[[ 0., -1.],
             [-1.,  0.]]])
    """
    # (D_i - D_j)(p_i z_j - p_j z_i) = D_i p_i z_j + z_i D_j p_j - D_i z_i p_j - p_i D_j z_j.
    return _symmetric((derivative * z).mT @ p) - _symmetric((derivative * p).mT @ z)


def homogeneity_drive(
    z: Float[Tensor, "seeds n d"],
    h: Float[Tensor, "seeds n d"],
    p: Float[Tensor, "seeds n d"],
    derivative: Float[Tensor, "seeds n d"],
) -> Float[Tensor, "seeds d d"]:
    """Σ_n (p_i e_j + e_i p_j), e = h - D z: effect on A - B of a φ that is not homogeneous.

    Parameters
    ----------
    z, h, p, derivative
        Preactivations, values, gradient with respect to the values, and dh/dz, in rows.

    References
    ----------
    Euler's theorem on homogeneous functions: h = D z for all z.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[[-1.0, 2.0]]])
    >>> homogeneity_drive(z, z.relu(), z, (z > 0).float()).abs().max()
    tensor(0.)
    """
    return _symmetric(p.mT @ (h - derivative * z))


def gradient_drive(write: Tensor, read: Tensor) -> Float[Tensor, "seeds d d"]:
    """Effect on A - B of the gradients of the loss: -(G1 W1ᵀ + W1 G1ᵀ) + W2ᵀ G2 + G2ᵀ W2.

    The sum of `mask_drive` and `homogeneity_drive`, computed from the gradients alone.

    Parameters
    ----------
    write, read
        W1, shape (seeds, d, m1), and W2, shape (seeds, m2, d), with the gradients of the loss
        without its ridge.

    Raises
    ------
    InputError
        If there are no gradients.
    """
    (w1, g1), (w2, g2) = with_gradient(write), with_gradient(read)
    return _symmetric(w2.mT @ g2) - _symmetric(g1 @ w1.mT)


@dataclass
class ImbalanceLedger:
    """A - B of one pair as a sum of three parts, updated at every step of gradient descent.

    For w ← (1 - ηλ) w - η ∇ the sum is exact: A - B is its decayed initial value, plus the part
    driven by gradients, decayed since, plus η² (G1 G1ᵀ - G2ᵀ G2) from finite steps.

    Attributes
    ----------
    write, read
        The parameters W1 and W2.
    step, decay
        η and λ.
    initial, driven, finite
        The three parts so far, each of shape (seeds, d, d).
    """

    write: Tensor
    read: Tensor
    step: float
    decay: float

    def __post_init__(self) -> None:
        self.initial = imbalance_matrix(self.write, self.read)
        self.driven = torch.zeros_like(self.initial)
        self.finite = torch.zeros_like(self.initial)

    def book(self) -> None:
        """Account for one step; call after gradients are computed, before weights change."""
        shrink = 1 - self.step * self.decay
        g1, g2 = with_gradient(self.write)[1], with_gradient(self.read)[1]
        self.initial *= shrink**2
        self.driven *= shrink**2
        self.driven += self.step * shrink * gradient_drive(self.write, self.read)
        self.finite *= shrink**2
        self.finite += self.step**2 * (g1 @ g1.mT - g2.mT @ g2)


def imbalance_matrix(
    write: Float[Tensor, "seeds d m1"], read: Float[Tensor, "seeds m2 d"]
) -> Float[Tensor, "seeds d d"]:
    """A - B = W1 W1ᵀ - W2ᵀ W2.

    Examples
    --------
    >>> import torch
    >>> imbalance_matrix(2 * torch.eye(2)[None], torch.eye(2)[None])
    tensor([[[3., 0.],
             [0., 3.]]])
    """
    w1, w2 = write.detach(), read.detach()
    return w1 @ w1.mT - w2.mT @ w2


def _symmetric(matrix: Tensor) -> Tensor:
    return matrix + matrix.mT


def with_gradient(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """The values of a parameter and its gradient, or an InputError."""
    if parameter.grad is None:
        raise InputError("a weight has no gradient", hint="call this between backward and step")
    return parameter.detach(), parameter.grad
