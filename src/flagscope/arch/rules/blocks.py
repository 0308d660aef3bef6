"""Rules of the blocks of a layer: attention, MLP, and low-rank maps."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, StrictBool, model_validator

from flagscope.arch.rules.maps import (
    CompressMap,
    DownMap,
    ExpandMap,
    GateMap,
    KeyMap,
    MapRule,
    OutputMap,
    QueryMap,
    ReadMaps,
    UpMap,
    ValueMap,
)
from flagscope.arch.rules.norms import NormRule, OutputNormRule, RotaryRule
from flagscope.arch.rules.values import ActivationRule, Names, Rule, mistake


class BlockRule(Rule):
    """What attention and MLP blocks have in common."""

    optional: StrictBool = Field(
        default=False,
        description="Not every model or layer has it; one of several forms of a block is so too.",
    )
    norm: NormRule | None = Field(
        default=None, description="The norm of the stream that belongs to the block."
    )
    bare: StrictBool = Field(
        default=False, description="The block reads the stream without a norm in front of it."
    )
    output_norm: OutputNormRule | None = Field(
        default=None, description="Normalises what the block adds to the stream."
    )
    output_scale: Names = Field(
        default=(),
        description="Name of the vector that multiplies what the block adds.",
    )


class AttentionRule(BlockRule):
    """One attention block of a layer."""

    kind: Literal["self", "cross"] = Field(
        default="self", description="Whether keys and values come from this stream or another one."
    )
    name: str = Field(
        default="",
        description="Distinguishes blocks of one kind. A named one is a further space of the block "
        "in front of it, such as the part of a head that carries the position.",
    )
    q: QueryMap = Field(description="Queries.")
    k: KeyMap = Field(description="Keys.")
    v: ValueMap | None = Field(default=None, description="Values.")
    o: OutputMap | None = Field(
        default=None, description="The output map, which writes to the stream; v and o go together."
    )
    rotary: RotaryRule | None = Field(
        default=None, description="The rotary position embedding; without it there is none."
    )
    query_norm: Names = Field(default=(), description="Name of a norm of the queries.")
    key_norm: Names = Field(default=(), description="Name of a norm of the keys.")
    relative: Names = Field(
        default=(),
        description="Name of a module of relative positions that acts on queries or keys, where "
        "there is one.",
    )
    heads_differ: StrictBool = Field(
        default=False,
        description="Heads differ in more than their weights, as by an ALiBi slope each: they may "
        "not trade places.",
    )
    normalised: Names = Field(
        default=(),
        description="Config keys that say that queries and keys behind the rotary embedding are "
        "divided by their norm, by a norm without tensors.",
    )
    clipped: Names = Field(
        default=(),
        description="Config keys that say that queries, keys and values are clipped to a range.",
    )
    spaces: Names = Field(
        default=("q", "k", "v", "o"),
        description="Maps that face the residual stream; fewer where a latent space lies between.",
    )
    reads: ReadMaps = Field(
        default_factory=dict,
        description="Further maps that read the stream, by label, such as those into a latent "
        "space.",
    )

    @model_validator(mode="after")
    def _values_with_output(self) -> AttentionRule:
        if (self.v is None) != (self.o is None):
            key = "v" if self.v is None else "o"
            raise mistake(f"key {key!r} is missing", hint=f"add {key} to this table")
        return self

    @cached_property
    def maps(self) -> tuple[MapRule, ...]:
        """Queries, keys, values and output, those that the block has."""
        return tuple(rule for rule in (self.q, self.k, self.v, self.o) if rule is not None)


class MlpRule(BlockRule):
    """One MLP block of a layer; gated if it has a gate, one for each expert if it has those."""

    name: str = Field(default="mlp", description="Stands in the names of its pairs.")
    gate: GateMap | None = Field(
        default=None, description="The map whose activation multiplies what `up` gives."
    )
    up: UpMap = Field(description="The map into the neurons.")
    down: DownMap = Field(description="The map out of the neurons, which writes to the stream.")
    activation: ActivationRule = Field(
        default_factory=ActivationRule,
        description="What stands between up and down, or behind the gate.",
    )
    mixes_tokens: StrictBool = Field(
        default=False,
        description="It mixes tokens, and neither reads nor writes channels of the stream.",
    )
    bounded: StrictBool = Field(
        default=False, description="Gate and up are clipped or shifted before they are multiplied."
    )

    @cached_property
    def maps(self) -> tuple[MapRule, ...]:
        """Up, down, and the gate if there is one."""
        return (self.up, self.down) if self.gate is None else (self.up, self.down, self.gate)

    @property
    def experts(self) -> bool:
        """Whether this is a block of experts."""
        return any("{expert}" in name for rule in self.maps for name in rule.modules) or any(
            rule.batch == "e" for rule in self.maps
        )


class LatentRule(Rule):
    """A map of low rank in two factors with a norm between them, as in latent attention."""

    name: str = Field(description="Stands in the names of its pairs.")
    compress: CompressMap = Field(description="The first factor, into the latent space.")
    expand: ExpandMap = Field(description="The second factor, out of the latent space.")
    norm: NormRule = Field(description="The norm between the two.")

    @cached_property
    def maps(self) -> tuple[MapRule, ...]:
        """Both factors."""
        return (self.compress, self.expand)
