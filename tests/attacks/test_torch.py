"""PyTorch files with code, lies and damage. Code is never run: a canary would show it."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, UnsafeFileError

W = torch.arange(1000.0)


class Trap:
    """An object whose unpickling runs a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        function, *arguments = self.call
        return function, tuple(arguments)


class Items(dict):
    """A mapping of a class of its own, which is pickled item by item."""


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "pickled code was run"


def traps(canary: Path) -> dict[str, Trap]:
    return {
        "os.system": Trap(os.system, f"touch {canary}"),
        "exec": Trap(exec, f"open({str(canary)!r}, 'w').close()"),
        "eval": Trap(eval, f"open({str(canary)!r}, 'w')"),
        "open": Trap(open, str(canary), "w"),
        "getattr": Trap(getattr, Path(canary), "touch"),
        "torch.save": Trap(torch.save, 1, str(canary)),
        "torch.load": Trap(torch.load, str(canary)),
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("trap", traps(Path()))
def test_code_alone_is_refused_and_not_run(tmp_path, refused, canary, legacy, trap):
    path = tmp_path / "a.pt"
    torch.save(traps(canary)[trap], path, _use_new_zipfile_serialization=not legacy)
    error = refused(path, UnsafeFileError, "nothing of it was run")
    assert "state_dict" in error.hint


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("trap", traps(Path()))
@pytest.mark.parametrize("place", ["value", "key", "nested", "state", "items", "config"])
def test_code_next_to_tensors_is_not_run_and_named(tmp_path, canary, legacy, trap, place):
    call = traps(canary)[trap]
    content = {
        "value": {"w": W, "trap": call},
        "key": {"w": W, (call,): 1},
        "nested": {"state_dict": {"w": W}, "extra": [{"x": (call,)}]},
        "state": {"state_dict": {"w": W}, "extra": argparse.Namespace(deeper=[call])},
        "items": {"state_dict": {"w": W}, "extra": Items({"a": call})},
        "config": {"state_dict": {"w": W}, "hparams": {"heads": call, "width": 3}},
    }[place]
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.read("w").equal(W)
        function, *_ = call.call
        [note] = [note for note in checkpoint.notes if "may run" in note]
        assert function.__qualname__ in note
        assert checkpoint.stored_config == ({"width": 3} if place == "config" else None)


def test_settings_of_pytorch_are_overruled(tmp_path, canary, monkeypatch):
    torch.save({"w": W, "trap": traps(canary)["os.system"]}, tmp_path / "a.pt")
    for setting in ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
        with monkeypatch.context() as patch:
            patch.setenv(setting, "1")
            with open_checkpoint(tmp_path / "a.pt") as checkpoint:
                assert checkpoint.read("w").equal(W)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".th", ".unheard"])
def test_plain_pickle_is_refused_and_not_run(tmp_path, refused, canary, protocol, suffix):
    path = tmp_path / ("a" + suffix)
    path.write_bytes(pickle.dumps(traps(canary)["os.system"], protocol))
    if protocol >= 2:  # earlier protocols are plain text, which is simply no PyTorch file
        refused(path, UnsafeFileError, "plain pickle")
    elif suffix != ".unheard":
        refused(path, CorruptFileError)


def test_code_hidden_in_the_legacy_preamble(tmp_path, refused, canary):
    parts = [0x1950A86A20F9469CFC6C, 1001, traps(canary)["os.system"], {}, []]
    path = tmp_path / "a.pt"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    refused(path, CorruptFileError, "byte order")


def test_old_tar_format_is_refused(tmp_path, refused):
    with tarfile.open(tmp_path / "a.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    refused(tmp_path / "a.pt", CorruptFileError)


def saved(path: Path, content=None, **how) -> bytes:
    torch.save({"w": W, "n": torch.tensor(3)} if content is None else content, path, **how)
    return path.read_bytes()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_truncated_anywhere(tmp_path, legacy):
    path = tmp_path / "a.pt"
    whole = saved(path, _use_new_zipfile_serialization=not legacy)
    for size in [*range(1, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises((CorruptFileError, UnsafeFileError)) as error:
            open_checkpoint(path)
        # Cut inside the name of a class, a legacy file asks for a class that is not known.
        assert legacy or isinstance(error.value, CorruptFileError)
        assert error.value.hint


def rewritten(path: Path, change, compression: int = zipfile.ZIP_STORED) -> Path:
    """The zip file with every member put through `change(name, data)`; None drops it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            changed = change(name.partition("/")[2], data)
            if changed is not None:
                archive.writestr(name, changed)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda name, data: data[:400] if name == "data/0" else data,
        lambda name, data: b"" if name == "data/0" else data,
        lambda name, data: None if name == "data/0" else data,
        lambda name, data: None if name == "data.pkl" else data,
        lambda name, data: b"" if name == "data.pkl" else data,
        lambda name, data: data[:50] if name == "data.pkl" else data,
        lambda name, data: b"mixed" if name == "byteorder" else data,
        lambda name, data: data.replace(b"M\xe8\x03", b"M\xff\xff"),
    ],
    ids=[
        "short storage",
        "empty storage",
        "no storage",
        "no pickle",
        "empty pickle",
        "cut pickle",
        "byte order",
        "larger shape",
    ],
)
def test_members_that_do_not_fit(tmp_path, refused, change):
    path = tmp_path / "a.pt"
    saved(path)
    refused(rewritten(path, change), CorruptFileError)


def test_bomb_of_compressed_members_is_not_unpacked(tmp_path, refused):
    path = tmp_path / "a.pt"
    saved(path, {"w": torch.zeros(2**24)})
    rewritten(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**17
    refused(path, CorruptFileError, "compressed members")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_bomb_of_repeated_elements(tmp_path, refused, legacy):
    path = tmp_path / "a.pt"
    content = {"w": torch.zeros(1).expand(10**6, 10**6)}
    saved(path, content, _use_new_zipfile_serialization=not legacy)
    refused(path, CorruptFileError, "claims 4000000000000 bytes")


def test_bomb_of_nested_mappings(tmp_path, refused):
    level: object = {"leaf": 1}
    for _ in range(6):
        level = {str(k): level for k in range(60)}
    saved(tmp_path / "a.pt", level)
    refused(tmp_path / "a.pt", CorruptFileError, "no dense tensors")


def test_legacy_storage_that_claims_terabytes(tmp_path, refused):
    path = tmp_path / "a.pt"
    whole = saved(path, _use_new_zipfile_serialization=False)
    assert whole.count(b"M\xe8\x03") == 2  # the storage's size and the tensor's
    for claimed in (2**40, 2**62):
        path.write_bytes(whole.replace(b"M\xe8\x03", b"\x8a\x08" + struct.pack("<Q", claimed)))
        refused(path, CorruptFileError)


def test_tensors_without_values(tmp_path, refused):
    saved(tmp_path / "a.pt", {"w": torch.empty(3, device="meta")})
    refused(tmp_path / "a.pt", CorruptFileError, "meta device")


def test_not_a_number_is_read_as_stored(tmp_path):
    saved(tmp_path / "a.pt", {"w": torch.tensor([torch.nan, torch.inf, 1.0])})
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert checkpoint.read("w").isfinite().tolist() == [False, False, True]
