"""Rules by which channels are followed through Keras layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.graph.activations import ACTIVATIONS
from flagscope.checkpoint.graph.channels import Channels, Value
from flagscope.checkpoint.keras.layers import Layer, parsed_model
from flagscope.wiring import WiredAttention, WiredMap, WiredNorm

Answer = tuple[bool, Value | None]
"""Whether a layer was understood, and what it gives."""

_UNKNOWN: Answer = (False, None)
_SPACE = "zyx"
_EINSUM = re.compile(r"(\.\.\.|[a-z]*)([a-z]),([a-z])([a-z])->(\.\.\.|[a-z]*)([a-z])")
_FLOATING = ("float64", "float32", "float16", "bfloat16")
# Keras's names of activations. Those that mix channels (softmax) or halve them (glu) are not here.
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **ACTIVATIONS,
    "linear": lambda x: x,
    "swish": ACTIVATIONS["silu"],
    "hard_silu": ACTIVATIONS["hard_swish"],
    "leaky_relu": lambda x: torch.where(x < 0, 0.2 * x, x),
    "hard_tanh": lambda x: x.clamp(-1, 1),
    "log_sigmoid": torch.nn.functional.logsigmoid,
    "tanh_shrink": torch.nn.functional.tanhshrink,
    "celu": torch.nn.functional.celu,
}


@dataclass(frozen=True)
class Site:
    """A layer where it is called. `cross` says whether its inputs are of several origins."""

    layer: Layer
    channels: Channels
    tensors: Mapping[str, TensorInfo]
    cross: bool

    @property
    def label(self) -> str:
        """Name of the layer in pairs."""
        return self.layer.label

    def tensor(self, variable: str) -> str | None:
        """Name of a variable of the layer, if the file holds it.

        The older format names models inside models in several ways.
        """
        for module in (self.label, f"{self.layer.path[1]}.{self.layer.name}"):
            if f"{module}.{variable}" in self.tensors:
                return f"{module}.{variable}"
        return None

    def kernel(self, variable: str, rank: int) -> tuple[str, tuple[int, ...]] | None:
        """Name and shape of a weight of so many axes that was not quantised."""
        name = self.tensor(variable)
        if name is None or self.tensors[name].dtype not in _FLOATING:
            return None
        shape = self.tensors[name].shape
        return (name, shape) if len(shape) == rank else None

    def take_all(self) -> None:
        """Enter that something that is not understood uses the layer's tensors."""
        for name in self.tensors:
            if name.startswith(f"{self.label}."):
                self.channels.use_again(name)

    @property
    def channel_axis(self) -> int:
        """1, or -1 for the last."""
        return 1 if self.layer.config.get("data_format") == "channels_first" else -1

    def on_channels(self, value: Value) -> bool:
        """Whether the channels lie where the layer looks for them."""
        axis = value.from_end if self.channel_axis < 0 else value.from_start
        return not value.flat and axis == self.channel_axis

    def activated(self, value: Value | None) -> Answer:
        """Behind the activation of the layer itself."""
        if value is None:
            return True, None
        chosen = self.layer.config.get("activation", "linear")
        name = "linear" if chosen is None else chosen
        function = _FUNCTIONS.get(name) if isinstance(name, str) else _of_layer(name)
        if function is None:
            self.channels.escape(value, _named(name))
            return True, None
        return True, self.channels.applied(value, function)


Rule = Callable[[Site, Sequence[Value | None]], Answer]
Maker = Callable[[Mapping[str, Any]], Callable[[Tensor], Tensor]]


def _of_layer(activation: Any) -> Callable[[Tensor], Tensor] | None:
    """The function of a layer that was given as an activation."""
    if not isinstance(activation, Mapping):
        return None
    layer = parsed_model(activation)
    made = None if layer is None or layer.own else _LAYERS.get(layer.kind)
    return None if layer is None or made is None else _made(made, layer.config)


def _named(activation: Any) -> str:
    """Label of an activation that is custom or not a function of single channels."""
    if isinstance(activation, Mapping):
        activation = activation.get("class_name")
    return f"activation {activation if isinstance(activation, str) else '?'}"


def _single(inputs: Sequence[Value | None]) -> Value | None:
    return inputs[0] if len(inputs) == 1 else None


def _mapped(
    site: Site, inputs: Sequence[Value | None], variable: str, layout: str, role: str, axis: int
) -> Answer:
    """A layer that reads channels and writes others."""
    found = site.kernel(variable, len(layout.split()))
    if found is None:
        return _UNKNOWN
    name, shape = found
    outputs = shape[layout.split().index("o")]
    bias = site.tensor("bias")
    if bias is not None and site.tensors[bias].shape != (outputs,):
        return _UNKNOWN
    value = _single(inputs)
    for one in inputs:
        if one is not None and one is not value:
            site.channels.escape(one, site.layer.kind)
    at = None if value is None else value.from_end if axis < 0 else value.from_start
    if value is not None and (at != axis or (value.flat and role == "conv")):
        site.channels.escape(value, site.layer.kind)
        value = None
    rank = len(shape) if role == "conv" else None if value is None else value.rank
    site.channels.read(value)
    one = WiredMap(name, layout, site.label, role, bias)
    return site.activated(site.channels.write(one, outputs, axis, rank))


def _dense(site: Site, inputs: Sequence[Value | None]) -> Answer:
    return _mapped(site, inputs, "kernel", "i o", "linear", -1)


def _einsum(site: Site, inputs: Sequence[Value | None]) -> Answer:
    equation = site.layer.config.get("equation")
    written = equation.replace(" ", "") if isinstance(equation, str) else ""
    match = _EINSUM.fullmatch(written)
    if match is None or match[1] != match[5] or {match[2], match[6]} != {match[3], match[4]}:
        return _UNKNOWN
    return _mapped(site, inputs, "kernel", "i o" if match[3] == match[2] else "o i", "linear", -1)


def _convolution(site: Site, inputs: Sequence[Value | None]) -> Answer:
    if site.layer.config.get("groups", 1) != 1:
        return _UNKNOWN
    dims = int(re.findall("[123](?=D)", site.layer.kind)[0])
    last = "o i" if site.layer.kind.endswith("Transpose") else "i o"
    layout = f"{' '.join(_SPACE[3 - dims :])} {last}"
    return _mapped(site, inputs, "kernel", layout, "conv", site.channel_axis)


def _embedding(site: Site, inputs: Sequence[Value | None]) -> Answer:
    found = site.kernel("embeddings", 2)
    if found is None:
        return _UNKNOWN
    for one in inputs:
        site.channels.escape(one, site.layer.kind)
    one = WiredMap(found[0], "i o", site.label, "embedding")
    return True, site.channels.write(one, found[1][1], -1, None)


def _batch_norm(site: Site, inputs: Sequence[Value | None]) -> Answer:
    value, axis = _single(inputs), site.layer.config.get("axis", -1)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if value is None or type(axis) is not int:
        return _UNKNOWN
    if axis != (value.from_end if axis < 0 else value.from_start):
        return _UNKNOWN
    gain, bias, mean, variance = (
        site.tensor(key) for key in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    present = [name for name in (gain, bias, mean, variance) if name is not None]
    eps = site.layer.config.get("epsilon", 1e-3)
    if variance is None or not isinstance(eps, (int, float)):
        return _UNKNOWN
    if any(site.tensors[name].shape != (value.size,) for name in present):
        return _UNKNOWN
    norm = WiredNorm("batchnorm", site.label, gain, bias, mean, variance, float(eps))
    scaled = site.channels.scaled(value, norm)
    return scaled is not None, scaled


def _activation(site: Site, inputs: Sequence[Value | None]) -> Answer:
    value = _single(inputs)
    return _UNKNOWN if value is None else site.activated(value)


def _made(made: Maker, config: Mapping[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """The function of a layer's configuration; None if that is not what it should be."""
    try:
        return made(config)
    except (TypeError, ValueError, OverflowError):
        return None


def _function(made: Maker) -> Rule:
    def rule(site: Site, inputs: Sequence[Value | None]) -> Answer:
        value, function = _single(inputs), _made(made, site.layer.config)
        if value is None or function is None:
            return _UNKNOWN
        applied = site.channels.applied(value, function)
        return applied is not None, applied

    return rule


def _relu(config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    highest = config.get("max_value")
    slope = float(config.get("negative_slope") or 0.0)
    threshold = float(config.get("threshold") or 0.0)
    high = float("inf") if highest is None else float(highest)
    return lambda x: torch.where(x < threshold, slope * (x - threshold), x.clamp(max=high))


def _leaky(config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    slope = float(config.get("negative_slope", config.get("alpha", 0.3)))
    return lambda x: torch.where(x < 0, slope * x, x)


def _elu(config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    alpha = float(config.get("alpha", 1.0))
    return lambda x: torch.where(x > 0, x, alpha * torch.expm1(x))


def _rescaled(config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    scale, offset = float(config.get("scale", 1.0)), float(config.get("offset", 0.0))
    return lambda x: scale * x + offset


_LAYERS: dict[str, Maker] = {
    "ReLU": _relu, "LeakyReLU": _leaky, "ELU": _elu, "Rescaling": _rescaled,
}  # fmt: skip


def _same(_: Site, inputs: Sequence[Value | None]) -> Answer:
    value = _single(inputs)
    return value is not None, value


def _pool(site: Site, inputs: Sequence[Value | None]) -> Answer:
    value, kind = _single(inputs), site.layer.kind
    if value is None or value.product or not site.on_channels(value):
        return _UNKNOWN
    pooled = site.channels.pooled(value, largest="Max" in kind)
    if not kind.startswith("Global"):
        return True, replace(pooled, unit=False)
    if site.layer.flag("keepdims", False):
        return True, replace(pooled, unit=True)
    return True, replace(pooled, axis=1, rank=2, unit=True)


def _flatten(site: Site, inputs: Sequence[Value | None]) -> Answer:
    value = _single(inputs)
    if value is None or value.flat:
        return value is not None, value
    if value.unit or value.rank == 2:
        return True, value.moved(1, 2)
    # With channels first Keras turns them last before it flattens.
    last = value.from_end == -1 or (site.channel_axis == 1 and value.from_start == 1)
    if not last and value.from_start != 1:
        return _UNKNOWN
    return True, replace(value, axis=1, rank=2, flat="s i" if last else "i s")


def _reshape(site: Site, inputs: Sequence[Value | None]) -> Answer:
    value, shape = _single(inputs), site.layer.config.get("target_shape")
    if value is None or value.flat or value.from_end != -1 or not isinstance(shape, list):
        return _UNKNOWN
    if not shape or shape[-1] != value.size:
        return _UNKNOWN
    return True, replace(value, axis=-1, rank=len(shape) + 1, unit=False)


def _permute(site: Site, inputs: Sequence[Value | None]) -> Answer:
    value, dims = _single(inputs), site.layer.config.get("dims")
    if value is None or value.flat or not isinstance(dims, list):
        return _UNKNOWN
    axis = len(dims) + 1 + value.axis if value.axis < 0 else value.axis
    if sorted(map(str, dims)) != sorted(map(str, range(1, len(dims) + 1))) or axis not in dims:
        return _UNKNOWN
    return True, value.moved(dims.index(axis) + 1, len(dims) + 1)


def _multiply(site: Site, inputs: Sequence[Value | None]) -> Answer:
    if len(inputs) != 2 or inputs[0] is None or inputs[1] is None:
        return _UNKNOWN
    product = site.channels.multiplied(inputs[0], inputs[1])
    return product is not None, product


def _attention(site: Site, inputs: Sequence[Value | None]) -> Answer:
    parts = ("query", "key", "value", "attention_output")
    found = [site.kernel(f"{part}.kernel", 3) for part in parts]
    if any(one is None for one in found):
        return _UNKNOWN
    maps = []
    for part, one in zip(parts, found, strict=True):
        if one is None:
            return _UNKNOWN
        layout = "h i o" if part == "attention_output" else "i h o"
        bias = None if part == "attention_output" else site.tensor(f"{part}.bias")
        maps.append(WiredMap(one[0], layout, f"{site.label}.{part}", part[0], bias))
    roles = ("q", "k", "v", "o")
    q, k, v, o = (replace(one, role=role) for one, role in zip(maps, roles, strict=True))
    # What acts on single heads' queries or values, next to the maps, leaves no known freedom.
    plain = not site.layer.flag("use_gate", False)
    site.channels.attend(WiredAttention(site.label, q, k, v, o, site.cross, plain))
    for one in inputs:
        site.channels.escape(one, site.layer.kind)
    return True, None


_DIMS = ("1D", "2D", "3D")

RULES: dict[str, Rule] = {
    "Dense": _dense, "EinsumDense": _einsum, "Embedding": _embedding,
    **{f"Conv{dims}{end}": _convolution for dims in _DIMS for end in ("", "Transpose")},
    **{f"Convolution{dims}": _convolution for dims in _DIMS},
    "BatchNormalization": _batch_norm, "Activation": _activation,
    **{kind: _function(made) for kind, made in _LAYERS.items()},
    **dict.fromkeys(
        ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise",
         "GaussianDropout", "AlphaDropout", "ActivityRegularization", "Identity"), _same,
    ),
    **{f"{kind}Pooling{dims}": _pool for dims in _DIMS
       for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")},
    **{f"{kind}{dims}": _pool for dims in _DIMS
       for kind in ("ZeroPadding", "Cropping", "UpSampling")},
    "Flatten": _flatten, "Reshape": _reshape, "Permute": _permute, "Multiply": _multiply,
    "MultiHeadAttention": _attention, "GroupedQueryAttention": _attention,
    "GroupQueryAttention": _attention,
}  # fmt: skip
