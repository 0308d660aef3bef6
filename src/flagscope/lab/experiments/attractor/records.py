"""Record of one seed of a training with ridge, and the accuracy of the closed forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flagscope.lab.experiments.attractor.limits import (
    surviving_value,
)

# Singular values of the target.
STRENGTHS = (1.0, 0.8, 0.6, 0.4, 0.2)
# For singular values, imbalance and ridge against closed forms: thousands of sums in float64.
ROUND_OFF = 1e-9
# For sines: round-off divided by the gap between survivors and the dead.
SINE = 1e-7
SOURCE = "theory, section 7"
DERIVED = "derived in the module"


@dataclass(frozen=True)
class Run:
    """One seed of one cell."""

    settings: dict[str, Any]
    values: dict[str, Any]
    strength: float

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def survivors(self) -> list[float]:
        """Closed form of the singular values left, descending, for the strengths of the target."""
        s = self.settings
        values = [surviving_value(t, s["decay"], s["depth"]) for t in STRENGTHS]
        return [value for value in values if value is not None]

    @property
    def all_ranks(self) -> list[int]:
        """Ranks of all layers and of the product."""
        return [*self["ranks"], self["rank_of_product"]]
