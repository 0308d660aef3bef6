"""When what is measured: fixed once, by the step number alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

# Steps are planned for this share of the budget: a measurement that takes two fifths longer than at
# the calibration still fits.
_PLANNED = 0.7
# A network of which the whole can be measured every so many steps within the budget is measured
# whole; larger ones part by part, so that something is seen at least as often.
_OFTEN = 1000


@dataclass(frozen=True)
class Part:
    """What one measurement looks at.

    Attributes
    ----------
    name
        "all", a kind of pair, "heads", "residual" or "health".
    only, kinds
        As `flagscope.scan` takes them.
    """

    name: str
    only: tuple[Any, ...]
    kinds: tuple[Any, ...] | None


@dataclass(frozen=True)
class Schedule:
    """A measurement every so many steps, of the parts in turn.

    Attributes
    ----------
    every
        Steps between two measurements.
    parts
        What is measured, one part after the other.
    seconds
        How long each part took at the calibration; empty where there was none.
    after
        Step of the calibration: the first measurement comes later.

    Examples
    --------
    >>> schedule = Schedule(100, (Part("qk", ("pairs",), ("qk",)), Part("heads", ("heads",), None)))
    >>> [schedule.part_at(step) and schedule.part_at(step).name for step in (0, 50, 100, 200)]
    ['qk', None, 'heads', 'qk']
    >>> print(schedule)
    every 100 steps, in turn: qk, heads
    """

    every: int
    parts: tuple[Part, ...]
    seconds: tuple[float, ...] = ()
    after: int = -1

    def part_at(self, step: int) -> Part | None:
        """The part that is measured after so many steps, if any."""
        if step % self.every or step <= self.after:
            return None
        return self.parts[step // self.every % len(self.parts)]

    def __str__(self) -> str:
        names = [part.name for part in self.parts]
        turn = "all at once" if len(names) == 1 else f"in turn: {', '.join(names)}"
        return f"every {self.every:,} steps, {turn}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint of the training."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Back from `to_dict`, also after a way through JSON."""
        parts = tuple(
            Part(
                part["name"],
                tuple(part["only"]),
                None if part["kinds"] is None else tuple(part["kinds"]),
            )
            for part in values["parts"]
        )
        return cls(values["every"], parts, tuple(values["seconds"]), values["after"])


def fitted_schedule(
    whole: Part,
    parts: Sequence[Part],
    seconds: Sequence[float],
    *,
    step_seconds: float,
    budget: float,
    after: int,
) -> Schedule:
    """The schedule whose measurements take a share `budget` of the training time.

    The whole is measured at once where that comes at least every 1,000 steps, else the parts in
    turn. The slowest part sets the pace, so that none has to wait for the others' savings.

    Parameters
    ----------
    whole, parts
        What can be measured. The whole is taken to cost what its parts do together.
    seconds
        How long each part takes.
    step_seconds
        How long a step of the training takes.
    budget
        Share of the training time.
    after
        Step of the calibration.

    Examples
    --------
    >>> whole, qk, ov = (Part(name, ("pairs",), None) for name in ("all", "qk", "ov"))
    >>> print(fitted_schedule(whole, [qk, ov], [1, 3], step_seconds=1, budget=0.01, after=9))
    every 572 steps, all at once
    >>> print(fitted_schedule(whole, [qk, ov], [5, 9], step_seconds=1, budget=0.01, after=9))
    every 1,286 steps, in turn: qk, ov
    """
    steps = _PLANNED * budget * step_seconds
    every = max(1, math.ceil(sum(seconds) / steps))
    if len(parts) == 1 or every <= _OFTEN:
        return Schedule(every, (whole,), (sum(seconds),), after)
    return Schedule(max(1, math.ceil(max(seconds) / steps)), tuple(parts), tuple(seconds), after)


class Budget:
    """What measurements took of the time since the first of them.

    Parameters
    ----------
    share
        Share of the training time that they may take.
    start
        Time now, in seconds.
    """

    def __init__(self, share: float, *, start: float) -> None:
        self._share, self._start, self._spent = share, start, 0.0

    def allows(self, now: float) -> bool:
        """Whether the measurements so far have kept to the share, so that one more may be made.

        Examples
        --------
        >>> budget = Budget(0.01, start=0.0)
        >>> budget.spend(2.0)
        >>> budget.allows(101.0), budget.allows(300.0)
        (False, True)
        """
        return self._spent <= self._share * (now - self._start - self._spent)

    def spend(self, seconds: float) -> None:
        """Enter a measurement."""
        self._spent += seconds
