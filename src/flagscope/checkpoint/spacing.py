"""Spacing of stored floating-point numbers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spacing(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Distance of neighbouring numbers of a floating-point type at each value, as float32.

    Examples
    --------
    >>> import torch
    >>> spacing(torch.tensor([1.0, 3.0], dtype=torch.float16)).tolist()
    [0.0009765625, 0.001953125]
    """
    kind = torch.finfo(values.dtype)
    _, exponent = torch.frexp(values.to(torch.float32))
    smallest = math.log2(kind.smallest_normal)
    power = (exponent - 1).to(torch.float32).clamp_min(smallest)
    return torch.exp2(power) * kind.eps
