"""Records of a series of LoRA adapters: what their factors alone say, step by step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flagscope.records.comparison.adapter_pairs import AdapterModule
from flagscope.records.literals import Label
from flagscope.records.record import Record

AdapterObservable = Literal[
    "norm",
    "leading",
    "leading_share",
    "leading_ratio",
    "used_rank",
    "signal_rank",
    "participation",
    "space_kept",
    "zero_directions",
    "drift",
]
ADAPTER_LABELS: dict[AdapterObservable, Label] = {
    "norm": "functional",
    "leading": "functional",
    "leading_share": "functional",
    "leading_ratio": "functional",
    "used_rank": "functional",
    "signal_rank": "gauge",
    "participation": "functional",
    "space_kept": "functional",
    "zero_directions": "gauge",
    "drift": "gauge",
}
"""What B → B G, A → G⁻¹ A leaves (functional) or moves (gauge)."""

LEAST_MODULES = 4
"""Modules with a change that a step needs before any of them is called a spike."""
STILL_INTERVALS = 2
"""Intervals in which the training moves while a direction that is still, and not zero, does not."""

DeadKind = Literal["deadlock", "zero", "still"]


class DeadDirections(Record):
    """Rank directions of one module, column i of B and row i of A, that do not take part."""

    kind: DeadKind = Field(
        description="deadlock: column and row are zero, so the gradient of both is zero. zero: one "
        "of them is, at each step from `since` on, while the training moved. still: neither of "
        "them changed from `since` on, while other factors of the adapter did."
    )
    directions: list[int] = Field(description="Their numbers, from 0.")
    since: str = Field(description="Name of the step from which on it is so, to the last.")


class AdapterNumber(Record):
    """One number of one module's change over the steps of a series."""

    observable: AdapterObservable = Field(
        description="norm: ‖ΔW‖_F. leading: its largest singular value σ₁. leading_share: "
        "σ₁²/‖ΔW‖². leading_ratio: σ₁ over the median σ₁ of the other modules of the step. "
        "used_rank: singular values above the rounding of the factors as stored. signal_rank: "
        "directions of the factor that starts at zero that stand out of independent entries, both "
        "of its own and of a gradient from which it came; null where fewer than two are used. "
        "participation: (Σσ²)²/Σσ⁴. space_kept: mean squared cosine of the space of the factor "
        "that starts random with its first. zero_directions: directions of which a column of B or "
        "a row of A is zero. drift: ‖F - F₀‖/‖F₀‖ of the factor F that starts random."
    )
    label: Label = Field(
        description="Whether B → B G, A → G⁻¹ A leaves the number (functional) or moves it (gauge)."
    )
    values: list[float | None] = Field(description="One for each step; null where there is none.")


class AdapterCurves(Record):
    """One module of a series of adapters: its change ΔW = s·B A over the steps."""

    run: str | None = Field(
        default=None, description="Of several trainings, that whose steps the lists are about."
    )
    module: str = Field(description="Name in the adapter, without PEFT's prefix.")
    random: Literal["lora_A", "lora_B"] = Field(description="The factor that starts random.")
    rank: list[int | None] = Field(description="Columns of B at each step.")
    scaling: list[float | None] = Field(description="s = α/r, or α/√r if rank stabilised.")
    singular_values: list[list[float]] = Field(
        description="Of ΔW at each step, the largest 16, descending; empty where there is none. "
        "Functional."
    )
    numbers: list[AdapterNumber]
    spike_since: str | None = Field(
        description="Name of the step from which on, to the last, one direction of the module "
        "stands out of the other modules; null if it does not."
    )
    dead: list[DeadDirections] = Field(description="Directions that are dead at the last step.")

    def values(self, observable: AdapterObservable) -> list[float | None]:
        """Values of one number; empty if there is none."""
        return next((one.values for one in self.numbers if one.observable == observable), [])


class AdapterStepModule(Record):
    """One module of an adapter at one step; kept in a store, not published."""

    change: AdapterModule
    random: Literal["lora_A", "lora_B"]
    signal_rank: int | None = Field(description="Null below two used directions.")
    zero_a: list[int] = Field(description="Rows of A that are zero.")
    zero_b: list[int] = Field(description="Columns of B that are zero.")
    digests: list[str] = Field(description="Of column and row of each direction, as stored.")
    drift: float | None = Field(description="Null where the first step has no such factor.")
    space_kept: float | None


class AdapterStep(Record):
    """An adapter at one step; kept in a store, not published."""

    modules: list[AdapterStepModule]
    said: list[str] = Field(description="What was not measured, in words.")
