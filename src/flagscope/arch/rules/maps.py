"""Rules of linear maps: names and layouts of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from flagscope.arch.layout import parse_layout
from flagscope.arch.rules.norms import norm_tensors
from flagscope.arch.rules.values import Names, Rule, known_activation, mistake
from flagscope.errors import ArchitectureError

UNFILLED = "?"
"""Placeholder in a draft for a name that its user must fill in."""

# Default output, input and batch axes of a role. The batch axis of k and v is g, the key-value
# heads, if the layout has one.
ROLE_AXES: Mapping[str, tuple[str, str, str | None]] = {
    "q": ("k", "d", "h"),
    "k": ("k", "d", "h"),
    "v": ("k", "d", "h"),
    "o": ("d", "k", "h"),
    "up": ("f", "d", None),
    "gate": ("f", "d", None),
    "down": ("d", "f", None),
    "conv": ("o", "i", None),
    "linear": ("o", "i", None),
    "compress": ("r", "d", None),
    "expand": ("x", "r", None),
}


class MapRule(Rule):
    """Where one linear map lies: the name of its module and the layout of its weight."""

    # Not a key of the file, but derived from the key of the table. No hand-written TOML file has a
    # key of this form.
    role: SkipJsonSchema[str] = Field(alias="(role)")
    modules: Names = Field(
        alias="module",
        description="Name of the module that has the weight, relative to the path of the stack "
        "(in sequences: to the root of the model); of several the first that exists counts. "
        '"{expert}" stands for the number of an expert.',
    )
    layout: str = Field(
        description='Einops pattern of the stored weight, such as "(h k) d": one axis name for '
        "each stored dimension, joined ones in parentheses, slowest first. Axes named two, three "
        "and four have that size."
    )
    out: str = Field(
        description="Output axis, where it is not that of the role: k for q, k and v, d for o and "
        "down, f for up and gate, o for conv and linear, r for compress, x for expand."
    )
    inp: str = Field(
        description="Input axis, where it is not that of the role: d for q, k, v, up, gate and "
        "compress, k for o, f for down, i for conv and linear, r for expand."
    )
    batch: str | None = Field(
        description='Axes of heads or experts, separated by blanks; "" for none. Without it h '
        "for q, k, v and o, but g for k and v where the layout has that axis, and none for others."
    )
    select: dict[str, StrictInt] = Field(
        default_factory=dict,
        description="Index along axes that hold other maps, as three = 0 for the queries in the "
        '"(three h k) d" of a fused QKV.',
    )
    norms: Names = Field(
        default=(),
        alias="norm",
        description="Name of the BatchNorm behind a convolution or a map of a sequence.",
    )
    joint: str = Field(
        default=".",
        description='What stands between the module and "weight": "_" for the in_proj_weight of '
        "torch.nn.MultiheadAttention.",
    )
    window: dict[str, str] = Field(
        default_factory=dict,
        description="Part of an axis that the map takes up, as start:stop in sizes of axes: "
        'h = ":h" or s = "s-2:s-1". For maps of several kinds behind each other along one axis.',
    )
    parameter: StrictBool = Field(
        default=False,
        description="The name is that of the weight itself, not of a module that has one; a "
        '"*" in it takes tensors numbered 0, 1, 2 … together along a new first axis.',
    )

    @field_validator("modules")
    @classmethod
    def _filled_in(cls, modules: tuple[str, ...]) -> tuple[str, ...]:
        if UNFILLED in modules:
            raise mistake(
                "still to be filled in",
                hint="write the module's name, relative to the path, in place of the question "
                "mark; leave out a block that the model does not have",
            )
        return modules

    @field_validator("layout")
    @classmethod
    def _parsed(cls, layout: str) -> str:
        try:
            parse_layout(layout)
        except ArchitectureError as error:
            raise mistake(str(error), hint=error.hint or "") from error
        return layout

    @field_validator("batch")
    @classmethod
    def _without_heads(cls, batch: str | None) -> str | None:
        return batch or None

    @model_validator(mode="after")
    def _has_its_axes(self) -> MapRule:
        axes = {name for group in parse_layout(self.layout) for name in group}
        batch = self.batch.split() if self.batch else ()
        absent = {self.out, self.inp, *self.select, *self.window, *batch} - axes
        if absent:
            raise mistake(
                f"{self.layout!r} lacks the axis {sorted(absent)[0]!r}",
                hint=f"a map of role {self.role} has output {self.out}, input {self.inp} and "
                f"batch {self.batch}; name others by out, inp and batch",
                key="layout",
            )
        return self

    def weights(self) -> tuple[str, ...]:
        """Alternative names of the weight."""
        if self.parameter:
            return self.modules
        return tuple(f"{module}{self.joint}weight" for module in self.modules)

    def biases(self) -> tuple[str, ...]:
        """Alternative names of the bias, in the same order."""
        if self.parameter:
            return tuple(f"{module}_bias" for module in self.modules)
        return tuple(f"{module}{self.joint}bias" for module in self.modules)

    @cached_property
    def form(self) -> tuple[Any, ...]:
        """All but the names: rules of equal form give equal maps on tensors of equal shape."""
        parts = (tuple(self.select.items()), tuple(self.window.items()))
        return (self.role, self.layout, self.out, self.inp, self.batch, *parts)

    @cached_property
    def alternatives(self) -> tuple[tuple[str, str], ...]:
        """Alternative names of the weight, each with that of its bias."""
        return tuple(zip(self.weights(), self.biases(), strict=True))

    def names(self) -> tuple[str, ...]:
        """All tensor names that the rule may use."""
        return (*self.weights(), *self.biases(), *norm_tensors(self.norms))


class SequenceMapRule(MapRule):
    """A map of a sequence, and what stands behind it."""

    after: str = Field(
        default="",
        description='What stands behind the map where that is not a BatchNorm of its own: "norm" '
        "for a norm that is not folded, or the name of an activation. Without it the sequence's "
        "activation.",
    )

    @field_validator("after")
    @classmethod
    def _known(cls, after: str) -> str:
        return after if after in ("", "norm") else known_activation(after)


def _in_role(value: object, role: str | Callable[[dict[str, Any]], str]) -> object:
    """A map's table with its role, and with the default axes of the role."""
    if not isinstance(value, dict):
        return value
    known = role if isinstance(role, str) else role(value)
    out, inp, batch = ROLE_AXES[known]
    if known in ("k", "v") and "g" in _axes(value):
        batch = "g"
    return {"out": out, "inp": inp, "batch": batch, **value, "(role)": known}


def _axes(table: dict[str, Any]) -> tuple[str, ...]:
    """Axes of a table's layout; empty if it is not a layout."""
    layout = table.get("layout")
    try:
        groups = parse_layout(layout) if isinstance(layout, str) else ()
    except ArchitectureError:
        return ()
    return tuple(name for group in groups for name in group)


def _sequence_role(table: dict[str, Any]) -> str:
    """Role by dimensions of the layout: linear for two, convolution for more."""
    layout = table.get("layout")
    try:
        return "linear" if isinstance(layout, str) and len(parse_layout(layout)) == 2 else "conv"
    except ArchitectureError:
        return "conv"


def role_validator(role: str | Callable[[dict[str, Any]], str]) -> BeforeValidator:
    """Validator that sets the role of a map's table."""
    return BeforeValidator(partial(_in_role, role=role))


def _labelled(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {label: _in_role(table, label if label in ("q", "k", "v") else "compress")
            for label, table in value.items()}  # fmt: skip


QueryMap = Annotated[MapRule, role_validator("q")]
KeyMap = Annotated[MapRule, role_validator("k")]
ValueMap = Annotated[MapRule, role_validator("v")]
OutputMap = Annotated[MapRule, role_validator("o")]
UpMap = Annotated[MapRule, role_validator("up")]
GateMap = Annotated[MapRule, role_validator("gate")]
DownMap = Annotated[MapRule, role_validator("down")]
ConvolutionMap = Annotated[MapRule, role_validator("conv")]
LinearMapRule = Annotated[MapRule, role_validator("linear")]
CompressMap = Annotated[MapRule, role_validator("compress")]
ExpandMap = Annotated[MapRule, role_validator("expand")]
SequenceMap = Annotated[SequenceMapRule, role_validator(_sequence_role)]
ReadMaps = Annotated[dict[str, MapRule], BeforeValidator(_labelled)]
