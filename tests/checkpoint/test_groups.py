"""Files with several groups of tensors: which is read, what is said, how another is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint
from flagscope.checkpoint.groups.choice import choice
from flagscope.checkpoint.opening import reopened
from flagscope.errors import InputError, SourceError

NET = {"fc1.weight": torch.randn(8, 4), "fc1.bias": torch.randn(8), "fc2.weight": torch.randn(3, 8)}
OTHER = {name: tensor + 1 for name, tensor in NET.items()}
ADAM = torch.optim.Adam([torch.nn.Parameter(torch.ones(3, 3))])
ADAM.param_groups[0]["params"][0].sum().backward()
ADAM.step()
ADAM = ADAM.state_dict()


@pytest.fixture(params=["zip", "legacy", "memory"])
def opened(request, tmp_path):
    def open_it(content: Mapping[str, Any], tensors: str | None = None):
        if request.param == "memory":
            return from_state_dict(content, tensors=tensors)
        path = tmp_path / "c.pt"
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
        return open_checkpoint(path, tensors=tensors)

    return open_it


def assert_holds(checkpoint, state) -> None:
    assert set(checkpoint.tensors) == set(state)
    for name, tensor in state.items():
        assert checkpoint.read(name).equal(tensor)


@pytest.mark.parametrize(
    "content",
    [
        {"model_state": NET, "optimizer_state": ADAM},
        {"policy_state_dict": NET, "optim_state_dict": ADAM},
        {"model_dict": NET, "optim_dict": ADAM},
        {"my_network": NET, "opt": ADAM},
        {"a": NET, "b": ADAM},  # by what it holds
        {"weights_of_it": NET, "lr_scheduler": {"base": torch.ones(2, 2)}, "epoch": 3},
        {"generator": NET, "optimizer_G": ADAM, "scaler": {"scale": torch.ones(1)}},
        {"mine": NET, "rng_state": torch.get_rng_state(), "best": torch.tensor(0.5)},
        {"mine": NET, "statistics": {"mean": torch.ones(3), "cov": torch.eye(3)}},
        {"mine": NET, "normaliser": {"mean": torch.ones(3), "std": torch.ones(3)}},
        {"mine": NET, "history": {"loss": torch.ones(3, 3)}},
        {"mine_ema": NET, "optimizer": ADAM},
        {"checkpoint": {"mine": NET, "optimizer": ADAM}, "args": {"lr": 0.1}},
    ],
    ids=lambda content: " ".join(content),
)
def test_names_next_to_it_settle_which_is_the_model(opened, content):
    with opened(content) as checkpoint:
        assert_holds(checkpoint, NET)
        assert "read the entry" in checkpoint.notes[0]
        assert not any("--tensors" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("content", "other"),
    [
        ({"params": NET, "params_ema": OTHER}, "params_ema"),
        ({"model": NET, "ema": OTHER}, "ema"),
        ({"state_dict": NET, "state_dict_ema": OTHER}, "state_dict_ema"),
        ({"mine": NET, "mine_ema": OTHER}, "mine_ema"),
        ({"mine": NET, "swaModel": OTHER}, "swaModel"),
        ({"model": NET, "discriminator": OTHER, "optimizer": ADAM}, "discriminator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_is_read_and_the_note_says_how_to_read_the_other(opened, content, other):
    with opened(content) as checkpoint:
        assert_holds(checkpoint, NET)
        [note] = [note for note in checkpoint.notes if "--tensors" in note]
        assert f"--tensors {other}" in note
    with opened(content, other) as checkpoint:
        assert_holds(checkpoint, OTHER)
        assert checkpoint.group == other


@pytest.mark.parametrize(
    "names",
    [("generator", "discriminator"), ("actor", "critic"), ("a", "b"), ("encoder", "critic"),
     ("netG", "netD"), ("online", "target")],
)  # fmt: skip
def test_two_models_are_not_guessed_between(opened, names):
    content = {names[0]: NET, names[1]: OTHER, "optimizer": ADAM, "epoch": 3}
    with pytest.raises((SourceError, InputError), match=", ".join(names)) as error:
        opened(content)
    assert f"--tensors {names[0]}" in error.value.hint
    for name, state in zip(names, (NET, OTHER), strict=True):
        with opened(content, name) as checkpoint:
            assert_holds(checkpoint, state)


def test_files_are_whole_where_only_the_choice_is_missing(tmp_path):
    torch.save({"generator": NET, "discriminator": OTHER}, tmp_path / "c.pt")
    with pytest.raises(SourceError) as error:
        open_checkpoint(tmp_path / "c.pt")
    assert type(error.value) is SourceError


@pytest.mark.parametrize("suffix", ["", "_state_dict", "_dict"])
def test_parts_of_one_model_are_read_together(opened, suffix):
    content = {"encoder" + suffix: NET, "decoder" + suffix: OTHER, "optimizer": ADAM}
    joined = {f"encoder.{name}": tensor for name, tensor in NET.items()}
    joined |= {f"decoder.{name}": tensor for name, tensor in OTHER.items()}
    with opened(content) as checkpoint:
        assert_holds(checkpoint, joined)
        assert "parts of one model" in checkpoint.notes[0]
        assert f"--tensors encoder{suffix}" in checkpoint.notes[0]
    with opened(content, "decoder" + suffix) as checkpoint:
        assert_holds(checkpoint, OTHER)


def test_several_groups_may_be_named(opened):
    content = {"actor": NET, "critic": OTHER, "third": NET}
    with opened(content, "critic,actor") as checkpoint:
        assert set(checkpoint.tensors) == {
            f"{group}.{name}" for group in ("actor", "critic") for name in NET
        }
        assert checkpoint.read("critic.fc1.bias").equal(OTHER["fc1.bias"])


def test_nested_groups(opened):
    content = {"model": {"generator": NET, "discriminator": {"state_dict": OTHER}}, "epoch": 1}
    with pytest.raises((SourceError, InputError), match=r"model\.generator, model\.discriminator"):
        opened(content)
    for name, state in (("model.generator", NET), ("model.discriminator", OTHER),
                        ("model.discriminator.state_dict", OTHER), ("generator", NET)):  # fmt: skip
        with opened(content, name) as checkpoint:
            assert_holds(checkpoint, state)


def test_keys_with_dots_in_them(opened):
    with opened({"a.b": NET, "a": {"b": {"c": OTHER}}}, "a.b") as checkpoint:
        assert_holds(checkpoint, NET)
    with opened({"a.b": NET, "a": {"b": {"c": OTHER}}}, "a.b.c") as checkpoint:
        assert_holds(checkpoint, OTHER)


@pytest.mark.parametrize("content", [{"generator": NET, "discriminator": OTHER}, {"model": NET}])
@pytest.mark.parametrize("wrong", ["genrator", "optimizer", "", "epoch", "generator.fc1.weight.x"])
def test_a_group_that_is_not_there_is_an_error_that_names_those_that_are(opened, content, wrong):
    with pytest.raises(InputError, match="no group of tensors") as error:
        opened(content | {"epoch": 3}, wrong)
    for name in content:
        assert name in error.value.hint


def test_parts_of_a_flat_state_dict(opened):
    flat = {f"generator.{name}": tensor for name, tensor in NET.items()}
    flat |= {f"discriminator.{name}": tensor for name, tensor in OTHER.items()}
    for content in (
        flat,
        {"state_dict": flat, "epoch": 3},
        {f"module.{k}": v for k, v in flat.items()},
    ):
        with opened(content) as checkpoint:
            assert set(checkpoint.tensors) == set(flat)
        with opened(content, "discriminator") as checkpoint:
            assert_holds(checkpoint, OTHER)


AVERAGES = {
    "lightning": ("model.", "ema_model.", {"ema_model.decay": torch.tensor(0.9)}),
    "top": ("", "ema.", {}),
    "timm": ("", "ema.module.", {"ema.updates": torch.tensor(4)}),
    "lucidrains": ("model.", "ema.ema_model.", {"ema.initted": torch.tensor([True])}),
    "swa": ("net.", "averaged_model.module.", {"averaged_model.n_averaged": torch.tensor(4)}),
    "deep": ("a.unet.", "a.unet_ema.", {}),
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_in_one_state_dict_are_read_once(opened, kind):
    of, start, counters = AVERAGES[kind]
    plain = {f"{of}{name}": tensor for name, tensor in NET.items()} | {"head.weight": torch.eye(3)}
    average = {f"{start}{name}": tensor for name, tensor in OTHER.items()} | counters
    for content in (plain | average, {"state_dict": average | plain}):
        with opened(content) as checkpoint:
            assert_holds(checkpoint, plain)
            [note] = [note for note in checkpoint.notes if "moving average" in note]
            group = start.rstrip(".").removesuffix(".module")  # wrappers are no part of names
            assert f"--tensors {group}" in note
        with opened(content, group) as checkpoint:
            left = {name: checkpoint.tensors[name] for name in checkpoint.tensors}
            assert {name for name in left if "weight" in name or "bias" in name} == set(OTHER)
            assert all(checkpoint.read(name).equal(tensor) for name, tensor in OTHER.items())


def test_averages_whose_names_lost_their_dots(opened):
    plain = {f"model.{name}": tensor for name, tensor in NET.items()}
    average = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in OTHER.items()}
    counters = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(7)}
    with opened(plain | average | counters) as checkpoint:
        assert_holds(checkpoint, plain)
    with opened(plain | average | counters, "model_ema") as checkpoint:
        assert_holds(checkpoint, OTHER)


@pytest.mark.parametrize(
    "average",
    [
        {"ema.fc1.weight": torch.ones(8, 5), "ema.fc2.weight": torch.ones(3, 8)},  # other shapes
        {"ema.fc1.weight": torch.ones(8, 4), "ema.fc2.weight": torch.ones(4, 8)},  # one of them
        {"ema.fc1.weight": torch.ones(8, 4), "ema.own.weight": torch.ones(2, 2)},  # more than once
        {"ema.fc1.bias": torch.ones(8)},  # a vector alone proves nothing
        {"emanate.fc1.weight": torch.ones(8, 4)},  # another word
        {"layers.0.ema.alpha": torch.ones(8, 4)},  # no tensor of the name elsewhere
    ],
)
def test_what_is_no_average_of_others_is_read(opened, average):
    with opened(NET | average) as checkpoint:
        assert set(checkpoint.tensors) == set(NET | average)


def test_averages_and_parts_in_files_of_other_formats(tmp_path):
    average = {f"ema_model.{name}": tensor for name, tensor in OTHER.items()}
    plain = {f"model.{name}": tensor for name, tensor in NET.items()}
    path = tmp_path / "a.safetensors"
    save_file(plain | average, path)
    with open_checkpoint(path) as checkpoint:
        assert_holds(checkpoint, plain)
    with open_checkpoint(path, tensors="ema_model") as checkpoint:
        assert_holds(checkpoint, OTHER)
        assert checkpoint_fingerprint(checkpoint) == checkpoint_fingerprint(from_state_dict(OTHER))
    with pytest.raises(InputError, match="no group") as error:
        open_checkpoint(path, tensors="mode")
    assert "model, ema_model" in error.value.hint or "ema_model, model" in error.value.hint


def test_lists_of_state_dicts(tmp_path):
    path = tmp_path / "c.pt"
    torch.save((NET, ADAM), path)
    with open_checkpoint(path) as checkpoint:
        assert_holds(checkpoint, NET)
    torch.save([NET, OTHER], path)
    with open_checkpoint(path, tensors="1") as checkpoint:
        assert_holds(checkpoint, OTHER)
    with pytest.raises(SourceError, match="0, 1"):
        open_checkpoint(path)


def test_an_optimiser_alone_is_no_model(opened):
    with pytest.raises((SourceError, InputError), match=r"no model's weights.*optimizer") as error:
        opened({"epoch": 3, "optimizer": ADAM})
    assert error.value.hint


def test_the_file_of_an_optimiser_is_no_model(opened):
    with pytest.raises((SourceError, InputError), match=r"no model's weights"):
        opened(ADAM)
    with pytest.raises((SourceError, InputError), match=r"no model's weights.*optim"):
        opened({"model": NET, "optim": ADAM}, "optim")


def test_a_copy_in_another_process_reads_the_same_group(tmp_path):
    import pickle

    path = tmp_path / "c.pt"
    torch.save({"generator": NET, "discriminator": OTHER}, path)
    for name, state in (("generator", NET), ("discriminator", OTHER)):
        with open_checkpoint(path, tensors=name) as checkpoint:
            with pickle.loads(pickle.dumps(checkpoint)) as copy:
                assert_holds(copy, state)
            with reopened(checkpoint.recipe) as again:
                assert_holds(again, state)


def test_identity_of_a_scan_says_which_group_was_read(tmp_path):
    from flagscope.engine.store.task_keys import weights_identity

    # They differ by one element that a fingerprint does not sample.
    near = torch.zeros(300, 300)
    far = near.clone()
    far[60, 7] = 1.0
    path: Path = tmp_path / "c.pt"
    torch.save({"a": {"w": near}, "b": {"w": far}}, path)
    found = []
    for name in ("a", "b"):
        with open_checkpoint(path, tensors=name) as checkpoint:
            found.append((checkpoint_fingerprint(checkpoint), weights_identity(checkpoint, "f")))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_repeated_mappings_are_met_once():
    level: dict[str, Any] = {"leaf": 1}
    for _ in range(12):
        level = {str(k): level for k in range(60)}
    assert choice(level).keys == ()
