"""Layers listed in a Keras configuration: kinds, names, and where their variables lie."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MODELS = ("Sequential", "Functional", "Model")
_KERAS = re.compile(r"(keras|tf_keras|tensorflow\.keras|tensorflow\.python\.keras)(\.|$)")
_CONVOLUTION = re.compile(r"Conv[123]D(Transpose)?|Convolution[123]D(Transpose)?")

# Models in models in models.
_DEEPEST = 50
# Layers whose class is named otherwise than the configuration names them.
_CLASSES = {"GroupQueryAttention": "GroupedQueryAttention"}


@dataclass(frozen=True)
class Layer:
    """One layer, or a model with layers of its own.

    Attributes
    ----------
    kind
        Its class, such as "Dense".
    path
        Names of the models around it and its own.
    config, inbound
        Its own configuration, and where its inputs come from.
    own
        Whether the class is not Keras's but the user's own, whatever it is called.
    """

    kind: str
    path: tuple[str, ...]
    config: Mapping[str, Any]
    inbound: tuple[Any, ...] = ()
    layers: tuple[Layer, ...] = ()
    own: bool = False

    @property
    def name(self) -> str:
        """The layer's own name."""
        return self.path[-1]

    @property
    def label(self) -> str:
        """Its name with those of the models around it, the outermost left out."""
        return ".".join(self.path[1:])

    def flag(self, key: str, default: bool) -> bool:
        """A truth value of the configuration."""
        value = self.config.get(key, default)
        return value if isinstance(value, bool) else default


def parsed_model(config: Any, path: tuple[str, ...] = ()) -> Layer | None:
    """The model that a configuration describes; None if it says nothing of layers.

    Nothing is built, and no code that the configuration names is run.
    """
    if not isinstance(config, Mapping) or len(path) > _DEEPEST:
        return None
    kind, inner = config.get("class_name"), config.get("config")
    if isinstance(inner, list):  # Sequential models of Keras 1 and early Keras 2
        inner = {"layers": inner}
    if not isinstance(kind, str) or not isinstance(inner, Mapping):
        return None
    own = _is_own(config)
    kind = kind.rpartition(">")[2]
    name = config.get("name", inner.get("name"))
    mine = (*path, name if isinstance(name, str) else kind.lower())
    entries = inner.get("layers")
    layers: tuple[Layer, ...] = ()
    if isinstance(entries, list) and (kind in _MODELS or "input_layers" in inner):
        found = [parsed_model(entry, mine) for entry in entries]
        layers = tuple(layer for layer in found if layer is not None)
        if len(layers) < len(entries):
            return None
    nodes = config.get("inbound_nodes")
    inbound = tuple(nodes) if isinstance(nodes, list) else ()
    return Layer(kind, mine, inner, inbound, layers, own)


def _is_own(config: Mapping[str, Any]) -> bool:
    """Whether a class is registered under a package, or lies in a module that is not Keras's."""
    module, names = config.get("module"), (config["class_name"], config.get("registered_name"))
    if any(isinstance(name, str) and ">" in name for name in names):
        return True
    return "module" in config and not (isinstance(module, str) and _KERAS.match(module))


def stored_paths(model: Layer, base: str = "") -> Iterator[tuple[str, Layer]]:
    """Groups of the newer format (Keras 3, `.keras` and `.weights.h5`) and their layers.

    There layers are counted by class, in the order of the model.
    """
    used: Counter[str] = Counter()
    for layer in model.layers:
        if layer.kind == "InputLayer" and model.kind == "Sequential":
            continue
        stem = snake_case(_CLASSES.get(layer.kind, layer.kind))
        number = used[stem]
        used[stem] += 1
        group = f"{base}/layers/{stem}" + (f"_{number}" if number else "")
        yield group, layer
        yield from stored_paths(layer, group)


def snake_case(name: str) -> str:
    """The name that Keras makes of a class's.

    Examples
    --------
    >>> snake_case("BatchNormalization"), snake_case("Conv2D"), snake_case("GlobalMaxPooling2D")
    ('batch_normalization', 'conv2d', 'global_max_pooling2d')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def variable_names(kind: str, config: Mapping[str, Any], count: int) -> list[str]:
    """Names of a layer's variables in the order in which the newer format numbers them.

    Where they are not known, they keep their numbers.
    """

    def on(key: str) -> bool:
        return bool(config.get(key, True))

    bias = ["bias"] if on("use_bias") else []
    if kind in ("Dense", "EinsumDense", "DepthwiseConv1D", "DepthwiseConv2D") or is_convolution(
        kind
    ):
        names = ["kernel", *bias]
    elif kind in ("SeparableConv1D", "SeparableConv2D"):
        names = ["depthwise_kernel", "pointwise_kernel", *bias]
    elif kind == "BatchNormalization":
        names = [*_affine(on), "moving_mean", "moving_variance"]
    elif kind in ("LayerNormalization", "GroupNormalization"):
        names = _affine(on)
    elif kind == "RMSNormalization":
        names = ["scale"]
    elif kind == "Embedding":
        names = ["embeddings"]
    elif kind == "PReLU":
        names = ["alpha"]
    else:
        names = []
    return names if len(names) == count else [str(number) for number in range(count)]


def is_convolution(kind: str) -> bool:
    """Whether a layer is a convolution, transposed ones included."""
    return _CONVOLUTION.fullmatch(kind) is not None


def _affine(on: Any) -> list[str]:
    return (["gamma"] if on("scale") else []) + (["beta"] if on("center") else [])
