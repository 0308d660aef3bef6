"""Groups of saved optimisers: PyTorch's own files, and checkpoints in Lightning's layout."""

from __future__ import annotations

import pytest
import torch

from flagscope.errors import CorruptFileError, InputError
from flagscope.series.rates import read_optimiser, schedule_from_optimisers


def made(kind=torch.optim.SGD, **settings):
    maps = [torch.ones(2, 2, requires_grad=True) for _ in range(3)]
    optimiser = kind(
        [
            {"params": maps[:2], "weight_decay": 0.1},
            {"params": maps[2:], "weight_decay": 0.0},
        ],
        **({"lr": 0.5} | settings),
    )
    for tensor in maps:
        tensor.grad = torch.ones_like(tensor)
    optimiser.step()
    return optimiser


def lightning(optimiser, step=7):
    """As Lightning's Trainer.save_checkpoint lays it out."""
    return {
        "epoch": 1,
        "global_step": step,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {"net.weight": torch.ones(2, 2)},
        "optimizer_states": [optimiser.state_dict()],
        "lr_schedulers": [{"base_lrs": [0.5], "last_epoch": step, "_last_lr": [0.5]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.5, "weight_decay": 0.1},
    }


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, "sgd"),
        (torch.optim.AdamW, {"betas": (0.8, 0.95)}, "adamw"),
        (torch.optim.Adam, {}, None),
        (torch.optim.RMSprop, {}, None),
    ],
)
def test_the_groups_are_those_of_the_optimiser(tmp_path, kind, settings, named):
    optimiser = made(kind, **settings)
    torch.save(optimiser.state_dict(), tmp_path / "optimizer.pt")
    torch.save(lightning(optimiser), tmp_path / "last.ckpt")
    plain, wrapped = (read_optimiser(tmp_path / name) for name in ("optimizer.pt", "last.ckpt"))
    assert plain.groups == wrapped.groups
    # Of these, SGD alone keeps no count.
    assert (plain.step, wrapped.step) == (None if kind is torch.optim.SGD else 1, 7)
    assert plain.optimiser == named
    first, second = plain.groups
    assert (first.decay, second.decay, first.parameters, second.parameters) == (0.1, 0.0, 2, 1)
    assert first.learning_rate == 0.5
    assert first.momentum == settings.get("momentum", 0.0)
    assert first.nesterov == settings.get("nesterov", False)
    if "betas" in settings:
        assert first.betas == (0.8, 0.95)


def test_a_learning_rate_kept_as_a_tensor_is_read(tmp_path):
    optimiser = made(torch.optim.AdamW, lr=torch.tensor(0.25))
    torch.save(optimiser.state_dict(), tmp_path / "optimizer.pt")
    assert read_optimiser(tmp_path / "optimizer.pt").groups[0].learning_rate == 0.25


def test_a_series_of_optimisers_is_a_schedule(tmp_path):
    saved = {}
    for step, rate in ((10, 0.5), (20, 0.4), (30, 0.1)):
        torch.save(made(lr=rate).state_dict(), tmp_path / "optimizer.pt")
        saved[step] = read_optimiser(tmp_path / "optimizer.pt")
    schedule = schedule_from_optimisers(saved)
    assert (schedule.optimiser, schedule.only_decayed.name) == ("sgd", "group 0")
    assert "interpolated" in schedule.notes[0]
    rates = schedule.only_decayed.rates
    assert len(rates) == 30
    assert (rates.low[15], rates.high[15]) == (0.4, 0.5)
    assert schedule_from_optimisers(saved, updates=50).only_decayed.rates.low[45] == 0
    assert schedule_from_optimisers(saved, optimiser="adamw").optimiser == "adamw"
    assert schedule_from_optimisers(saved, source="here").source == "here"


def test_series_that_do_not_fit_each_other_are_refused(tmp_path):
    path = tmp_path / "optimizer.pt"
    torch.save(made().state_dict(), path)
    one = read_optimiser(path)
    torch.save(torch.optim.SGD([torch.ones(1)], lr=0.1).state_dict(), path)
    with pytest.raises(InputError, match="numbers of groups"):
        schedule_from_optimisers({1: one, 2: read_optimiser(path)})
    changed = made()
    changed.param_groups[0]["weight_decay"] = 0.2
    torch.save(changed.state_dict(), path)
    with pytest.raises(InputError, match="changes along the series"):
        schedule_from_optimisers({1: one, 2: read_optimiser(path)})
    with pytest.raises(InputError, match="no optimiser"):
        schedule_from_optimisers({})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": torch.ones(2)}, "no optimiser"),
        ({"optimizer_states": []}, "holds 0 optimisers"),
        ({"optimizer_states": [1, 2]}, "holds 2 optimisers"),
        ({"state": {}, "param_groups": []}, "no list of groups"),
        ({"state": {}, "param_groups": {"lr": 1}}, "no list of groups"),
        ({"state": {}, "param_groups": [3]}, "no learning rate"),
        ({"state": {}, "param_groups": [{"lr": "fast"}]}, "not a number"),
        ({"state": {}, "param_groups": [{"lr": torch.ones(2)}]}, "not a number"),
        ({"state": {}, "param_groups": [{"lr": float("inf")}]}, "not a number"),
        ({"state": {}, "param_groups": [{"lr": -1.0}]}, "negative"),
        ({"state": {}, "param_groups": [{"lr": 1.0, "weight_decay": -1.0}]}, "negative"),
    ],
)
def test_files_of_no_optimiser_are_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "optimizer.pt")
    with pytest.raises(CorruptFileError, match=words):
        read_optimiser(tmp_path / "optimizer.pt")
