"""Deep linear networks on a regression, whose gradients need only covariances of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.lab.data import Images


@dataclass(frozen=True, eq=False)
class Regression:
    """Least squares of y on x: ½ E ‖y - W_L … W_1 x‖².

    Attributes
    ----------
    inputs, targets
        Shapes (n, d_0), (n, d_L); centred, so that no bias is needed. Inputs are scaled so that the
        largest eigenvalue of their covariance is 1, which makes step sizes comparable.
    input_covariance, cross_covariance
        E x xᵀ of shape (d_0, d_0) and E y xᵀ of shape (d_L, d_0).
    """

    inputs: Float[Tensor, "n d"]
    targets: Float[Tensor, "n c"]
    input_covariance: Float[Tensor, "d d"]
    cross_covariance: Float[Tensor, "c d"]


def class_regression(images: Images, *, features: int = 64) -> Regression:
    """Regression on the classes of images.

    Images of more than `features` pixels are reduced to that many principal components.
    """
    x = images.inputs - images.inputs.mean(dim=0)
    y = images.one_hot() - images.one_hot().mean(dim=0)
    values, vectors = torch.linalg.eigh(x.mT @ x / len(x))
    if x.shape[1] > features:
        x = x @ vectors[:, -features:]
    x = x / values[-1].sqrt()
    return Regression(x, y, *covariances(x, y))


def covariances(
    x: Float[Tensor, "*seeds n d"], y: Float[Tensor, "*seeds n c"]
) -> tuple[Float[Tensor, "*seeds d d"], Float[Tensor, "*seeds c d"]]:
    """E x xᵀ and E y xᵀ over examples in rows."""
    n = x.shape[-2]
    return x.mT @ x / n, y.mT @ x / n


def linear_gradients(
    weights: Sequence[Float[Tensor, "seeds out in"]], xx: Tensor, yx: Tensor
) -> list[Float[Tensor, "seeds out in"]]:
    """Gradients of ½ E ‖y - W_L … W_1 x‖² in W_1 … W_L.

    With E = W_L … W_1 E[x xᵀ] - E[y xᵀ], that of W_l is (W_L … W_{l+1})ᵀ E (W_{l-1} … W_1)ᵀ.

    Examples
    --------
    >>> import torch
    >>> w = [torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 3.0)]
    >>> [g.item() for g in linear_gradients(w, torch.ones(1, 1), torch.zeros(1, 1))]
    [18.0, 12.0]
    """
    products = partial_products(weights)
    return layer_gradients(weights, products, products[-1] @ xx - yx)


def partial_products(
    weights: Sequence[Float[Tensor, "seeds out in"]],
) -> list[Float[Tensor, "seeds out in"]]:
    """W_1, W_2 W_1, … W_L … W_1.

    Examples
    --------
    >>> import torch
    >>> [p.item() for p in partial_products([torch.full((1, 1, 1), n) for n in (2.0, 3.0, 5.0)])]
    [2.0, 6.0, 30.0]
    """
    products = [weights[0]]
    for weight in weights[1:]:
        products.append(weight @ products[-1])
    return products


def layer_gradients(
    weights: Sequence[Float[Tensor, "seeds out in"]],
    products: Sequence[Float[Tensor, "seeds out in"]],
    behind: Float[Tensor, "seeds out in"],
) -> list[Float[Tensor, "seeds out in"]]:
    """Gradients in W_1 … W_L of a loss of their product, by the chain rule.

    Parameters
    ----------
    weights
        W_1 … W_L.
    products
        Their `partial_products`.
    behind
        The gradient of the loss in W_L … W_1.

    Examples
    --------
    >>> import torch
    >>> w = [torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 3.0)]
    >>> [g.item() for g in layer_gradients(w, partial_products(w), torch.ones(1, 1, 1))]
    [3.0, 2.0]
    """
    gradients: list[Tensor] = []
    for weight, before in zip(reversed(weights[1:]), reversed(products[:-1]), strict=True):
        gradients.append(behind @ before.mT)
        behind = weight.mT @ behind
    return [behind, *reversed(gradients)]
