"""Trains deep linear networks on separable classes without weight decay, many seeds at once.

Margin losses are minimised through their logarithm: its gradient has the same direction, and can be
computed where the loss itself underflows in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from flagscope.errors import InputError
from flagscope.lab.data import Images
from flagscope.lab.experiments.alignment_without_ridge.records import Records
from flagscope.lab.linear import layer_gradients, partial_products
from flagscope.lab.networks import initial_network
from flagscope.lab.training import recording_times

MOMENTS = 60
# Below this log(softplus(a)) is a - e^a / 2 up to e^{2a}, less than round-off.
_FAR = -20.0


@dataclass(frozen=True, eq=False)
class Classes:
    """Inputs of covariance one, and their classes.

    Attributes
    ----------
    inputs
        Shape (n, d), centred.
    labels
        Shape (n,), 0 … count - 1.
    count
        Number of classes.
    """

    inputs: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    count: int


def whitened_classes(images: Images, count: int, features: int) -> Classes:
    """The images of the first classes, as leading principal components of variance 1.

    Whitened, so that a squared loss converges at the same rate in all directions.

    Examples
    --------
    >>> from flagscope.lab.data import load_images
    >>> task = whitened_classes(load_images(), 2, 10)
    >>> covariance = task.inputs.mT @ task.inputs / len(task.inputs)
    >>> bool(torch.allclose(covariance, torch.eye(10).double()))
    True
    """
    if images.classes < count:
        raise InputError(f"{images.name} has {images.classes} classes, {count} are wanted")
    chosen = images.labels < count
    x = images.inputs[chosen]
    x = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(x.mT @ x / len(x))
    x = x @ vectors[:, -features:] / values[-features:].sqrt()
    return Classes(x, images.labels[chosen], count)


def margin_loss(
    outputs: Float[Tensor, "seeds n k"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds n k"]]:
    """Logarithm of the mean logistic loss or cross entropy, and its gradient in the outputs.

    The loss of an example is log(1 + e^a), with a = -y f for one output f and y = ±1 (label 1 is
    +1), and a = log Σ_{j≠y} e^{z_j} - z_y for several, z. Both are finite however small the loss.

    Examples
    --------
    >>> outputs = torch.tensor([[[2000.0], [-2000.0]]], dtype=torch.float64)
    >>> value, gradient = margin_loss(outputs, torch.tensor([1, 0]))
    >>> round(value.item(), 9), [round(g, 9) for g in gradient.flatten().tolist()]
    (-2000.0, [-0.5, 0.5])
    """
    if outputs.shape[-1] == 1:
        sign = (1 - 2 * labels).to(outputs.dtype)[:, None]
        excess, slope = (sign * outputs)[..., 0], sign.expand_as(outputs)
    else:
        own = functional.one_hot(labels, outputs.shape[-1]).bool().expand_as(outputs)
        other_outputs = outputs.masked_fill(own, -math.inf)
        excess = other_outputs.logsumexp(-1) - outputs[own].reshape(outputs.shape[:-1])
        slope = other_outputs.softmax(-1) - own.to(outputs.dtype)
    # PyTorch's own threshold of 20 drops e^-20.
    near = functional.softplus(excess.clamp(min=_FAR), threshold=40).log()
    logs = torch.where(excess < _FAR, excess - excess.clamp(max=0).exp() / 2, near)
    total = logs.logsumexp(-1, keepdim=True)
    weights = (functional.logsigmoid(excess) - total).exp()
    return total[..., 0] - math.log(len(labels)), weights[..., None] * slope


def squared_loss(
    outputs: Float[Tensor, "seeds n 1"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds n 1"]]:
    """½ of the mean squared distance from ±1, and its gradient in the outputs."""
    error = outputs - (2 * labels - 1).to(outputs.dtype)[:, None]
    return error.square().sum((-2, -1)) / (2 * len(labels)), error / len(labels)


def train_separable(
    settings: dict[str, Any], task: Classes, report: Callable[[float], None]
) -> dict[str, Any]:
    """Run gradient descent without weight decay, and record adjacent layers on the way.

    Parameters
    ----------
    settings
        Settings of the cell. `pace` "plain" takes steps η of the loss; "normalised" takes steps of
        fixed length in weight space, along the gradient: the same curve, which plain steps follow
        ever more slowly as the loss vanishes.
    task
        The classes to learn.
    report
        Called with the fraction done.
    """
    s = settings
    outputs = 1 if s["loss"] != "cross-entropy" else task.count
    widths = [task.inputs.shape[1], *[s["width"]] * (s["depth"] - 1), outputs]
    weights = [w.detach() for w in initial_network(widths, s["seeds"], scale=s["scale"]).weights]
    records = Records(weights, dimension=max(1, outputs - 1))
    moments = set(recording_times(s["steps"], MOMENTS))
    for n in range(s["steps"] + 1):
        products = partial_products(weights)
        values = products[-1] @ task.inputs.mT
        loss, slope = (squared_loss if s["loss"] == "squared" else margin_loss)(
            values.mT, task.labels
        )
        gradients = layer_gradients(weights, products, slope.mT @ task.inputs)
        if n in moments:
            size = _norm(gradients)
            records.add(n, weights, loss, _right(values.mT, task.labels), size)
            report(n / s["steps"])
        if n < s["steps"]:
            steps = _steps(s, loss, gradients)
            records.drive(steps, gradients)
            weights = [w - steps * g for w, g in zip(weights, gradients, strict=True)]
    return records.summary()


def _steps(
    s: dict[str, Any], loss: Float[Tensor, " seeds"], gradients: list[Tensor]
) -> Float[Tensor, "seeds 1 1"]:
    """Step sizes along the gradients, which are those of the loss or of its logarithm."""
    if s["pace"] == "normalised":
        steps = s["step"] / _norm(gradients)
    elif s["loss"] == "squared":
        steps = torch.full_like(loss, s["step"])
    else:  # ∇L = L ∇ log L
        steps = s["step"] * loss.exp()
    return steps[:, None, None]


def _norm(gradients: list[Tensor]) -> Float[Tensor, " seeds"]:
    return torch.stack([g.square().sum((-2, -1)) for g in gradients]).sum(0).sqrt()


def _right(
    outputs: Float[Tensor, "seeds n k"], labels: Int[Tensor, " n"]
) -> Float[Tensor, " seeds"]:
    """Share of the examples that are classified correctly."""
    guesses = (outputs[..., 0] > 0).long() if outputs.shape[-1] == 1 else outputs.argmax(-1)
    return (guesses == labels).double().mean(-1)
