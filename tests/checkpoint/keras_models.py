"""Keras models written by hand, as Keras 3 and Keras 2 lay them down; no Keras is needed."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

h5py = pytest.importorskip("h5py")

_STEMS = {"BatchNormalization": "batch_normalization", "InputLayer": "input_layer",
          "MultiHeadAttention": "multi_head_attention"}  # fmt: skip
FORMATS = ("keras", "h5", "h5 of keras 2")


@dataclass
class Layer:
    """A layer with its variables in order; `inputs` name the layers that feed it."""

    kind: str
    name: str
    variables: dict[str, Tensor] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    calls: int = 1

    def described(self, *, old: bool, graph: bool) -> dict:
        inner = {"name": self.name, "trainable": True, **self.config}
        if self.layers:
            inner["layers"] = [one.described(old=old, graph=False) for one in self.layers]
        found = {"class_name": self.kind, "config": inner}
        if not old:
            found |= {"module": "keras.layers", "registered_name": None}
        if graph:
            nodes = []
            for _ in range(self.calls if self.inputs else 0):
                if old:
                    nodes.append([[name, 0, 0, {}] for name in self.inputs])
                else:
                    tensors = [{"class_name": "__keras_tensor__", "config": {
                        "shape": [None], "dtype": "float32", "keras_history": [name, 0, 0]}}
                        for name in self.inputs]  # fmt: skip
                    args = [tensors] if self.kind in ("Add", "Multiply") else tensors
                    nodes.append({"args": args, "kwargs": {"mask": None}})
            found |= {"name": self.name, "inbound_nodes": nodes}
        return found


def model(layers: list[Layer], *, old: bool, outputs: tuple[str, ...] = ()) -> dict:
    """A Sequential model, or a functional one where outputs are named."""
    kind = "Functional" if outputs else "Sequential"
    inner = {"name": "net", "layers": [one.described(old=old, graph=bool(outputs))
                                       for one in layers]}  # fmt: skip
    if outputs:
        inner |= {"input_layers": [["x", 0, 0]], "output_layers": [[one, 0, 0] for one in outputs]}
    return {"class_name": kind, "config": inner}


def write(path: Path, layers: list[Layer], kind: str, *, outputs: tuple[str, ...] = ()) -> Path:
    config = json.dumps(model(layers, old=kind == "h5 of keras 2", outputs=outputs))
    if kind == "keras":
        path = path.with_suffix(".keras")
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            _numbered(file, layers, bool(outputs))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", config)
            archive.writestr("model.weights.h5", content.getvalue())
        return path
    path = path.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [one.name for one in layers]
        for one in layers:
            _legacy(group.create_group(one.name), one, old=kind == "h5 of keras 2")
        file["optimizer_weights/adam/iteration"] = np.int64(3)
    return path


def _numbered(group, layers, functional: bool) -> None:
    used: Counter[str] = Counter()
    for one in layers:
        if one.kind == "InputLayer" and not functional:
            continue
        stem = _STEMS.get(one.kind, one.kind.lower())
        name = f"layers/{stem}" + (f"_{used[stem]}" if used[stem] else "")
        used[stem] += 1
        group.create_group(f"{name}/vars").attrs["name"] = one.name
        for number, tensor in enumerate(one.variables.values()):
            group[f"{name}/vars/{number}"] = tensor.detach().numpy()
        for part, variables in one.parts.items():
            inner = part.replace("attention_output", "output") + "_dense"
            for number, tensor in enumerate(variables.values()):
                group[f"{name}/{inner}/vars/{number}"] = tensor.detach().numpy()
        if one.layers:
            _numbered(group[name], one.layers, False)


def _legacy(group, one: Layer, *, old: bool) -> None:
    def put(base: str, variables: dict[str, Tensor]) -> None:
        for key, tensor in variables.items():
            group[f"{base}/{key}:0" if old else f"net/{base}/{key}"] = tensor.detach().numpy()

    put(one.name, one.variables)
    for part, variables in one.parts.items():
        put(f"{one.name}/{part}", variables)
    for inner in one.layers:
        put(inner.name if old else f"{one.name}/{inner.name}", inner.variables)


def dense(module, name: str, activation: str | dict = "linear", inputs=()) -> Layer:
    variables = {"kernel": module.weight.T}
    if module.bias is not None:
        variables["bias"] = module.bias
    config = {"activation": activation, "use_bias": module.bias is not None}
    return Layer("Dense", name, variables, config, inputs)


def convolution(module, name: str, activation: str = "linear", inputs=()) -> Layer:
    variables = {"kernel": module.weight.permute(2, 3, 1, 0)}
    if module.bias is not None:
        variables["bias"] = module.bias
    config = {"activation": activation, "use_bias": module.bias is not None, "groups": 1,
              "data_format": "channels_last"}  # fmt: skip
    return Layer("Conv2D", name, variables, config, inputs)


def batch_norm(module, name: str, inputs=(), axis=-1) -> Layer:
    variables = {"gamma": module.weight, "beta": module.bias, "moving_mean": module.running_mean,
                 "moving_variance": module.running_var}  # fmt: skip
    return Layer("BatchNormalization", name, variables, {"axis": axis, "epsilon": module.eps},
                 inputs)  # fmt: skip
