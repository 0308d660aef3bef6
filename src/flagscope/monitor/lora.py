"""LoRA factors in a state dict: which rank directions are zero, and whether they move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.lora import factor_name
from flagscope.monitor.weights import FLOATS


@dataclass(frozen=True)
class RankDirections:
    """Column i of B and row i of A, for each direction i of one module's factors.

    Attributes
    ----------
    module
        Its name, with that of the adapter.
    names
        Of A and B in the state dict.
    norms_a, norms_b
        Norms of the rows of A and of the columns of B, summed in float64.
    zero_a, zero_b
        Whether they are zero.
    """

    module: str
    names: tuple[str, str]
    norms_a: list[float]
    norms_b: list[float]
    zero_a: list[bool]
    zero_b: list[bool]


def rank_directions(state: Mapping[str, Any]) -> list[RankDirections]:
    """Those of every module that PEFT put factors next to; other factors are passed over.

    Examples
    --------
    >>> state = {"q.lora_A.default.weight": torch.ones(2, 3)}
    >>> state["q.lora_B.default.weight"] = torch.tensor([[1.0, 0.0]])
    >>> [(one.module, one.zero_a, one.zero_b) for one in rank_directions(state)]
    [('q', [False, False], [False, True])]
    """
    sides: dict[tuple[str, str], dict[str, str]] = {}
    for name in state:
        parts = factor_name(name)
        if parts is not None:
            sides.setdefault((parts.module, parts.adapter), {})[parts.side] = name
    found = []
    for (module, adapter), names in sides.items():
        if set(names) != {"A", "B"}:
            continue
        a, b = (state[names[side]] for side in "AB")
        if not (_usable(a) and _usable(b) and len(a) == b.shape[1]):
            continue
        rows, columns = a.detach().flatten(1), b.detach().transpose(0, 1).flatten(1)
        other = adapter if adapter not in ("", "default") else ""
        found.append(
            RankDirections(
                module=f"{module} ({other})" if other else module,
                names=(names["A"], names["B"]),
                norms_a=_norms(rows),
                norms_b=_norms(columns),
                zero_a=_zero(rows),
                zero_b=_zero(columns),
            )
        )
    return found


def _usable(factor: Any) -> bool:
    return isinstance(factor, Tensor) and factor.ndim >= 2 and factor.dtype in FLOATS


def _norms(rows: Tensor) -> list[float]:
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).tolist()


def _zero(rows: Tensor) -> list[bool]:
    return (~rows.any(1)).tolist()
