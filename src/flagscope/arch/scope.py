"""Where a rule is applied: the tensors of one layer, what the config says, and notes to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from flagscope.arch.graph import Norm, NormKind
from flagscope.arch.layout import LayoutMismatchError, axis_sizes, parse_layout
from flagscope.arch.limits import LARGEST_NUMBER, brief
from flagscope.arch.maps import LinearMap, solved_map
from flagscope.arch.rules import (
    ActivationRule,
    FlagRule,
    MapRule,
    NormRule,
    NumberRule,
    norm_tensor,
)
from flagscope.errors import ArchitectureError

_NORM_KEYS = ("weight", "bias", "running_mean", "running_var")
Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")


class Notes:
    """Notes in plain words; one that recurs is written once, with its places.

    Examples
    --------
    >>> notes = Notes()
    >>> notes.add("no gate", "layer.0")
    >>> notes.add("no gate", "layer.1")
    >>> notes.texts()
    ('no gate (layer.0, layer.1)',)
    """

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._examples: dict[str, str] = {}

    def add(self, text: str, place: str | None = None, *, example: str | None = None) -> None:
        """Take a note, at a place if it is about one; of several examples the first is kept."""
        if example is not None:
            self._examples.setdefault(text, f": {example}")
        places = self._places.setdefault(text, [])
        if place is not None and place not in places:
            places.append(place)

    def texts(self) -> tuple[str, ...]:
        """All notes, in the order in which they were first taken."""
        return tuple(
            text + (f" ({_shortened(places)})" if places else "") + self._examples.get(text, "")
            for text, places in self._places.items()
        )


def _shortened(places: Sequence[str]) -> str:
    if len(places) <= 4:
        return ", ".join(places)
    return f"{places[0]}, {places[1]}, … {places[-1]}: {len(places)} places"


@dataclass(frozen=True)
class Known:
    """A size and who says so; one for each stage where the config lists several."""

    value: int
    origin: str
    stages: tuple[int, ...] = ()

    def at(self, stage: int) -> Known:
        """The size in one stage."""
        if not self.stages:
            return self
        return Known(self.stages[min(stage, len(self.stages) - 1)], f"{self.origin}[{stage}]")


@dataclass(frozen=True)
class Place:
    """A map that was found: its rule, and the names and shape of its tensors."""

    rule: MapRule
    tensor: str
    shape: tuple[int, ...]
    bias: str | None

    @property
    def layout(self) -> str:
        """The rule's; a convolution with a kernel of 1 × 1 is a linear map written otherwise."""
        axes = len(parse_layout(self.rule.layout))
        pointwise = len(self.shape) == axes + 2 and self.shape[axes:] == (1, 1)
        return f"{self.rule.layout} y x" if pointwise else self.rule.layout


Solved = dict[tuple[Any, ...], dict[str, LinearMap] | None]
"""Maps by role, by the known sizes and the forms and shapes of the tensors that they lie in."""


@dataclass(frozen=True)
class Scope:
    """One layer of one stack. `trusted` is false where the family is only guessed; `norms` says
    whether the norms of the stream are known nevertheless.

    Scopes of one network share `solved`, what was worked out before.
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

    @cached_property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """The known axis sizes."""
        return tuple((axis, one.value) for axis, one in self.known.items())

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

    def norm(self, rule: NormRule | None) -> Norm | None:
        """A norm of the stream, if its tensors exist."""
        if rule is None or (rule.not_first and self.layer == 0):
            return None
        kind: NormKind = self._norm_kind(rule)
        offset = rule.offset + config_flag(rule.less_one, self.config)
        eps = float(config_value(rule.eps, self.config))
        placement = self._placement(rule)
        if rule.no_tensors:
            return Norm(
                name=self.base + rule.modules[0], kind=kind, gain=None, bias=None, mean=None,
                variance=None, eps=eps, offset=offset, placement=placement,
            )  # fmt: skip
        return self.norm_of(
            rule.modules, kind=kind, eps=eps, offset=offset, placement=placement, stored=rule.stored
        )

    def _norm_kind(self, rule: NormRule) -> NormKind:
        if rule.kind == "by_bias":
            bias = rule.stored[1]
            biases = (norm_tensor(self.base + module, bias) for module in rule.modules)
            return "layernorm" if any(name in self.shapes for name in biases) else "rmsnorm"
        return rule.kind  # pyright: ignore[reportReturnType] (checked by the reader)

    def _placement(self, rule: NormRule) -> str:
        if rule.pre is not None and not config_truth(rule.pre, self.config):
            return "post"
        if rule.post is not None and config_truth(rule.post, self.config):
            return "post"
        return "pre" if rule.pre is not None or rule.post is not None else rule.placement

    def scale(self, names: Sequence[str]) -> Norm | None:
        """The vector that multiplies what a block adds to the stream, if there is one."""
        for name in names:
            if self.base + name in self.shapes:
                return Norm(
                    name=self.base + name, kind="scale", gain=self.base + name, bias=None,
                    mean=None, variance=None, eps=0.0, offset=0.0, placement="map",
                    shape=self.shapes[self.base + name],
                )  # fmt: skip
        return None

    def norm_of(
        self,
        modules: Sequence[str],
        *,
        kind: NormKind,
        placement: str,
        eps: float = 1e-5,
        offset: float = 0.0,
        stored: tuple[str, ...] = ("weight", "bias"),
    ) -> Norm | None:
        """The norm whose module is the first of these that has a tensor."""
        for module in modules:
            names = {
                key: norm_tensor(self.base + module, called)
                for key, called in zip(_NORM_KEYS, (*stored, *_NORM_KEYS[2:]), strict=True)
            }
            tensors = {key: name for key, name in names.items() if name in self.shapes}
            if tensors:
                name = self.base + module.removesuffix("_")
                return Norm(
                    name=name, kind=kind, gain=tensors.get("weight"),
                    bias=tensors.get("bias"), mean=tensors.get("running_mean"),
                    variance=tensors.get("running_var"), eps=eps, offset=offset,
                    placement=placement, shape=self.shapes.get(tensors.get("weight", "")),
                )  # fmt: skip
        return None

    def solve(self, places: Sequence[Place]) -> dict[str, LinearMap] | None:
        """Maps by role, or None where sizes stay open.

        Layers and experts are mostly alike, and differ in nothing but names: what was solved for
        one is taken for the others.

        Raises
        ------
        ArchitectureError
            If a tensor's shape contradicts the config, the heads argument or another tensor.
        """
        key = (self.sizes, tuple((place.rule.form, place.shape) for place in places))
        if key not in self.solved:
            self.solved[key] = self._solution(places)
        known = self.solved[key]
        if known is None:
            return None
        return {
            place.rule.role: known[place.rule.role].moved(place.tensor, place.bias)
            for place in places
        }

    def _solution(self, places: Sequence[Place]) -> dict[str, LinearMap] | None:
        sizes = dict(self.sizes)
        origins = {axis: one.origin for axis, one in self.known.items()}
        complete, found = False, -1
        while not complete and len(sizes) > found:
            complete, found = True, len(sizes)
            for place in places:
                groups = parse_layout(place.layout)
                try:
                    solved, whole = axis_sizes(groups, place.shape, sizes)
                except LayoutMismatchError as error:
                    raise self._mismatch(place, error, origins) from None
                for axis, size in solved.items():
                    origins.setdefault(axis, f"tensor {place.tensor!r}")
                    sizes.setdefault(axis, size)
                complete = complete and whole
        if not complete:
            return None
        return {place.rule.role: one_map(place, sizes) for place in places}

    def _mismatch(
        self, place: Place, error: Exception, origins: Mapping[str, str]
    ) -> ArchitectureError:
        axes = [axis for group in parse_layout(place.layout) for axis in group]
        told = [f"{axis} from {origins[axis]}" for axis in axes if axis in origins]
        return ArchitectureError(
            f"tensor {place.tensor!r} of shape {place.shape} does not fit {place.layout!r}: "
            f"{error}" + (f" ({'; '.join(told)})" if told else ""),
            hint="is this the config of this checkpoint? Give another one (--config F), the number "
            "of heads (--heads N) or another family (--family NAME)",
        )


def attempted(build: Callable[[], T], otherwise: T, scope: Scope) -> T:
    """What `build` gives; where the family is only guessed, a contradiction is merely noted."""
    try:
        return build()
    except ArchitectureError as error:
        if scope.trusted:
            raise
        scope.notes.add(
            "left out, since shapes contradict each other or the config", scope.label,
            example=str(error),
        )  # fmt: skip
        return otherwise


def one_map(place: Place, sizes: Mapping[str, int]) -> LinearMap:
    """The map at a place, its axis sizes solved."""
    rule = place.rule
    return solved_map(
        role=rule.role, tensor=place.tensor, shape=place.shape, layout=place.layout, out=rule.out,
        inp=rule.inp, known=sizes, select=rule.select, batch=rule.batch, bias=place.bias,
        window=rule.window,
    )  # fmt: skip


def config_entry(config: Mapping[str, Any] | None, paths: Sequence[str]) -> tuple[str, Any] | None:
    """The first dotted path that the config sets to something other than null, and its value."""
    for path in paths:
        value: Any = config or {}
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return path, value
    return None


def config_flag(paths: Sequence[str], config: Mapping[str, Any] | None) -> bool:
    """Whether the config says yes at the first of these paths that it sets."""
    entry = config_entry(config, paths)
    return entry is not None and bool(entry[1])


def config_truth(rule: FlagRule, config: Mapping[str, Any] | None) -> bool:
    """The truth value that the config says, else the rule's default."""
    entry = config_entry(config, rule.config)
    return rule.default if entry is None else bool(entry[1])


def config_value(rule: NumberRule | ActivationRule, config: Mapping[str, Any] | None) -> Any:
    """What the config says, else the rule's default.

    Raises
    ------
    ArchitectureError
        If the config holds another type than the default has.
    """
    entry = config_entry(config, rule.config)
    if entry is None:
        return rule.default
    path, value = entry
    expected = str if isinstance(rule.default, str) else (int, float)
    if isinstance(value, bool) or not isinstance(value, expected):
        kind = "a name" if expected is str else "a number"
        raise ArchitectureError(
            f"config key {path!r}: expected {kind}, got {brief(value)}", hint="correct the config"
        )
    # Neither NaN nor infinity, nor an integer of more digits than any size has.
    if not isinstance(value, str) and not abs(value) <= LARGEST_NUMBER:
        raise ArchitectureError(
            f"config key {path!r}: expected a number up to {LARGEST_NUMBER:g}, got {brief(value)}",
            hint="correct the config",
        )
    return value
