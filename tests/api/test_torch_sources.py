"""A scan of a training checkpoint, a pickled module or a script is that of the weights in it."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import flagscope
from flagscope.cli import main
from flagscope.errors import InputError


class EarlyStopping:
    """In the place of a callback that only its own package knows."""

    def __init__(self) -> None:
        self.best, self.patience = torch.tensor(0.5), 3


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5)
        )

    def forward(self, x):
        return self.layers(x)


def trained(seed: int) -> Mlp:
    torch.manual_seed(seed)
    net = Mlp()
    with torch.no_grad():
        for parameter in net.parameters():  # something to find: a dominant direction
            if parameter.ndim == 2:
                parameter += 2 * torch.ones(parameter.shape) / parameter.shape[1]
    return net


ORIGINAL = trained(0).state_dict()


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("plain") / "weights.pt"
    torch.save(ORIGINAL, path)
    return flagscope.scan(path).pairs


def lightning(net: nn.Module, path: Path) -> None:
    state = OrderedDict(
        (f"model.{name}", tensor.clone()) for name, tensor in net.state_dict().items()
    )
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 12)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 3,
        "global_step": 1000,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"EarlyStopping{'mode': 'min'}": EarlyStopping()},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [0.1], "anneal_func": nn.functional.relu}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 24, "activation": nn.ReLU()},
        "datamodule_hyper_parameters": {"root": Path("data")},
    }
    torch.save(content, path)


def pickled(net: nn.Module, path: Path) -> None:
    torch.save(net, path)


def pickled_legacy(net: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(net, path, _use_new_zipfile_serialization=False)


def scripted(net: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.script(net), path)


def traced(net: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.trace(net, torch.ones(2, 12)), path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("write", [lightning, pickled, pickled_legacy, scripted, traced])
def test_scan_is_that_of_the_plain_state_dict(tmp_path, expected, write):
    path = tmp_path / "a.ckpt"
    write(trained(0), path)
    found = flagscope.scan(path).pairs.copy()
    names = found.select_dtypes("object").columns
    for column in names:
        found[column] = [
            value.replace("model.", "") if isinstance(value, str) else value
            for value in found[column]
        ]
    assert len(expected) == 2
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_settings_of_the_file_that_do_not_fit_are_left_aside(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"state_dict": ORIGINAL, "hparams": {"num_attention_heads": "8,8"}}, path)
    report = flagscope.scan(path)
    assert len(report.pairs) == 2


def llama_names(path: Path, **entries) -> None:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=32, intermediate_size=40, num_hidden_layers=2, vocab_size=17,
                         num_attention_heads=4, num_key_value_heads=4)  # fmt: skip
    torch.save({"state_dict": LlamaModel(config).state_dict()} | entries, path)


def test_settings_of_the_file_give_what_a_config_would(tmp_path):
    llama_names(tmp_path / "a.ckpt", hyper_parameters={"num_attention_heads": 4, "lr": 0.1})
    llama_names(tmp_path / "b.ckpt")
    assert flagscope.inspect(tmp_path / "b.ckpt").graph.heads == ()
    found = flagscope.inspect(tmp_path / "a.ckpt")
    expected = flagscope.inspect(tmp_path / "b.ckpt", heads=4).graph
    assert len(found.graph.heads) > 0
    assert [(group.layer, group.space, group.count, group.map) for group in found.graph.heads] == [
        (group.layer, group.space, group.count, group.map) for group in expected.heads
    ]


def test_settings_that_say_nothing_of_the_model_hide_no_assumption(tmp_path):
    llama_names(tmp_path / "a.ckpt", hyper_parameters={"lr": 0.1})
    llama_names(tmp_path / "b.ckpt")
    found, plain = (flagscope.inspect(tmp_path / f"{name}.ckpt") for name in "ab")
    assert any("without a config" in note for note in plain.graph.notes)
    assert found.graph.notes == plain.graph.notes


def test_group_is_chosen_in_all_that_opens_sources(tmp_path, capsys):
    path = tmp_path / "gan.pt"
    torch.save({"generator": ORIGINAL, "discriminator": trained(1).state_dict()}, path)
    flat = {f"{group}.{name}": tensor for group in ("generator", "discriminator")
            for name, tensor in ORIGINAL.items()}  # fmt: skip
    assert len(flagscope.inspect(path, tensors="generator").graph.pairs) == 2
    assert len(flagscope.scan(flat, tensors="discriminator").pairs) == 2
    with pytest.raises(InputError, match="tensors"):
        flagscope.scan(trained(0), tensors="layers")
    assert run("inspect", str(path)) == 2
    captured = capsys.readouterr()
    assert "generator, discriminator" in captured.err
    assert "--tensors generator" in captured.err
    assert run("scan", str(path), "--tensors", "discriminator", "--json", "-", "--quiet") == 0
    document = json.loads(capsys.readouterr().out)
    assert any("entry discriminator" in note for note in document["notes"])
    assert run("scan", str(path), "--tensors", "discriminatr") == 2
    assert "generator, discriminator" in capsys.readouterr().err


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_results_of_one_group_are_not_taken_for_those_of_another(tmp_path):
    path = tmp_path / "two.pt"
    near, far = torch.zeros(64, 4096), torch.zeros(64, 4096)
    near[0, 0] = far[0, 0] = 1.0
    far[20] = torch.randn(4096)  # not among what a fingerprint samples
    last = torch.randn(8, 64)
    torch.save({"a": {"0.weight": near, "1.weight": last},
                "b": {"0.weight": far, "1.weight": last}}, path)  # fmt: skip
    store = tmp_path / "store"
    found = [flagscope.scan(path, tensors=group, store=store).result for group in ("a", "b")]
    assert found[0].fingerprint == found[1].fingerprint
    assert found[1].run.tasks_from_store == 0


def test_a_module_takes_a_given_config():
    net = nn.Module()
    net.config = {"num_attention_heads": 2}
    net.layers = nn.ModuleList([nn.Module()])
    attention = net.layers[0].self_attn = nn.Module()
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        setattr(attention, name, nn.Linear(16, 16, bias=False))
    counts = {
        heads: flagscope.inspect(net, config={"model_type": "llama", "num_attention_heads": heads,
                                              "hidden_size": 16, "num_hidden_layers": 1})
        .graph.heads[0].count
        for heads in (2, 8)
    }  # fmt: skip
    assert counts == {2: 2, 8: 8}
