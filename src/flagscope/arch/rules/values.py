"""Values of family files: names, config keys with their defaults, and truth values."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictFloat,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from flagscope.arch.activations import ELEMENTWISE, HOMOGENEOUS, LINEAR

_ACTIVATIONS = LINEAR | HOMOGENEOUS | ELEMENTWISE | {"unknown", "softmax", "ssm", "ssm gate"}


class Rule(BaseModel):
    """Base of all tables of a family file: immutable, and without keys of other names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def mistake(text: str, *, hint: str, key: str = "") -> PydanticCustomError:
    """An error about a value, for a validator to raise.

    Parameters
    ----------
    text
        Message, which follows the file and the key.
    hint
        What to write instead.
    key
        Key within the validated table, if the mistake is in one of its values.
    """
    return PydanticCustomError("rule", "{text}", {"text": text, "hint": hint, "key": key})


@dataclass(frozen=True)
class Also:
    """An additional form of a value in the JSON Schema, besides the validated one."""

    form: str

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of both forms."""
        return {"anyOf": [{"type": self.form}, handler(core)]}


def _names(value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise PydanticCustomError("names_type", "a string or an array of strings")
    return tuple(names)


Names = Annotated[tuple[str, ...], BeforeValidator(_names), Also("string")]
"""A string or an array of strings: alternatives, of which the first that exists counts."""

CONFIG = Field(
    default=(),
    description="Keys of config.json, dotted where tables lie in tables; the first that is set "
    "counts.",
)


class NumberRule(Rule):
    """A number that the config says, else a default."""

    config: Names = CONFIG
    default: StrictFloat = Field(default=0.0, description="Taken where the config has no such key.")


class EpsilonRule(NumberRule):
    """What a norm adds to the variance; only 0 and the like would change a gauge."""

    default: StrictFloat = Field(default=1e-5, description="Taken where the config has no key.")


class FractionRule(NumberRule):
    """A part of a whole."""

    default: StrictFloat = Field(default=1.0, description="Taken where the config has no key.")


class ActivationRule(Rule):
    """What lies between two maps; the freedom of the neurons follows from it."""

    config: Names = CONFIG
    default: str = Field(
        default="unknown",
        description="Name of the activation where the config has no such key, such as relu, "
        "gelu_new or silu. Of an unknown one no freedom is claimed.",
        examples=sorted(_ACTIVATIONS),
    )

    @field_validator("default")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_activation(name)


class FlagRule(Rule):
    """A truth value that the config says, else a default."""

    config: Names = Field(description="Keys of config.json; the first that is set counts.")
    default: StrictBool = Field(default=False, description="Taken where the config has no key.")


def _flag(value: object) -> object:
    return {"config": (), "default": value} if isinstance(value, bool) else value


Flag = Annotated[FlagRule, BeforeValidator(_flag), Also("boolean")]
"""True, false, or the config keys that decide."""

Sizes = Annotated[
    dict[str, Names],
    Field(
        default_factory=dict,
        description="Config keys of the sizes of axes, by axis: h heads, g key-value heads, k "
        "dimensions of a head, d dimensions of the stream, f neurons. Of several keys the first "
        'that the config sets counts. A number stands for itself, as in h = "8". A condition may '
        'stand in front of a key or number: in "flag?key" the key counts only where the config '
        'sets `flag` to something other than false, 0 or nothing. So "multi_query?1" is one '
        'head where multi_query is true, and "model_type?32" the default of a config that does '
        "not name the number, but no guess for a checkpoint without a config.",
    ),
]


def known_activation(name: str) -> str:
    """The name of an activation; raises if the activation is unknown."""
    if name.lower() not in _ACTIVATIONS:
        near = difflib.get_close_matches(name.lower(), _ACTIVATIONS, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise mistake(
            f"no activation is known by the name {name!r}",
            hint=f"{meant}Known ones: {', '.join(sorted(_ACTIVATIONS))}",
        )
    return name
