"""Files that torch.save writes: what training scripts put into them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from flagscope.checkpoint import from_state_dict, open_checkpoint
from flagscope.errors import CorruptFileError, InputError

RESNET = Path(__file__).parents[3] / "shared/data/resnet20-cifar10/resnet20-12fca82f.th"
W = torch.arange(12.0).reshape(3, 4)


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def saved(request, tmp_path):
    def save(value, name: str = "weights.pt") -> Path:
        path = tmp_path / name
        torch.save(value, path, _use_new_zipfile_serialization=request.param)
        return path

    return save


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
        lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": W}}}},
        lambda state: {"model_state_dict": state, "ema": {"w": W + 1}},
        lambda state: {"anything": OrderedDict(state), "args": {"lr": 0.1}},
        lambda state: {"epoch": torch.tensor(3), "state_dict": state},
        lambda state: {"checkpoint": {"model": {"state_dict": state}}},
        lambda state: {"module": {f"module.{name}": tensor for name, tensor in state.items()}},
    ],
)
def test_state_dict_is_found_where_scripts_put_it(saved, wrap):
    with open_checkpoint(saved(wrap({"w": W, "b": W[0]}))) as checkpoint:
        assert list(checkpoint.tensors) == ["w", "b"]
        assert checkpoint.read("w").equal(W)
        assert "read the entry" in checkpoint.notes[0]


def test_several_models_are_not_guessed_between(saved):
    path = saved({"generator": {"w": W}, "discriminator": {"w": W}})
    with pytest.raises(CorruptFileError, match="generator, discriminator") as error:
        open_checkpoint(path)
    assert "state dict" in error.value.hint


def test_entries_that_are_no_dense_tensors_are_counted(saved):
    path = saved({"w": W, "epoch": 3, "name": "run", "sparse": torch.eye(3).to_sparse()})
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.notes == (
            "passed over 3 entries that are not dense tensors: epoch, name, sparse",
        )


@pytest.mark.parametrize("value", [{}, {"epoch": 3}, [W], W, 7, {0: W}])
def test_file_without_named_tensors_is_an_error(saved, value):
    with pytest.raises(CorruptFileError) as error:
        open_checkpoint(saved(value))
    assert error.value.hint


def test_tied_tensors_stand_under_both_names(saved):
    with open_checkpoint(saved({"embedding": W, "head": W})) as checkpoint:
        assert checkpoint.read("head").equal(checkpoint.read("embedding"))


def test_views_are_read_as_they_looked(saved):
    views = {
        "turned": W.T,
        "odd": W[:, 1::2],
        "repeated": W[0].expand(5, 4),
        "single": W[0, :1],
        "constant": torch.ones(1).expand(3, 7),
        "one": W[:1, 2:3].T,
    }
    with open_checkpoint(saved(views)) as checkpoint:
        for name, view in views.items():
            assert checkpoint.read(name).equal(view)
            assert checkpoint.read(name, (-1,)).equal(view[-1])
        assert checkpoint.fingerprint() == from_state_dict(views).fingerprint()


def test_tensors_saved_on_a_gpu_come_to_the_cpu(saved, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = saved({"w": W})
    assert b"cuda:0" in path.read_bytes()
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").device.type == "cpu"
        assert checkpoint.read("w").equal(W)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
def test_zip_files_are_mapped(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(1000, 1000)}, path)
    with open_checkpoint(path) as checkpoint:
        address = checkpoint.read("w").data_ptr()
        for line in Path("/proc/self/maps").read_text().splitlines():
            if line.endswith(str(path)):
                start, stop = (int(end, 16) for end in line.split()[0].split("-"))
                assert start <= address < stop
                break
        else:
            pytest.fail("the file is not mapped")


def test_writing_to_what_was_read_leaves_the_file(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": W.clone()}, path)
    with open_checkpoint(path) as checkpoint:
        checkpoint.read("w").zero_()
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").equal(W)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".th", ".ckpt", ".PT", ".unheard"])
def test_suffixes(saved, suffix):
    with open_checkpoint(saved({"w": W}, "x" + suffix)) as checkpoint:
        assert checkpoint.read("w").equal(W)


@pytest.mark.skipif(not RESNET.exists(), reason="the trained network is not on this machine")
def test_trained_resnet_of_the_older_format():
    with open_checkpoint(RESNET) as checkpoint:
        assert checkpoint.tensors["conv1.weight"].shape == (16, 3, 3, 3)
        assert checkpoint.tensors["linear.weight"].shape == (10, 64)
        assert not any(name.startswith("module.") for name in checkpoint.tensors)
        saved = torch.load(RESNET, map_location="cpu", weights_only=True)["state_dict"]
        assert len(saved) == len(checkpoint.tensors)
        for name, tensor in saved.items():
            assert checkpoint.read(name.removeprefix("module.")).equal(tensor)


def test_state_dicts_in_memory_are_opened_up_alike():
    checkpoint = from_state_dict({"model": {"module.w": W}, "epoch": 1})
    assert checkpoint.read("w").equal(W)
    with pytest.raises(InputError, match="several groups"):
        from_state_dict({"a": {"w": W}, "b": {"w": W}})
