"""Rank rules: how many singular directions of a map count.

A stored matrix almost never has an exact rank below full. Five rules answer different questions:
`signal` asks how many directions stand out of what independent entries would give, `numerical`
which singular values stand above storage noise and rounding, `participation` how many directions
carry the map, `energy` how many are needed for a share of its energy, and `fixed` takes the
caller's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry.perturbation import NoisyMaps
from flagscope.geometry.ranks import (
    checked_fraction,
    energy_rank,
    numerical_rank,
    participation_ratio,
)


@dataclass(frozen=True)
class RankRule:
    """Rule for the dimension of a write or read space.

    Attributes
    ----------
    kind
        "signal": the values beyond the edge of the bulk of the equilibrated map, which the caller
        counts (`signal_rank`). "participation": the participation ratio, rounded. "numerical": all
        values above noise. "energy": the fewest values with a share of the energy. "fixed": a given
        number.
    value
        The share for "energy", the number for "fixed"; otherwise None.

    Notes
    -----
    No rule gives more than the numerical rank: directions below noise and rounding mean nothing.
    "signal" gives 0 where nothing stands out; all others give at least 1, but for a map whose
    numerical rank is 0.

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

    kind: Literal["signal", "participation", "numerical", "energy", "fixed"]
    value: float | None = None

    def __post_init__(self) -> None:
        if self.kind in ("signal", "participation", "numerical"):
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
        """The rule written "signal", "participation", "numerical", "energy:0.9" or "fixed:8"."""
        kind, _, value = text.strip().partition(":")
        if kind not in ("signal", "participation", "numerical", "energy", "fixed"):
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
        signal: int | None = None,
    ) -> int:
        """The rank of one map. Arguments as for `ranks`."""
        if isinstance(singular_values, Tensor) and singular_values.ndim != 1:
            raise InputError(
                f"singular_values has shape {tuple(singular_values.shape)}; expected one dimension",
                hint="use RankRule.ranks for a batch",
            )
        return int(self.ranks(singular_values, shape=shape, noise=noise, gram=gram, signal=signal))

    def ranks(
        self,
        singular_values: Float[Tensor, "*batch n"],
        *,
        shape: tuple[int, int],
        noise: float | Float[Tensor, "*batch"] = 0.0,
        gram: bool = False,
        signal: int | Int[Tensor, "*batch"] | None = None,
    ) -> Int[Tensor, "*batch"]:
        """The ranks of a batch of maps, int64.

        Parameters
        ----------
        singular_values, shape, noise, gram
            Of the maps themselves, as for `numerical_rank`.
        signal
            The signal ranks of the equilibrated maps (`signal_rank`, `signal_rank_of`). The rule
            "signal" needs them; the others do not look at them.

        Raises
        ------
        InputError
            As for `numerical_rank`; if the rule is "signal" and `signal` is missing or does not
            fit the maps.
        """
        limit = numerical_rank(singular_values, shape=shape, noise=noise, gram=gram)
        if self.kind == "signal":
            return torch.minimum(_checked_signal(signal, limit), limit)
        if self.kind == "participation":
            chosen = participation_ratio(singular_values).round().to(torch.int64)
        elif self.kind == "energy" and self.value is not None:
            chosen = energy_rank(singular_values, fraction=self.value)
        elif self.kind == "fixed" and self.value is not None:
            chosen = torch.full_like(limit, int(self.value))
        else:
            chosen = limit
        return torch.minimum(chosen.clamp_min(1), limit)


def _checked_signal(signal: int | Tensor | None, limit: Tensor) -> Int[Tensor, "*batch"]:
    if signal is None:
        raise InputError(
            "the rank rule 'signal' needs the counts of the equilibrated maps",
            hint="pass signal=flagscope.geometry.signal_rank_of(maps)",
        )
    signal = torch.as_tensor(signal, device=limit.device)
    if signal.is_floating_point() or bool((signal < 0).any()):
        raise InputError(
            "signal must hold whole numbers that are not negative",
            hint="it is the result of flagscope.geometry.signal_rank_of(maps)",
        )
    try:
        return signal.to(torch.int64).expand(limit.shape)
    except RuntimeError:
        raise InputError(
            f"signal has shape {tuple(signal.shape)}; expected {tuple(limit.shape)}",
            hint="give one number, or one for each map of the batch",
        ) from None


@dataclass(frozen=True)
class MapRanks:
    """Ranks of n maps, and the singular values they are read from.

    Attributes
    ----------
    sigma
        Singular values, descending.
    numerical, effective
        By the storage noise, and by the rule of the scan.
    participation
        Participation ratios; 0 for a map of rank 0.
    """

    sigma: Float[Tensor, "n s"]
    numerical: list[int]
    effective: list[int]
    participation: list[float]

    def whole_participation(self, i: int) -> int:
        """The participation ratio as a dimension: rounded, from 1 to the numerical rank."""
        return min(max(1, round(self.participation[i])), self.numerical[i])


def map_ranks(maps: NoisyMaps, sigma: Float[Tensor, "n s"], rule: RankRule) -> MapRanks:
    """Ranks by the storage noise and by a rule, from singular values that are roots of a Gram's."""
    noise = maps.delta.to(sigma)
    numerical = numerical_rank(sigma, shape=maps.shape, noise=noise, gram=True)
    effective = rule.ranks(sigma, shape=maps.shape, noise=noise, gram=True, signal=maps.signal)
    participation = torch.where(numerical > 0, participation_ratio(sigma), 0)
    return MapRanks(sigma, numerical.tolist(), effective.tolist(), participation.tolist())


_RULES = "the rules are signal, participation, numerical, energy:FRACTION and fixed:RANK"
