"""Rank rules: how many singular directions of a map count.

A stored matrix almost never has an exact rank below full. Four rules answer different questions:
`numerical` asks which singular values stand above storage noise and rounding, `participation`
how many directions carry the map, `energy` how many are needed for a share of its energy, and
`fixed` takes the caller's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry.ranks import (
    checked_fraction,
    energy_rank,
    numerical_rank,
    participation_ratio,
)


@dataclass(frozen=True)
class RankRule:
    """How to choose the dimension of a write or read space.

    Attributes
    ----------
    kind
        "participation": the participation ratio, rounded. "numerical": all values above noise.
        "energy": the fewest values with a share of the energy. "fixed": a given number.
    value
        The share for "energy", the number for "fixed"; otherwise None.

    Notes
    -----
    Every rule gives at least 1, and never more than the numerical rank: directions below noise
    and rounding mean nothing. A map whose numerical rank is 0 has rank 0 by every rule.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import RankRule
    >>> rule = RankRule.parse("energy:0.9")
    >>> rule.rank(torch.tensor([3.0, 1.0, 0.1]), shape=(3, 3))
    2
    >>> str(RankRule.parse("participation"))
    'participation'
    """

    kind: Literal["participation", "numerical", "energy", "fixed"]
    value: float | None = None

    def __post_init__(self) -> None:
        if self.kind in ("participation", "numerical"):
            if self.value is not None:
                raise InputError(
                    f"the rank rule {self.kind!r} takes no value, but got {self.value!r}",
                    hint=f"write {self.kind!r} alone",
                )
        elif self.kind == "energy":
            checked_fraction(self.value)
        elif self.kind == "fixed":
            if self.value is None or self.value < 1 or not float(self.value).is_integer():
                raise InputError(
                    f"the rank rule 'fixed' needs a positive whole number, not {self.value!r}",
                    hint="write for example 'fixed:8'",
                )
        else:
            raise InputError(f"unknown rank rule {self.kind!r}", hint=_RULES)

    @classmethod
    def parse(cls, text: str) -> RankRule:
        """The rule written as "participation", "numerical", "energy:0.9" or "fixed:8"."""
        kind, _, value = text.strip().partition(":")
        if kind not in ("participation", "numerical", "energy", "fixed"):
            raise InputError(f"unknown rank rule {text!r}", hint=_RULES)
        try:
            return cls(kind, float(value) if value else None)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"the value of the rank rule {text!r} is not a number", hint=_RULES
            ) from None

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}:{self.value:g}"

    def rank(
        self,
        singular_values: Float[Tensor, " n"],
        *,
        shape: tuple[int, int],
        noise: float = 0.0,
        gram: bool = False,
    ) -> int:
        """The rank of one map. Arguments as for `numerical_rank`."""
        if isinstance(singular_values, Tensor) and singular_values.ndim != 1:
            raise InputError(
                f"singular_values has shape {tuple(singular_values.shape)}; expected one dimension",
                hint="use RankRule.ranks for a batch",
            )
        return int(self.ranks(singular_values, shape=shape, noise=noise, gram=gram))

    def ranks(
        self,
        singular_values: Float[Tensor, "*batch n"],
        *,
        shape: tuple[int, int],
        noise: float | Float[Tensor, "*batch"] = 0.0,
        gram: bool = False,
    ) -> Int[Tensor, "*batch"]:
        """The ranks of a batch of maps, int64. Arguments as for `numerical_rank`."""
        limit = numerical_rank(singular_values, shape=shape, noise=noise, gram=gram)
        if self.kind == "participation":
            chosen = participation_ratio(singular_values).round().to(torch.int64)
        elif self.kind == "energy" and self.value is not None:
            chosen = energy_rank(singular_values, fraction=self.value)
        elif self.kind == "fixed" and self.value is not None:
            chosen = torch.full_like(limit, int(self.value))
        else:
            chosen = limit
        return torch.minimum(chosen.clamp_min(1), limit)


_RULES = "the rules are participation, numerical, energy:FRACTION and fixed:RANK"
