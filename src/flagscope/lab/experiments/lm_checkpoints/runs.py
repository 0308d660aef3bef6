"""Runs of the language-model experiment by arm and seed, and paired differences of arms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal

from flagscope.lab.experiment import Estimate, Measured
from flagscope.lab.gpt_training import TrainingRecipe
from flagscope.lab.intervals import mean_interval
from flagscope.lab.text import Task

Values = dict[str, Any]
# A number from one run; None if it is undefined.
Quantity = Callable[[Values], float | None]


@dataclass(frozen=True)
class Arm:
    """Common settings of a group of runs.

    `slow` means a thirtieth of the usual learning rate, close to gradient flow.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    task: Task = "real"
    decayed: bool = True
    slow: bool = False

    def label(self) -> str:
        """Name of the arm and its cells, for example "adamw-real-decay"."""
        decay = "decay" if self.decayed else "free"
        return f"{self.optimizer}-{self.task}-{decay}{'-slow' if self.slow else ''}"


class ArmRuns:
    """Measured cells by arm and seed."""

    def __init__(self, measured: Iterable[Measured]) -> None:
        self._by_arm: dict[Arm, dict[int, Values]] = {}
        for run in measured:
            arm = Arm(**run.cell.settings["arm"])
            self._by_arm.setdefault(arm, {})[run.cell.settings["seed"]] = with_law(run)

    def of(self, arm: Arm) -> dict[int, Values]:
        """Runs of an arm by seed."""
        return self._by_arm.get(arm, {})

    def mean(
        self, name: str, arm: Arm, quantity: Quantity, *, bounds: tuple[float, float] | None = None
    ) -> list[Estimate]:
        """Mean of a quantity over an arm's seeds; no estimate if it is never defined."""
        return _estimate(name, [quantity(values) for values in self.of(arm).values()], bounds)

    def contrast(
        self, name: str, first: Arm, second: Arm, quantity: Callable[[Values, Values], float | None]
    ) -> list[Estimate]:
        """Mean over seeds of a quantity of two runs with the same seed, and so the same start."""
        first_runs, second_runs = self.of(first), self.of(second)
        seeds = [seed for seed in first_runs if seed in second_runs]
        return _estimate(name, [quantity(first_runs[seed], second_runs[seed]) for seed in seeds])

    def difference(self, name: str, first: Arm, second: Arm, quantity: Quantity) -> list[Estimate]:
        """Mean over seeds of a quantity in the first arm minus that in the second."""
        return self.contrast(name, first, second, lambda a, b: less(quantity(a), quantity(b)))


def _estimate(
    name: str, values: Sequence[float | None], bounds: tuple[float, float] | None = None
) -> list[Estimate]:
    known = [value for value in values if value is not None]
    return [mean_interval(name, known, bounds=bounds)] if known else []


def with_law(run: Measured) -> Values:
    """The measured values, with the law's prediction for A - B at each step."""
    recipe = TrainingRecipe(**run.cell.settings["recipe"])
    return run.values | {"law": recipe.law(run.values["steps"])}


def less(a: float | None, b: float | None) -> float | None:
    """a - b, or None if either is None."""
    return None if a is None or b is None else a - b


def layer_mean(values: Values, name: str, index: int) -> float | None:
    """Mean of an observable over the layers at a checkpoint, counted from 0 or from the end."""
    known = [value for value in values["series"][name][index] if value is not None]
    return fmean(known) if known else None


def at_end(name: str) -> Quantity:
    """An observable at the last checkpoint."""
    return lambda values: layer_mean(values, name, -1)


def rise(name: str) -> Quantity:
    """An observable at the last checkpoint minus that at initialisation."""
    return lambda values: less(layer_mean(values, name, -1), layer_mean(values, name, 0))


def at_loss(values: Values, name: str, loss: float) -> float | None:
    """An observable when the held-out loss first fell to a value, interpolated linearly.

    None if the run never reached that loss, or started below it.
    """
    for (i, before), (j, after) in pairwise(enumerate(values["loss"])):
        if after <= loss < before:
            start, end = layer_mean(values, name, i), layer_mean(values, name, j)
            if start is None or end is None:
                return None
            return start + (end - start) * (before - loss) / (before - after)
    return None
