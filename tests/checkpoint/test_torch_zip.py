"""Zip files with torch files in them, as Stable-Baselines3 saves an agent."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, InputError, SourceError

POLICY = {"mlp.0.weight": torch.randn(8, 4), "mlp.2.weight": torch.randn(8, 8)}
OTHER = {name: tensor + 1 for name, tensor in POLICY.items()}


def as_bytes(value, new: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def adam() -> dict:
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def zipped(path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("data", '{"policy_class": "MlpPolicy"}')
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
        archive.writestr("_stable_baselines3_version", "2.3.0")
    return path


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".zip", ".pt", ".unheard"])
def test_the_only_member_that_holds_a_model_is_read(tmp_path, new, suffix):
    path = zipped(
        tmp_path / ("agent" + suffix),
        policy__optimizer__pth=as_bytes(adam(), new),
        policy__pth=as_bytes(POLICY, new),
        pytorch_variables__pth=as_bytes({"log_ent_coef": torch.ones(1)}, new),
    )
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.tensors) == set(POLICY)
        for name, tensor in POLICY.items():
            assert checkpoint.read(name).equal(tensor)
        assert any("policy.pth" in note for note in checkpoint.notes)
        with pickle.loads(pickle.dumps(checkpoint)) as copy:
            assert copy.read("mlp.0.weight").equal(POLICY["mlp.0.weight"])


def test_several_members_with_models_are_named(tmp_path):
    path = zipped(
        tmp_path / "agent.zip",
        policy__pth=as_bytes(POLICY),
        critic__pth=as_bytes({"state_dict": OTHER, "epoch": 3}),
        actor__optimizer__pth=as_bytes(adam()),
    )
    with pytest.raises(SourceError, match=r"policy\.pth, critic\.pth") as error:
        open_checkpoint(path)
    assert "--tensors policy.pth" in error.value.hint
    for name, state in (
        ("policy.pth", POLICY),
        ("critic.pth", OTHER),
        ("critic.pth.state_dict", OTHER),
    ):
        with open_checkpoint(path, tensors=name) as checkpoint:
            assert checkpoint.read("mlp.2.weight").equal(state["mlp.2.weight"])
    with pytest.raises(InputError, match="no group") as wrong:
        open_checkpoint(path, tensors="value.pth")
    assert "policy.pth, critic.pth" in wrong.value.hint


def test_compressed_members_say_what_to_do(tmp_path):
    path = zipped(tmp_path / "agent.zip", zipfile.ZIP_DEFLATED, policy__pth=as_bytes(POLICY))
    with pytest.raises(SourceError, match=r"policy\.pth compressed") as error:
        open_checkpoint(path)
    assert type(error.value) is SourceError
    assert "unzip" in error.value.hint


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"model__safetensors": b"x"}, "model.safetensors"),
        ({"readme__txt": b"x"}, "readme.txt"),
        ({"policy__pth": b"not a torch file"}, "policy.pth"),
    ],
)
def test_zip_files_of_other_things_are_not_called_damaged(tmp_path, members, says):
    path = zipped(tmp_path / "agent.zip", **members)
    with pytest.raises(SourceError, match=says) as error:
        open_checkpoint(path)
    assert "give the" in error.value.hint
    assert "damaged or was cut short" not in error.value.hint


def test_damage_inside_is_called_damage(tmp_path):
    cut = as_bytes(POLICY)[:-200]
    with pytest.raises(CorruptFileError, match=r"policy\.pth"):
        open_checkpoint(zipped(tmp_path / "agent.zip", policy__pth=cut))


def test_arrays_under_a_name_of_torch(tmp_path):
    with (tmp_path / "a.pt").open("wb") as file:
        np.savez(file, w=np.ones(3))
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert checkpoint.read("w").tolist() == [1.0, 1.0, 1.0]
        assert any("read as a npz file" in note for note in checkpoint.notes)
