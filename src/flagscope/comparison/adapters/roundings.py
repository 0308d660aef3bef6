"""The orders of roundings in which a merge may have been computed.

Every one is a monotone map of the change: where the exact change is known within a bound, the
replays of its two ends enclose every number that the merge can have given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Types that a merge adds in. Others are dequantised first.
STANDARD = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SHORT = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Rounding:
    """One order: the base in `compute`, the change in `change`, their sum in `compute`.

    Attributes
    ----------
    compute
        Type that the base is held in while it is merged.
    change
        Type that the change is rounded to before it is added; None for float32 as it comes.
    product
        Whether the product is rounded to `change` before it is scaled, too.
    """

    compute: torch.dtype
    change: torch.dtype | None = None
    product: bool = False

    def merged(self, base: Tensor, change: Tensor, stored: torch.dtype) -> Tensor:
        """Base plus change as this order gives it, in the type that it is stored in."""
        if self.change is not None:
            change = change.to(self.change)
        held = base.to(self.compute)
        # PyTorch adds in the wider of the two types, and short types in float32.
        wide = torch.promote_types(torch.promote_types(self.compute, change.dtype), torch.float32)
        return (held.to(wide) + change.to(wide)).to(self.compute).to(stored)

    @property
    def text(self) -> str:
        """In words."""
        parts = [f"base in {_name(self.compute)}"]
        if self.product:
            parts.append(f"product and change rounded to {_name(self.change)}")
        elif self.change is not None:
            parts.append(f"change rounded to {_name(self.change)} before it is added")
        return ", ".join(parts)


def roundings(base: torch.dtype, stored: torch.dtype, adapter: torch.dtype) -> list[Rounding]:
    """Orders in which a merge of these types may have been computed, the usual one first.

    PEFT adds the float32 product in place; its safe_merge, and its embeddings, round the product
    to the base's type first; an adapter that is held in a short type rounds it to that type; on an
    accelerator the product is rounded before it is scaled, too. The model may have been loaded in
    the type that it was stored in, in the type that it is stored in now, or in float32.

    Examples
    --------
    >>> bf16 = torch.bfloat16
    >>> [rounding.text for rounding in roundings(bf16, bf16, torch.float32)]
    ['base in bfloat16', 'base in bfloat16, change rounded to bfloat16 before it is added']
    """
    first = base if base in STANDARD else torch.float32
    computes = dict.fromkeys((first, stored))
    if first != stored:
        computes[torch.float32] = None
    found: dict[Rounding, None] = {}
    for compute in computes:
        shorts = dict.fromkeys(dtype for dtype in (compute, adapter) if dtype in _SHORT)
        found[Rounding(compute)] = None
        for short in shorts:
            found[Rounding(compute, short)] = None
        for short in shorts:
            if short == adapter:
                found[Rounding(compute, short, product=True)] = None
    return list(found)


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
