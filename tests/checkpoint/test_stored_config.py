"""Settings that a training script saved next to the weights: plain values, bounded, no code."""

from __future__ import annotations

import argparse
import enum
import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from flagscope.checkpoint import from_state_dict, open_checkpoint

W = torch.ones(4, 4)


@dataclass
class Settings:
    n_head: int = 4
    dropout: float = 0.1


class Slotted:
    __slots__ = ("heads", "name")

    def __init__(self) -> None:
        self.heads, self.name = 3, "a"


class Easy(dict):
    """A mapping whose items are attributes, as many packages have."""


class Colour(enum.Enum):
    RED = 1


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def opened(request, tmp_path):
    def open_it(content, **how):
        path = tmp_path / "c.ckpt"
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return open_checkpoint(path, **how)

    return open_it


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"n_head": 4, "act": "gelu", "bias": False, "p": 0.5, "none": None},) * 2,
        (argparse.Namespace(n_head=4, sizes=[1, 2], flag=True),
         {"n_head": 4, "sizes": [1, 2], "flag": True}),
        (Settings(), {"n_head": 4, "dropout": 0.1}),
        (Slotted(), None),
        (Easy(n_head=4), {"n_head": 4}),
        (OrderedDict(model={"heads": (2, 4)}), {"model": {"heads": [2, 4]}, "heads": [2, 4]}),
        ({"n_head": np.int64(4), "lr": np.float32(0.5), "ok": np.True_},
         {"n_head": 4, "lr": 0.5, "ok": True}),
        ({"n_head": 4, "path": Path("x"), "act": torch.nn.GELU(), "f": torch.relu},
         {"n_head": 4}),
        ({"n_head": 4, 3: 5, "nan": float("nan"), "huge": 10**40, "long": "x" * 5000},
         {"n_head": 4}),
        ({"heads": [1, torch.relu]}, None),
        ({"c": Colour.RED, "w": W, "n": 2}, {"n": 2}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["hyper_parameters", "model_args", "args", "config"])
def test_plain_values_of_mappings_and_objects(opened, entry, expected, key):
    with opened({"state_dict": {"w": W}, key: entry}) as checkpoint:
        assert checkpoint.stored_config == expected
        json.dumps(checkpoint.stored_config)


def test_what_is_about_the_model_has_the_last_word(opened):
    content = {"model": {"w": W}, "model_args": {"n_head": 2}, "config": {"n_head": 3, "lr": 0.1},
               "args": {"lr": 0.2, "seed": 1}}  # fmt: skip
    with opened(content) as checkpoint:
        assert checkpoint.stored_config == {"n_head": 2, "lr": 0.1, "seed": 1}
        assert checkpoint.config == checkpoint.stored_config
        [note] = [note for note in checkpoint.notes if "settings" in note]
        assert "model_args" in note


def test_settings_at_the_level_of_the_group(opened):
    inner = {"state_dict": {"w": W}, "config": {"n_head": 2}}
    with opened({"a": inner, "b": inner | {"config": {"n_head": 5}}}, tensors="b") as checkpoint:
        assert checkpoint.stored_config == {"n_head": 5}


def test_a_config_that_is_given_or_stands_next_to_the_weights_comes_first(opened, tmp_path):
    content = {"state_dict": {"w": W}, "config": {"n_head": 2}}
    with opened(content, config={"n_head": 1}) as checkpoint:
        assert (checkpoint.config, checkpoint.stored_config) == ({"n_head": 1}, {"n_head": 2})
    (tmp_path / "config.json").write_text('{"n_head": 4}')
    with opened(content) as checkpoint:
        assert checkpoint.config == {"n_head": 4}


def test_no_settings(opened):
    with opened({"state_dict": {"w": W}, "config": 7, "args": [1, 2]}) as checkpoint:
        assert checkpoint.stored_config is None
        assert checkpoint.config is None


def test_a_model_type_of_the_script_is_not_one_of_transformers(opened):
    settings = {"model_type": "resnet50", "n_head": 2}
    with opened({"state_dict": {"w": W}, "config": settings}) as checkpoint:
        assert checkpoint.stored_config == {"n_head": 2}
    whole = {"model_type": "gpt2", "n_head": 2, "transformers_version": "4.50"}
    with opened({"state_dict": {"w": W}, "config": whole}) as checkpoint:
        assert checkpoint.stored_config == whole


def test_config_of_a_pickled_transformers_model(opened):
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=6))
    with opened(model) as checkpoint:
        assert set(checkpoint.tensors) == set(model.state_dict())
        assert checkpoint.config is not None
        assert checkpoint.config["model_type"] == "gpt2"
        assert checkpoint.config["n_head"] == 2


class DictConfig:
    """As OmegaConf keeps a mapping: its nodes under `_content`, each with its value as `_val`."""

    def __init__(self, content) -> None:
        self._metadata, self._parent, self._content = Slotted(), None, content


class AnyNode:
    """A value of OmegaConf."""

    def __init__(self, value) -> None:
        self._metadata, self._parent, self._val = Slotted(), None, value


def test_settings_as_omegaconf_keeps_them(opened):
    inner = {"n_head": AnyNode(4), "dims": DictConfig([AnyNode(1), AnyNode(2)])}
    config = DictConfig({"model": DictConfig(inner), "lr": AnyNode(0.5)})
    with opened({"state_dict": {"w": W}, "cfg": config}) as checkpoint:
        section = {"n_head": 4, "dims": [1, 2]}
        assert checkpoint.stored_config == {"model": section, "lr": 0.5, **section}


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({"config": {"n_head": 4}, "lr": 0.1}, 4),
        ({"model": {"attention": {"n_head": 4}}, "optimizer": {"n_head": 3}}, 4),
        ({"model": {"n_head": 4}, "paths": {"n_head": 8}}, 4),
        ({"n_head": 2, "model": {"n_head": 4}}, 2),
        ({"net_a": {"n_head": 4}, "net_b": {"n_head": 2}}, None),
        ({"net_a": {"n_head": 4}, "net_b": {"width": 2}}, None),
        ({"a": {"b": {"c": {"n_head": 4}}}}, None),
    ],
)
def test_sections_of_settings_count_where_they_do_not_differ(settings, known):
    checkpoint = from_state_dict({"state_dict": {"w": W}, "hyper_parameters": settings})
    assert (checkpoint.stored_config or {}).get("n_head") == known


def test_mappings_in_memory():
    checkpoint = from_state_dict({"model": {"w": W}, "hparams": {"n_head": 4, "x": object()}})
    assert checkpoint.stored_config == {"n_head": 4}
    given = argparse.Namespace(n_head=4)
    assert from_state_dict({"model": {"w": W}, "args": given}).stored_config == {"n_head": 4}


def test_size_and_depth_are_bounded(opened):
    deep: dict = {"n_head": 4}
    for _ in range(50):
        deep = {"d": deep, "n": 1}
    wide = {str(i): i for i in range(100_000)}
    shared: dict = {"leaf": 1}
    for _ in range(40):
        shared = {str(k): shared for k in range(10)}
    looped: dict = {"n_head": 4}
    looped["self"] = looped
    for settings in (deep, wide, shared, looped):
        begin = time.monotonic()
        with opened({"state_dict": {"w": W}, "config": settings}) as checkpoint:
            assert len(json.dumps(checkpoint.stored_config)) < 2**20
        assert time.monotonic() - begin < 20
