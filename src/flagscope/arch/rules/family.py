"""Rules of a model family, as in its file: stacks of layers, sequences, chains."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictBool, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from flagscope.arch.rules.blocks import AttentionRule, LatentRule, MlpRule
from flagscope.arch.rules.maps import ConvolutionMap, LinearMapRule, MapRule, SequenceMap
from flagscope.arch.rules.norms import NormRule, norm_tensors
from flagscope.arch.rules.values import (
    ActivationRule,
    EpsilonRule,
    Flag,
    FlagRule,
    Names,
    Rule,
    Sizes,
    mistake,
)


class StreamRule(Rule):
    """Maps that only the residual stream connects: shortcuts, the stem and the last layer."""

    shortcut: ConvolutionMap | None = Field(
        default=None, description="A map of the stream itself, next to a block."
    )
    entry: ConvolutionMap | None = Field(
        default=None, description="The stem, named from the stack's prefix."
    )
    exit: LinearMapRule | None = Field(
        default=None, description="The last layer, named from the stack's prefix or the root."
    )


class FrameRule(Rule):
    """Where the residual stream begins and ends: the embedding, the last norm, the unembedding."""

    embedding: Names = Field(description="Its module, named from the stack's prefix.")
    unembedding: Names = Field(description="Its module, named from the root of the model.")
    root: str = Field(description="What the stack's prefix ends with, behind the root.")
    tied: Names = Field(
        default=(),
        description="Config key that says whether the unembedding is the embedding's tensor.",
    )
    norm: NormRule | None = Field(
        default=None, description="The last norm, named from the stack's prefix."
    )


class StackRule(Rule):
    """A stack of layers of one form."""

    name: str = Field(description="Such as encoder or decoder; stands in the names of pairs.")
    paths: Names = Field(
        alias="path",
        description='Where the layers lie, such as "layers.{layer}.": with a number in braces for '
        "each index and a dot at the end; whatever prefix stands in front is found.",
    )
    eps: EpsilonRule | None = Field(
        default=None, description="The eps of all norms of the stack that have none of their own."
    )
    parallel: Flag = Field(
        default=FlagRule(config=()),
        description="Whether attention and MLP read the same stream; true, false, or the config "
        "keys that say it.",
        json_schema_extra={"default": False},
    )
    depth: Names = Field(
        default=(),
        description="Config keys of the number of layers along the stream, where a checkpoint may "
        "hold others behind those.",
    )
    outside: Names = Field(
        default=(),
        description="Modules outside of the layers of which every checkpoint of the family holds "
        'tensors, named from the stack\'s prefix; "a|b" for one of several, such as the names of a '
        "tied embedding.",
    )
    sizes: Sizes
    attention: tuple[AttentionRule, ...] = Field(
        default=(), description="Attention blocks of a layer, in the order of execution."
    )
    latent: tuple[LatentRule, ...] = Field(default=(), description="Maps of low rank of a layer.")
    mlp: tuple[MlpRule, ...] = Field(default=(), description="MLP blocks, behind attention.")
    sequence: tuple[ConvolutionMap, ...] = Field(
        default=(), description="Convolutions of a block, each feeding the next."
    )
    activation: ActivationRule | None = Field(
        default=None, description="What stands between the convolutions."
    )
    stream: StreamRule | None = Field(
        default=None, description="What connects blocks of convolutions along the stream."
    )
    frame: FrameRule | None = Field(
        default=None, description="Where the residual stream begins and ends."
    )
    norms_shown: StrictBool = Field(
        default=False,
        description="The norms are known even where the family is only guessed, as in a draft.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_epsilon(cls, content: object) -> object:
        if not isinstance(content, dict) or "eps" not in content:
            return content
        return _with_epsilon(content, content["eps"])

    @field_validator("paths")
    @classmethod
    def _ends_with_a_dot(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if path and not path.endswith("."):
                raise mistake(
                    f"{path!r} must end with a dot, behind the number in braces where there are "
                    "several layers",
                    hint="as in 'encoder.layer.{layer}.'",
                )
        return paths

    @property
    def has_stream(self) -> bool:
        """Whether it is known how every block reads the residual stream (see `Stream`)."""
        blocks = [block for block in self.mlp if not block.mixes_tokens]
        every = (*self.attention, *blocks)
        return bool(blocks) and all(block.bare or _before(block.norm) for block in every)

    def maps(self) -> tuple[MapRule, ...]:
        """All maps of a layer."""
        blocks = (*self.attention, *self.mlp, *self.latent)
        shortcut = self.stream.shortcut if self.stream else None
        extra = (shortcut,) if shortcut else ()
        return (*(rule for block in blocks for rule in block.maps), *self.sequence, *extra)

    def names(self) -> frozenset[str]:
        """All tensor names of a layer, relative to its path."""
        names = {name for rule in self.maps() for name in rule.names()}
        for block in self.attention:
            names.update(norm_tensors((*block.query_norm, *block.key_norm, *block.relative)))
        for block in (*self.attention, *self.mlp, *self.latent):
            names.update(block.norm.names() if block.norm else ())
        for block in (*self.attention, *self.mlp):
            names.update(block.output_norm.names() if block.output_norm else ())
            names.update(block.output_scale)
        return frozenset(names)


def _before(norm: NormRule | None) -> bool:
    """Whether a norm precedes its readers, always or if the config says so."""
    return norm is not None and (norm.placement == "pre" or norm.pre is not None)


def _with_epsilon(table: dict[str, Any], eps: object) -> dict[str, Any]:
    """The table of a stack or block, with this eps in the tables of norms that have none."""
    filled = dict(table)
    for key, value in table.items():
        if key in ("norm", "output_norm") and isinstance(value, dict):
            filled[key] = {"eps": eps, **value}
        elif key == "frame" and isinstance(value, dict):
            filled[key] = _with_epsilon(value, eps)
        elif key in ("attention", "mlp", "latent") and isinstance(value, list):
            filled[key] = [_with_epsilon(block, eps) if isinstance(block, dict) else block
                           for block in value]  # fmt: skip
    return filled


class ChainRule(Rule):
    """A numbered sequence of layers, each feeding the next, with what lies between them."""

    activation: ActivationRule = Field(
        default_factory=ActivationRule, description="What stands between the layers."
    )


class SequenceRule(Rule):
    """Maps that follow each other, by their names in the whole model."""

    maps: tuple[SequenceMap, ...] = Field(default=(), description="The maps, in their order.")
    activation: ActivationRule = Field(
        default_factory=ActivationRule, description="What stands behind maps that do not say it."
    )


class Family(Rule):
    """A model family: what its tensors are called and how they lie."""

    name: str = Field(description="Name of the family; of a shipped one that of its file.")
    title: str = Field(description="Name of the models, for people.")
    extends: str | None = Field(
        default=None,
        description="Name of a shipped family; what this file does not say is as in that one, but "
        "for name, title, model_types, requires and prefixes.",
    )
    unnamed: StrictBool = Field(
        default=False,
        description="Another family uses the same tensor names, so that names alone do not "
        "identify this one.",
    )
    model_types: Names = Field(
        default=(), description="Values of the config's model_type; each belongs to one family."
    )
    requires: Names = Field(
        default=(),
        description="Tensors that the first layer must have for the family to be found by names.",
    )
    prefixes: Names = Field(
        default=(),
        description="Prefixes in front of the path that speak for this family where another one "
        "fits as well.",
    )
    ignore: Names = Field(
        default=(), description="Patterns of tensors that are not weights, with * for any letters."
    )
    sizes: Sizes
    stacks: tuple[StackRule, ...] = Field(default=(), description="Stacks of layers.")
    chain: ChainRule | None = Field(
        default=None, description="Numbered layers whose dimensions chain, whatever their names."
    )
    sequences: tuple[SequenceRule, ...] = Field(
        default=(), description="Maps that follow each other, as in nn.Sequential."
    )
    # Not a key of the file: the path of a user's own file.
    file: SkipJsonSchema[str | None] = Field(default=None, alias="(file)")

    @model_validator(mode="after")
    def _says_something(self) -> Family:
        if not self.stacks and self.chain is None and not self.sequences:
            raise mistake(
                "neither stacks nor sequences nor a chain",
                hint="add a [[stacks]], [[sequences]] or [chain] table",
            )
        return self

    @property
    def named(self) -> bool:
        """Whether its tensor names are unique to it, so that they identify it."""
        return not self.unnamed and self.extends is None
