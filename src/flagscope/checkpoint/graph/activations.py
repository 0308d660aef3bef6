"""Functions of one number by their values at fixed points: which activation it is.

Exporters write GELU as five nodes, frameworks spell SiLU in three ways. The values identify it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

Curve = Float64[Tensor, " points"]

# Irregular, so that no function of these can be taken for another one by symmetry.
POINTS: Curve = torch.cat(
    [-torch.logspace(1, -2, 40, dtype=torch.float64), torch.logspace(-2.02, 0.98, 41).double()]
)
# Constants of a graph are stored in float32, and may come from half precision tables.
_CLOSE = 1e-5

Function = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Function] = {
    "relu": torch.relu,
    "relu6": lambda x: x.clamp(0, 6),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": lambda x: x * torch.sigmoid(x),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": lambda x: torch.where(x > 0, x, torch.expm1(x)),
    "selu": torch.selu,
    "softplus": torch.nn.functional.softplus,
    "softsign": torch.nn.functional.softsign,
    "exponential": torch.exp,
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "hard_sigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard_swish": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
    "relu_squared": lambda x: torch.relu(x) ** 2,
}


def curve_name(curve: Curve) -> str:
    """The activation that has these values at `POINTS`.

    "linear" for every function a x, "affine" for a x + b, "leaky_relu" for every other one with
    f(c x) = c f(x) for c > 0, "elementwise" for one that has no name here or is not finite
    everywhere.

    Examples
    --------
    >>> curve_name(POINTS * torch.sigmoid(POINTS)), curve_name(2 * POINTS + 1)
    ('silu', 'affine')
    """
    if not bool(torch.isfinite(curve).all()):
        return "elementwise"
    near = _CLOSE * max(1.0, float(curve.abs().max()))
    slope = (curve[-1] - curve[0]) / (POINTS[-1] - POINTS[0])
    if torch.allclose(curve, curve[0] + slope * (POINTS - POINTS[0]), rtol=0, atol=near):
        if not slope:
            return "elementwise"
        offset = float(curve[0] - slope * POINTS[0])
        return "linear" if abs(offset) <= near else "affine"
    for name, function in ACTIVATIONS.items():
        if torch.allclose(curve, function(POINTS), rtol=_CLOSE, atol=_CLOSE):
            return name
    falling, rising = curve[0] / POINTS[0], curve[-1] / POINTS[-1]
    bent = torch.where(POINTS < 0, falling, rising) * POINTS
    # Relative to the size of each value: functions like sinh are nearly linear at small ones.
    return "leaky_relu" if torch.allclose(curve, bent, rtol=_CLOSE, atol=1e-9) else "elementwise"
