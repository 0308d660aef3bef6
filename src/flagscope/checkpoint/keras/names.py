"""Names of the arrays in a Keras file, by the layers that hold them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.checkpoint.keras.hdf5 import Hdf5Array
from flagscope.checkpoint.keras.layers import Layer, stored_paths, variable_names

# States stored next to the weights.
_STATE = ("/optimizer/", "/optimizer_weights/", "/_optimizer/", "/metrics/", "/loss/")
_NUMBERED = re.compile(r"(?P<group>.*)/vars/(?P<number>[0-9]{1,9})")
# Parts of an attention layer: the groups of the newer format, and Keras's own names of them.
_PARTS = {"query_dense": "query", "key_dense": "key", "value_dense": "value",
          "output_dense": "attention_output"}  # fmt: skip
_OLDER = "/_layer_checkpoint_dependencies/"


@dataclass(frozen=True)
class NamedArray:
    """An array under the name that it is listed by.

    `order` is the order of its axes and `shape` its shape, where these differ from the file's.
    """

    name: str
    array: Hdf5Array
    order: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None


def named_arrays(
    arrays: Sequence[Hdf5Array], model: Layer | None
) -> tuple[list[NamedArray], list[str]]:
    """Arrays under names such as `dense_1.kernel`, and notes on what was left out.

    Parameters
    ----------
    arrays
        All of a file.
    model
        What its configuration says, if it has one.

    References
    ----------
    keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py.
    """
    weights = [one for one in arrays if not one.path.startswith(_STATE)]
    notes = []
    if len(weights) < len(arrays):
        notes.append(f"{len(arrays) - len(weights)} arrays of an optimizer's state are left out")
    if any(_NUMBERED.fullmatch(one.path) for one in weights):
        return _numbered(weights, model), notes
    if any("_._" in one.path for one in weights):
        notes.append("named and turned as transformers' PyTorch models have them")
        return [_of_transformers(one) for one in weights], notes
    return [NamedArray(_legacy(one.path), one) for one in weights], notes


def _numbered(arrays: Sequence[Hdf5Array], model: Layer | None) -> list[NamedArray]:
    """The newer format: variables have numbers, layers are counted by class."""
    layers = {} if model is None else dict(stored_paths(model))
    counts: dict[str, int] = defaultdict(int)
    places = []
    for one in arrays:
        match = _NUMBERED.fullmatch(one.path.replace(_OLDER, "/layers/"))
        if match:
            counts[match["group"]] += 1
        places.append(match)
    named = []
    for one, match in zip(arrays, places, strict=True):
        if match is None:
            named.append(NamedArray(one.path.strip("/").replace("/", "."), one))
            continue
        group, number = match["group"], int(match["number"])
        module, layer = _module(group, layers)
        kind = _kind(group) if layer is None else "" if layer.own else layer.kind
        config = layer.config if layer is not None else {}
        names = variable_names(kind, config, counts[group])
        if layer is None and counts[group] == 1:  # without a bias
            names = variable_names(kind, {"use_bias": False}, 1)
        variable = names[number] if number < len(names) else str(number)
        named.append(NamedArray(f"{module}.{variable}" if module else variable, one))
    return named


def _module(group: str, layers: dict[str, Layer]) -> tuple[str, Layer | None]:
    """Name of what a group holds, and its layer if the configuration lists it."""
    if group in layers:
        return layers[group].label, layers[group]
    above = group
    rest: list[str] = []
    while above and above not in layers:
        above, _, part = above.rpartition("/")
        rest.append(part)
    own = [layers[above].label] if above else []
    parts = [part.lstrip("_") for part in reversed(rest) if part and part != "layers"]
    return ".".join([*own, *(_PARTS.get(part, part) for part in parts)]), None


def _kind(group: str) -> str:
    """The class of a layer, from how the group of the newer format is named after it."""
    last = group.rpartition("/")[2].lstrip("_")
    if last in _PARTS:
        return "EinsumDense"
    stem = re.sub(r"_\d+$", "", last)
    return {
        "dense": "Dense", "einsum_dense": "EinsumDense", "embedding": "Embedding",
        "batch_normalization": "BatchNormalization", "layer_normalization": "LayerNormalization",
        "conv1d": "Conv1D", "conv2d": "Conv2D", "conv3d": "Conv3D",
        "depthwise_conv2d": "DepthwiseConv2D", "separable_conv2d": "SeparableConv2D",
    }.get(stem, "")  # fmt: skip


def _legacy(path: str) -> str:
    """The older format: a group for each layer, and in it the names of its variables."""
    parts = path.removeprefix("/model_weights").strip("/").split("/")
    parts[-1] = re.sub(r":\d+$", "", parts[-1])
    layer, inner = parts[0], parts[1:]
    if layer in inner[:-1]:
        inner = inner[inner.index(layer) + 1 :]
    return ".".join([layer, *inner])


def _of_transformers(one: Hdf5Array) -> NamedArray:
    """TensorFlow models of transformers, by its own rule for loading them in PyTorch.

    References
    ----------
    transformers, `convert_tf_weight_name_to_pt_weight_name` in modeling_tf_pytorch_utils.py.
    """
    path = one.path.removeprefix("/model_weights").strip("/").partition("/")[2]
    path = re.sub(r":\d+$", "", path)
    path = re.sub(r"/[^/]*___([^/]*)/", r"/\1/", path).replace("_._", "/")
    parts = re.sub(r"//+", "/", path).split("/")
    parts = parts[1:] if len(parts) > 1 else parts
    lists = {"emb_projs", "out_projs"} & set(parts)  # of Transformer-XL
    turned = parts[-1] in ("kernel", "pointwise_kernel") or bool(lists)
    parts[-1] = {
        "kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias",
        "pointwise_kernel": "pointwise.weight", "depthwise_kernel": "depthwise.weight",
        "moving_mean": "running_mean", "moving_variance": "running_var",
    }.get(parts[-1], parts[-1])  # fmt: skip
    name, rank = ".".join(parts), len(one.shape)
    if turned and rank > 1:
        order = {4: (3, 2, 0, 1), 3: (2, 1, 0)}.get(rank, tuple(reversed(range(rank))))
        return NamedArray(name, one, order)
    if name.endswith("bias") and rank == 2 and one.shape[0] == 1:
        return NamedArray(name, one, None, one.shape[1:])  # of a Conv1D
    return NamedArray(name, one)
