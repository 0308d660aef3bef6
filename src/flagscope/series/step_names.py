"""Numbers of steps in the names of files, folders and revisions."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Unit = Literal["step", "epoch"]
_STEP = re.compile(
    r"(?:global[_-]?steps?|steps?|iter(?:ation)?s?|checkpoint|ckpt|batch)[_=-]?0*"
    r"(\d+(?:k(?![A-Za-z0-9]))?)",
    re.IGNORECASE,
)
_EPOCH = re.compile(r"epochs?[_=-]?0*(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![A-Za-z0-9.])0*(\d+)(?![A-Za-z0-9])")
_MOST_DIGITS = 15  # more is a date, a hash or nonsense, and no number of a step


class StepName(NamedTuple):
    """What a name says of the place of a checkpoint in its series."""

    number: int
    unit: Unit
    by_word: bool = True  # whether a word says that the number is a step's


def step_name(name: str) -> StepName | None:
    """The number of the step, or of the epoch, in a name; None if it says none or several.

    A number after "step", "iter", "checkpoint" or "ckpt" comes first, then one after "epoch", then
    the only number that stands alone.

    Examples
    --------
    >>> step_name("epoch=3-step=1200.ckpt")
    StepName(number=1200, unit='step', by_word=True)
    >>> step_name("stage1-step1000-tokens5B").number, step_name("epoch_3").unit, step_name("final")
    (1000, 'epoch', None)
    >>> step_name("step-10k.safetensors").number, step_name("step_10kernels").number
    (10000, 10)
    """
    units: tuple[tuple[re.Pattern[str], Unit], ...] = (
        (_STEP, "step"),
        (_EPOCH, "epoch"),
        (_NUMBER, "step"),
    )
    for pattern, unit in units:
        found = pattern.findall(name)
        if pattern is _STEP and len(found) > 1:  # checkpoint-epoch=1-step=20
            found = found[-1:]
        if len(found) == 1 and len(found[0]) <= _MOST_DIGITS:
            digits = found[0].lower().removesuffix("k")
            thousands = 1000 if len(digits) < len(found[0]) else 1
            return StepName(thousands * int(digits), unit, pattern is not _NUMBER)
    return None
