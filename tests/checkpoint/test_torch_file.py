"""Files that torch.save writes: what training scripts put into them."""

from __future__ import annotations

import argparse
import zipfile
from collections import OrderedDict
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint
from flagscope.checkpoint.files.placed import PlacedBytes
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
        assert checkpoint_fingerprint(checkpoint) == checkpoint_fingerprint(from_state_dict(views))


def test_tensors_saved_on_a_gpu_come_to_the_cpu(saved, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = saved({"w": W})
    assert b"cuda:0" in path.read_bytes()
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").device.type == "cpu"
        assert checkpoint.read("w").equal(W)


def test_only_what_is_asked_for_is_read(saved, monkeypatch):
    wide = torch.arange(4e5).reshape(1000, 400)
    path, read = saved({"v": torch.ones(7), "w": wide, "t": wide.T}), []
    whole = PlacedBytes.read

    def counted(placed, start, stop, *checksum):
        read.append(stop - start)
        return whole(placed, start, stop, *checksum)

    monkeypatch.setattr(PlacedBytes, "read", counted)
    with open_checkpoint(path) as checkpoint:
        assert read == []
        assert checkpoint.read("w", (slice(10, 12),)).equal(wide[10:12])
        assert read == [2 * 400 * 4]
        assert checkpoint.read("t", (slice(None), 999)).equal(wide[999])
        assert read[1:] == [400 * 4]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's memory figures")
def test_what_was_read_and_let_go_takes_no_memory(saved):
    path = saved({f"w{i}": torch.ones(2**21) for i in range(16)})
    with open_checkpoint(path) as checkpoint:
        before = int(Path("/proc/self/statm").read_text().split()[1])
        assert sum(float(checkpoint.read(f"w{i}").sum()) for i in range(16)) == 2**25
        after = int(Path("/proc/self/statm").read_text().split()[1])
        assert (after - before) * 4096 < 2**25


def test_a_file_that_changes_under_a_reader_is_an_error(saved):
    path = saved({"w": torch.ones(4096)})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").sum() == 4096
        with path.open("r+b") as file:
            file.truncate(8192)
        with pytest.raises(CorruptFileError, match="changed"):
            checkpoint.read("w")


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_protocols_of_pickle(tmp_path, protocol, new):
    path = tmp_path / "w.pt"
    content = {"model": {"w": W, "b": W[0].double()}, "long name" * 40: [1, {2}, 2.5, b"x" * 300]}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").equal(W)
        assert checkpoint.read("b").equal(W[0].double())


def test_bits_of_conjugates_and_negatives(saved):
    values = torch.complex(W, W + 1)
    for state in ({"conjugate": values.conj(), "plain": values}, {"negative": values.conj().imag}):
        assert any(tensor.is_conj() or tensor.is_neg() for tensor in state.values())
        with open_checkpoint(saved(state)) as checkpoint:
            for name, tensor in state.items():
                expected = tensor.resolve_conj().resolve_neg()[1]
                assert checkpoint.read(name, (1,)).equal(expected)


def test_other_byte_order(tmp_path):
    values = {"f": W, "h": W.half(), "c": torch.complex(W, W + 1), "i": W.long(), "b": W > 3}
    path = tmp_path / "w.pt"
    torch.save(values, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if name.endswith("byteorder"):
                data = b"big"
            elif "/data/" in name:
                tensor = list(values.values())[int(name.rpartition("/")[2])]
                array = tensor.numpy()
                assert array.tobytes() == data
                data = array.astype(array.dtype.newbyteorder(">")).tobytes()
            archive.writestr(name, data)
    with open_checkpoint(path) as checkpoint:
        for name, tensor in values.items():
            assert checkpoint.read(name).equal(tensor), name


class Own(torch.Tensor):
    """A tensor of a class of its own."""


def test_parameters_and_tensors_of_own_classes(saved):
    parameter = torch.nn.Parameter(W)
    parameter.mark = "of mine"
    state = {"p": torch.nn.Parameter(W + 1), "marked": parameter, "own": W.as_subclass(Own)}
    with open_checkpoint(saved(state)) as checkpoint:
        assert list(checkpoint.tensors) == ["p", "marked", "own"]
        assert checkpoint.read("p").equal(W + 1)
        assert checkpoint.read("marked").equal(W)
        assert checkpoint.read("own").equal(W)


@pytest.mark.parametrize(
    "extra",
    [
        np.float64(0.3),
        np.arange(3.0),
        argparse.Namespace(lr=0.1),
        torch.nn.functional.mse_loss,
        torch.optim.SGD([torch.nn.Parameter(W)], lr=0.1),
        torch.Generator(),
        Path("here"),
        torch.eye(3).to_sparse(),
        {3, 4},
        Fraction(1, 3),
        datetime(2020, 1, 1),
    ],
    ids=lambda extra: type(extra).__name__,
)
def test_objects_next_to_a_state_dict_are_passed_over(saved, extra):
    content = {"state_dict": {"w": W}, "extra": extra}
    if isinstance(extra, torch.Generator):
        content["extra"] = extra.get_state()
    with open_checkpoint(saved(content)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.read("w").equal(W)
        assert "passed over next to it: extra" in checkpoint.notes[0]


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
