"""Rules of norms and of rotary embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, StrictFloat, field_validator

from flagscope.arch.rules.values import (
    EpsilonRule,
    FlagRule,
    FractionRule,
    Names,
    NumberRule,
    Rule,
    mistake,
)

Placement = Literal["pre", "post", "map"]


class NormRule(Rule):
    """A norm of the residual stream: the name of its module and what it computes."""

    modules: Names = Field(
        alias="module",
        description="Name of the module, relative to the path of the stack; of several the first "
        'that exists counts. One that ends with "_" stands in front of "weight" and "bias" '
        "without a dot, where a norm lies in the module of its reader.",
    )
    kind: Literal["layernorm", "rmsnorm", "batchnorm", "by_bias"] = Field(
        description="What it computes; by_bias: a LayerNorm if it has a bias, else an RMSNorm."
    )
    eps: EpsilonRule = Field(
        default_factory=EpsilonRule,
        description="What is added to the variance; without it the stack's eps, else 1e-5.",
    )
    offset: StrictFloat = Field(
        default=0.0, description="Added to the stored gain: 1.0 where gains are stored less one."
    )
    placement: Placement = Field(
        default="pre",
        description="pre in front of the block, post behind the sum with the stream, map behind a "
        "map.",
    )
    no_tensors: StrictBool = Field(default=False, description="The norm has neither gain nor bias.")
    pre: FlagRule | None = Field(
        default=None, description="Config keys that say that it stands in front of the block."
    )
    post: FlagRule | None = Field(
        default=None, description="Config keys that say that it stands behind the sum."
    )
    not_first: StrictBool = Field(
        default=False,
        description="It is missing in the first layer, which reads the bare stream.",
    )
    less_one: Names = Field(
        default=(), description="Config keys that say that gains are stored less one."
    )
    stored: Names = Field(
        default=("weight", "bias"),
        description='What its gain and its bias are called, as in ["scale", "shift"].',
    )

    @field_validator("stored")
    @classmethod
    def _two(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) != 2:
            raise mistake(
                f"expected the names of the gain and of the bias, got {names!r}",
                hint='as in stored = ["scale", "shift"]',
            )
        return names

    def names(self) -> tuple[str, ...]:
        """All tensor names that the norm may have."""
        return norm_tensors(self.modules, (*self.stored, "running_mean", "running_var"))


class OutputNormRule(NormRule):
    """A norm of what a block adds to the stream."""

    placement: Placement = Field(
        default="map", description="map behind the last map of the block, before the sum."
    )


class RotaryRule(Rule):
    """A rotary position embedding: its layout and the part of a head that it turns."""

    layout: Literal["half", "interleaved"] = Field(
        description="Which dimensions make a plane: j and j + dims/2 (half), or neighbours "
        "(interleaved)."
    )
    fraction: FractionRule = Field(
        default_factory=FractionRule, description="Part of a head's dimensions that it turns."
    )
    dims: NumberRule | None = Field(
        default=None,
        description="Number of dimensions that it turns, where the config says that in place of "
        "the fraction.",
    )
    unless: Names = Field(
        default=(), description="Config keys that say that there is no rotary embedding."
    )
    layers: Names = Field(
        default=(),
        description="Config key that holds for each layer whether it has one: truth values, or "
        "names (see values).",
    )
    values: Names = Field(
        default=(), description="Entries of that list which say that a layer has one."
    )
    interval: NumberRule | None = Field(
        default=None,
        description="Where the list is missing or empty: every layer has one but for the last of "
        "each interval.",
    )
    interleaved: Names = Field(
        default=(), description="Config key that says whether the layout is interleaved."
    )


def norm_tensor(module: str, kind: str) -> str:
    """Name of one tensor of a norm; if it ends with "_", the tensor is in the reader's module.

    Examples
    --------
    >>> norm_tensor("ln_1", "weight"), norm_tensor("attn.qkv.layer_norm_", "bias")
    ('ln_1.weight', 'attn.qkv.layer_norm_bias')
    """
    return module + kind if module.endswith("_") else f"{module}.{kind}"


def norm_tensors(
    modules: tuple[str, ...],
    kinds: tuple[str, ...] = ("weight", "bias", "running_mean", "running_var"),
) -> tuple[str, ...]:
    """Tensor names that norms with these module names may have."""
    return tuple(norm_tensor(module, kind) for module in modules for kind in kinds)
