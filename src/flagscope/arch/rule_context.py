"""Context in which a rule is applied: tensors of one layer, config, and notes."""

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
    """One layer of one stack, or everything outside of the layers.

    Parameters
    ----------
    shapes
        Shapes of all tensors of the network.
    base
        Prefix of the names of the layer's tensors.
    label, stack, layer
        Prefix of the names of its pairs, name of the stack, and number of the layer.
    known
        Sizes of axes from the config or the heads argument.
    trusted
        False if the family is only a guess.
    norms
        Whether the norms of the stream are known even so.
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
        """The first alternative whose weight exists; that of one expert if it is named."""
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
        """The maps at these places, or None if sizes remain open (see `solved_places`)."""
        return solved_places(places, self.known, self.solved)


def attempted(build: Callable[[], T], otherwise: T, context: RuleContext) -> T:
    """The result of `build`; if the family is only a guess, a contradiction becomes a note."""
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
