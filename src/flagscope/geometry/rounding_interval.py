"""The numbers that round to a stored one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def rounding_interval(
    stored: Float[Tensor, "*shape"],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Ends of the interval of numbers that round to each stored one, as float64.

    Parameters
    ----------
    stored
        float64, float32, float16 or bfloat16, finite.

    Returns
    -------
    tuple of Tensor
        Midpoints to the neighbours below and above. Beyond the largest number of the type the
        interval is as wide as on the inner side.

    Examples
    --------
    >>> import torch
    >>> low, high = rounding_interval(torch.ones(1, dtype=torch.bfloat16))
    >>> low.item(), high.item()
    (0.998046875, 1.00390625)
    """
    top = torch.full_like(stored, math.inf)
    wide = stored.to(torch.float64)
    above = torch.nextafter(stored, top).to(torch.float64)
    below = torch.nextafter(stored, -top).to(torch.float64)
    above = torch.where(above.isfinite(), above, 2 * wide - below)
    below = torch.where(below.isfinite(), below, 2 * wide - above)
    return (wide + below) / 2, (wide + above) / 2
