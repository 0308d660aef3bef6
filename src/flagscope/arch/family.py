"""What a family file says: where a model family's tensors lie, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# Output, input and batch axes that a role has unless its table says otherwise. The batch axis
# of k and v is g, the key-value heads, where the layout has one.
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


@dataclass(frozen=True)
class ConfigRule:
    """A value by config path (the first that is set), else the default."""

    config: tuple[str, ...]
    default: str | float | None = None


@dataclass(frozen=True)
class FlagRule:
    """A truth value by config path (the first that is set), else the default."""

    config: tuple[str, ...]
    default: bool


@dataclass(frozen=True)
class MapRule:
    """Where one linear map lies: alternative module names and the layout of the weight.

    `joint` stands between the module and "weight": "_" for torch's ``in_proj_weight``. A
    `parameter` is the weight itself, not a module that has one. `window` holds parts of axes in
    terms of axis sizes. "{expert}" in a module's name stands for the number of an expert.
    """

    role: str
    modules: tuple[str, ...]
    layout: str
    out: str
    inp: str
    batch: str | None
    select: Mapping[str, int]
    norms: tuple[str, ...] = ()
    joint: str = "."
    window: Mapping[str, str] = field(default_factory=dict)
    parameter: bool = False

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
        """All but the names: rules of one form give maps alike on tensors of one shape."""
        parts = (tuple(self.select.items()), tuple(self.window.items()))
        return (self.role, self.layout, self.out, self.inp, self.batch, *parts)

    @cached_property
    def alternatives(self) -> tuple[tuple[str, str], ...]:
        """Alternative names of the weight, each with that of its bias."""
        return tuple(zip(self.weights(), self.biases(), strict=True))

    def names(self) -> tuple[str, ...]:
        """All tensor names the rule may touch."""
        return (*self.weights(), *self.biases(), *norm_tensors(self.norms))


@dataclass(frozen=True)
class NormRule:
    """A norm of the residual stream: alternative module names and what it computes.

    A name that ends with "_" stands before "weight" and "bias" without a dot (see `norm_tensor`).
    One without `tensors` has neither gain nor bias. `pre` and `post` say, where the config decides
    it, whether it stands in front of the reader or behind the sum. One that is `not_first` is
    missing in the first layer, which reads the bare stream. Of kind "by_bias" it is a LayerNorm
    if it has a bias, else an RMSNorm. `less_one` are config keys that say that gains are stored
    less one, `stored` what its gain and its bias are called.
    """

    modules: tuple[str, ...]
    kind: str
    eps: ConfigRule
    offset: float
    placement: str
    tensors: bool = True
    pre: FlagRule | None = None
    post: FlagRule | None = None
    not_first: bool = False
    less_one: tuple[str, ...] = ()
    stored: tuple[str, str] = ("weight", "bias")

    def names(self) -> tuple[str, ...]:
        """All tensor names that it may have."""
        return norm_tensors(self.modules, (*self.stored, "running_mean", "running_var"))


@dataclass(frozen=True)
class RotaryRule:
    """A rotary position embedding: its layout and the part of a head that it turns.

    `dims` says how many dimensions it turns, where the config does not give the fraction.
    `unless` are config keys that say there is none, `layers` is a config key that holds, for
    each layer, whether there is one: a truth value or one of `values`. Where that key is missing or
    empty, every layer has one but for the last of each `interval`. `interleaved` is a config key
    that says whether the layout is that, where it is set.
    """

    layout: str
    fraction: ConfigRule
    dims: ConfigRule | None = None
    unless: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    interval: ConfigRule | None = None
    interleaved: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttentionRule:
    """One attention block of a layer.

    `normalised` are config keys that say that queries and keys behind a rotary embedding are
    divided by their norm, by a norm without tensors, `clipped` those that say that queries, keys
    and values are clipped to a range. `spaces` are the maps that face the
    residual stream, `reads` those beside them that read it, by label. `name` tells several blocks
    of one kind apart. A `bare` block reads the stream without a norm; `output_norm` normalises and
    `output_scale` multiplies what it adds to the stream.
    """

    kind: str
    maps: tuple[MapRule, ...]
    norm: NormRule | None
    rotary: RotaryRule | None
    query_norm: tuple[str, ...]
    key_norm: tuple[str, ...]
    relative: tuple[str, ...]
    optional: bool
    heads_differ: bool = False
    normalised: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ("q", "k", "v", "o")
    name: str = ""
    reads: Mapping[str, MapRule] = field(default_factory=dict)
    bare: bool = False
    output_norm: NormRule | None = None
    output_scale: tuple[str, ...] = ()


@dataclass(frozen=True)
class MlpRule:
    """One MLP block of a layer; gated if it has a gate, one for each expert if it has those.

    One that mixes tokens neither reads nor writes channels of the stream. Of a `bounded` one, gate
    and up are clipped or shifted before they are multiplied. The other keys are as for attention.
    """

    maps: tuple[MapRule, ...]
    activation: ConfigRule
    optional: bool
    norm: NormRule | None = None
    name: str = "mlp"
    mixes_tokens: bool = False
    bounded: bool = False
    bare: bool = False
    output_norm: NormRule | None = None
    output_scale: tuple[str, ...] = ()

    @property
    def experts(self) -> bool:
        """Whether this is a block of experts."""
        return any("{expert}" in name for one in self.maps for name in one.modules) or any(
            one.batch == "e" for one in self.maps
        )


@dataclass(frozen=True)
class LatentRule:
    """A map of low rank in two factors with a norm between them, as in latent attention."""

    name: str
    maps: tuple[MapRule, ...]
    norm: NormRule


@dataclass(frozen=True)
class StreamRule:
    """Maps that only the residual stream connects: shortcuts, the stem and the last layer."""

    shortcut: MapRule | None
    entry: MapRule | None
    exit: MapRule | None


@dataclass(frozen=True)
class FrameRule:
    """Where the residual stream begins and ends: the embedding, the last norm, the unembedding.

    The unembedding's modules are named from the root of the model, the other two from the
    stack's prefix. `tied` is the config key that says whether it is the embedding's tensor.
    """

    embedding: tuple[str, ...]
    unembedding: tuple[str, ...]
    root: str
    tied: tuple[str, ...]
    norm: NormRule | None


@dataclass(frozen=True)
class StackRule:
    """A stack of layers of one form.

    In a `parallel` one attention and MLP read the same stream. `depth` are config keys that hold
    how many layers lie along the stream, where a checkpoint may hold others behind those.
    `norms_shown` says that the norms are known even where the family is only guessed.
    """

    name: str
    paths: tuple[str, ...]
    attention: tuple[AttentionRule, ...] = ()
    mlp: tuple[MlpRule, ...] = ()
    sequence: tuple[MapRule, ...] = ()
    activation: ConfigRule | None = None
    stream: StreamRule | None = None
    frame: FrameRule | None = None
    latent: tuple[LatentRule, ...] = ()
    sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parallel: FlagRule = field(default_factory=lambda: FlagRule((), False))
    depth: tuple[str, ...] = ()
    norms_shown: bool = False

    @property
    def has_stream(self) -> bool:
        """Whether it is known for every block how it reads the residual stream (see `Stream`)."""
        blocks = [one for one in self.mlp if not one.mixes_tokens]
        return bool(blocks) and all(one.bare or _before(one.norm) for one in
                                    (*self.attention, *blocks))  # fmt: skip

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
            names.update(block.norm.names() if block.norm else ())
            names.update(norm_tensors((*block.query_norm, *block.key_norm, *block.relative)))
        for block in (*self.mlp, *self.latent):
            names.update(block.norm.names() if block.norm else ())
        for block in (*self.attention, *self.mlp):
            names.update(block.output_norm.names() if block.output_norm else ())
            names.update(block.output_scale)
        return frozenset(names)


@dataclass(frozen=True)
class ChainRule:
    """A numbered sequence of layers, each feeding the next, with what lies between them."""

    activation: ConfigRule


@dataclass(frozen=True)
class SequenceRule:
    """Maps that follow each other, by their names in the whole model.

    `after` says for each map what stands behind it where that is no BatchNorm of its own: "norm"
    for a norm that is not folded, a name of an activation, "" for what `activation` says.
    """

    maps: tuple[MapRule, ...]
    after: tuple[str, ...]
    activation: ConfigRule


@dataclass(frozen=True)
class Family:
    """One family file.

    Not `named` is a family whose tensors are named as those of another one: its names alone do
    not tell it. `file` is the path of a file of the user's own.
    """

    name: str
    title: str
    model_types: tuple[str, ...]
    requires: tuple[str, ...]
    prefixes: tuple[str, ...]
    ignore: tuple[str, ...]
    sizes: Mapping[str, tuple[str, ...]]
    stacks: tuple[StackRule, ...]
    chain: ChainRule | None
    named: bool = True
    sequences: tuple[SequenceRule, ...] = ()
    file: str | None = None


def _before(norm: NormRule | None) -> bool:
    """Whether a norm stands in front of its readers, always or where the config says so."""
    return norm is not None and (norm.placement == "pre" or norm.pre is not None)


def norm_tensor(module: str, kind: str) -> str:
    """Name of one tensor of a norm; one that ends with "_" lies in the module of its reader.

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
    """Names of the tensors that norms of these names may have."""
    return tuple(norm_tensor(module, kind) for module in modules for kind in kinds)
