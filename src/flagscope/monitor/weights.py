"""A model's weights as plain tensors, whole on the process that measures, and their norms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flagscope.checkpoint.wrapper_prefixes import visible_names
from flagscope.monitor.processes import measures_here

_NUMBERED = re.compile(r"(?:^|.*?\.)\d+(?=\.)")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types whose norms PyTorch defines; those of others, such as float8, it does not."""


def whole_state(model: nn.Module) -> dict[str, Any] | None:
    """The state dict of a model, without what wrappers put into its names.

    Tensors that are spread over processes (`DTensor`, of `fully_shard`) are gathered one after the
    other. That is a collective: all ranks have to call this at the same step.

    Returns
    -------
    dict or None
        Live tensors, not copies, of what each process holds whole; gathered ones lie in CPU memory.
        None on ranks that do not measure.
    """
    here = measures_here()
    state = model.state_dict()
    for name, tensor in state.items():
        gather = getattr(tensor, "full_tensor", None)
        if gather is not None:
            whole = gather()  # on all ranks, also on those that drop it
            state[name] = whole.cpu() if here else None
    return {name: state[given] for name, given in visible_names(state).items()} if here else None


def trainable_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that the training may change."""
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    shown = visible_names(model.state_dict(keep_vars=True))
    return frozenset(name for name, given in shown.items() if given in names)


def norms_of(state: Mapping[str, Any]) -> dict[str, float]:
    """Frobenius norms of the floating-point tensors, summed in float64.

    Examples
    --------
    >>> norms_of({"fc.weight": torch.ones(2, 2), "steps": torch.tensor(3)})
    {'fc.weight': 2.0}
    """
    return {
        name: float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and tensor.dtype in FLOATS and tensor.numel()
    }


def block_of(name: str) -> str:
    """The block that a tensor belongs to: its name up to the first number, or its module.

    Examples
    --------
    >>> block_of("transformer.h.0.attn.c_attn.weight"), block_of("lm_head.weight")
    ('transformer.h.0', 'lm_head')
    """
    numbered = _NUMBERED.match(name)
    return numbered[0] if numbered else name.rpartition(".")[0]


def block_norms(norms: Mapping[str, float]) -> dict[str, float]:
    """Norm of each block, of all of its tensors together."""
    blocks: dict[str, list[float]] = {}
    for name, norm in norms.items():
        blocks.setdefault(block_of(name), []).append(norm)
    # hypot of NaN and infinity is infinite; a sum of squares keeps the NaN.
    return {block: math.sqrt(sum(x * x for x in values)) for block, values in blocks.items()}
