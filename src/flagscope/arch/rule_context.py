"""Where a rule is applied: the tensors of one layer, its config, and the notes to add to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flagscope.arch.config_values import Known
from flagscope.arch.map_solver import Maps, Place, Solved, solved_places
from flagscope.arch.notes import Notes
from flagscope.arch.rules import MapRule
from flagscope.errors import ArchitectureError

Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")


@dataclass(frozen=True)
class RuleContext:
    """One layer of one stack, or what lies outside of the layers.

    Parameters
    ----------
    shapes
        Of all tensors of the network.
    base
        What the names of the layer's tensors begin with.
    label, stack, layer
        What the names of its pairs begin with, the name of the stack, and the layer's number.
    known
        Sizes of axes that the config or the heads argument gives.
    trusted
        False where the family is only guessed.
    norms
        Whether the norms of the stream are known nevertheless.
    solved
        Cache of solved maps, shared by the layers of a network.
    """

    shapes: Shapes
    base: str
    label: str
    stack: str
    layer: int | None
    known: Mapping[str, Known] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    notes: Notes = field(default_factory=Notes)
    trusted: bool = True
    norms: bool = False
    solved: Solved = field(default_factory=dict)

    def locate(self, rule: MapRule, expert: int | None = None) -> Place | None:
        """The first alternative whose weight exists, of one expert if one is named."""
        for names in rule.alternatives:
            weight, bias = (
                names if expert is None else (n.replace("{expert}", str(expert)) for n in names)
            )
            shape = self.shapes.get(self.base + weight)
            if shape is not None:
                added = self.base + bias if self.base + bias in self.shapes else None
                return Place(rule, self.base + weight, shape, added)
        return None

    def tensor(self, modules: Sequence[str]) -> str | None:
        """The weight of the first of these modules that exists."""
        names = (f"{self.base}{module}.weight" for module in modules)
        return next((name for name in names if name in self.shapes), None)

    def solve(self, places: Sequence[Place]) -> Maps | None:
        """The maps at these places, or None where sizes stay open (see `solved_places`)."""
        return solved_places(places, self.known, self.solved)


def attempted(build: Callable[[], T], otherwise: T, context: RuleContext) -> T:
    """What `build` gives; where the family is only guessed, a contradiction is merely noted."""
    try:
        return build()
    except ArchitectureError as error:
        if context.trusted:
            raise
        context.notes.add(
            "left out, since shapes contradict each other or the config", context.label,
            example=str(error),
        )  # fmt: skip
        return otherwise
