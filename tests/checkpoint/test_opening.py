"""From a source to its reader: folders, shards, configurations, and what is no source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import (
    CorruptFileError,
    FlagscopeError,
    InputError,
    MissingFileError,
    SourceError,
)

W = torch.arange(12.0).reshape(3, 4)


def save(path: Path, value: float = 0.0) -> Path:
    tensors = {"w": W + value}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def opened_value(source) -> float:
    with open_checkpoint(source) as checkpoint:
        return checkpoint.read("w", (0, 0)).item()


class TestFolder:
    @pytest.mark.parametrize(
        ("files", "chosen"),
        [
            (["model.safetensors"], 0),
            (["pytorch_model.bin", "model.safetensors"], 1),
            (["model.safetensors", "model.fp16.safetensors", "tf_model.h5"], 0),
            (["training_args.bin", "optimizer.pt", "rng_state_0.pth", "pytorch_model.bin"], 3),
            (["diffusion_pytorch_model.safetensors", "other.bin"], 0),
            (["optimizer.pt", "scheduler.pt", "best.pth"], 2),
            (["model-00001-of-00001.safetensors", "weights.pt"], 0),
        ],
    )
    def test_choice(self, tmp_path, files, chosen):
        for number, name in enumerate(files):
            save(tmp_path / name, number)
        assert opened_value(tmp_path) == chosen
        assert opened_value(str(tmp_path) + "/") == chosen

    def test_several_candidates_are_listed(self, tmp_path):
        for name in ("a.safetensors", "b.safetensors"):
            save(tmp_path / name)
        with pytest.raises(SourceError, match=r"a\.safetensors, b\.safetensors") as error:
            open_checkpoint(tmp_path)
        assert "name the file" in error.value.hint

    @pytest.mark.parametrize("count", [1, 3])
    def test_shards_without_index(self, tmp_path, count):
        for number in range(count):
            save(tmp_path / f"model-{number + 1:05}-of-00003.safetensors")
        with pytest.raises(MissingFileError, match="not their index") as error:
            open_checkpoint(tmp_path)
        assert "index.json" in error.value.hint

    def test_no_weights(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(MissingFileError, match="holds no weights") as error:
            open_checkpoint(tmp_path)
        assert error.value.hint == "check the path."

    def test_weights_one_folder_down_are_pointed_out(self, tmp_path):
        (tmp_path / "checkpoint-500").mkdir()
        save(tmp_path / "checkpoint-500/model.safetensors")
        with pytest.raises(MissingFileError) as error:
            open_checkpoint(tmp_path)
        assert "checkpoint-500" in error.value.hint


def left(source) -> list[str]:
    with open_checkpoint(source) as checkpoint:
        return [note for note in checkpoint.notes if note.startswith("not read")]


class TestLeftUnread:
    def test_further_files_and_folders(self, tmp_path):
        for name in ("model.safetensors", "pytorch_model.bin", "optimizer.pt", "head.pt"):
            save(tmp_path / name)
        (tmp_path / "checkpoint-5").mkdir()
        save(tmp_path / "checkpoint-5/model.safetensors")
        (tmp_path / "logs").mkdir()
        save(tmp_path / "logs/training_args.bin")
        assert left(tmp_path) == [
            "not read: further files of weights in the folder (2): head.pt, pytorch_model.bin",
            "not read: folders with weights in the folder (1): checkpoint-5",
        ]

    def test_file_that_was_named_is_all_that_was_meant(self, tmp_path):
        save(tmp_path / "other.safetensors")
        assert left(save(tmp_path / "model.safetensors")) == []

    @pytest.mark.parametrize("named", ["folder", "index"])
    def test_shards_that_no_index_names(self, tmp_path, named):
        for number in (1, 2, 3):
            save(tmp_path / f"model-0000{number}-of-00002.safetensors")
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}}))
        assert left(tmp_path if named == "folder" else index) == [
            "not read: shards in the folder that the index does not name (2): "
            "model-00002-of-00002.safetensors, model-00003-of-00002.safetensors"
        ]

    def test_one_shard_alone(self, tmp_path):
        for number in (1, 2):
            save(tmp_path / f"model-0000{number}-of-00002.safetensors")
        [note] = left(tmp_path / "model-00001-of-00002.safetensors")
        assert "model-00002-of-00002.safetensors" in note
        assert "index" in note


class TestConfig:
    def test_file_beside_the_weights_comes_unchanged(self, tmp_path):
        text = '{"model_type": "bert", "nested": {"a": [1, null]}, "hidden_size": 4}'
        (tmp_path / "config.json").write_text(text)
        path = save(tmp_path / "model.safetensors")
        for source in (tmp_path, path):
            with open_checkpoint(source) as checkpoint:
                assert checkpoint.config == json.loads(text)
        assert (tmp_path / "config.json").read_text() == text

    def test_none_without_a_file(self, tmp_path):
        with open_checkpoint(save(tmp_path / "a.safetensors")) as checkpoint:
            assert checkpoint.config is None

    @pytest.mark.parametrize("how", ["mapping", "file", "folder", "empty"])
    def test_given_one_comes_first(self, tmp_path, how):
        (tmp_path / "config.json").write_text('{"model_type": "beside"}')
        (tmp_path / "other").mkdir()
        (tmp_path / "other/config.json").write_text('{"model_type": "given"}')
        given = {
            "mapping": {"model_type": "given"},
            "file": str(tmp_path / "other/config.json"),
            "folder": tmp_path / "other",
            "empty": {},
        }[how]
        path = save(tmp_path / "a.safetensors")
        with open_checkpoint(path, config=given) as checkpoint:
            assert checkpoint.config == ({} if how == "empty" else {"model_type": "given"})

    @pytest.mark.parametrize(
        ("given", "kind"), [("nowhere.json", MissingFileError), (7, InputError)]
    )
    def test_given_one_that_is_none(self, tmp_path, given, kind):
        with pytest.raises(kind) as error:
            open_checkpoint(save(tmp_path / "a.safetensors"), config=given)
        assert error.value.hint

    def test_pointer_in_place_of_the_file(self, tmp_path):
        (tmp_path / "config.json").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(CorruptFileError, match=r"config\.json is a Git LFS pointer") as error:
            open_checkpoint(save(tmp_path / "a.safetensors"))
        assert "git lfs pull" in error.value.hint

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"[" * 100000])
    def test_broken_file_is_an_error_that_names_it(self, tmp_path, content):
        (tmp_path / "config.json").write_bytes(content)
        path = save(tmp_path / "a.safetensors")
        with pytest.raises(CorruptFileError, match=r"config\.json") as error:
            open_checkpoint(path)
        assert error.value.hint
        with open_checkpoint(path, config={}) as checkpoint:
            assert checkpoint.config == {}


class TestSource:
    @pytest.mark.parametrize(
        ("source", "kind", "says"),
        [
            ("./nowhere/model", MissingFileError, "neither a path"),
            ("/nowhere/model", MissingFileError, "neither a path"),
            ("nowhere/in/particular", MissingFileError, "neither a path"),
            ("nowhere.safetensors", MissingFileError, "neither a path"),
            ("folder/nowhere.pt", MissingFileError, "neither a path"),
            ("white space", MissingFileError, "neither a path"),
            ("", MissingFileError, "neither a path"),
            ("nul\0byte", MissingFileError, "neither a path"),
            ("x" * 5000, MissingFileError, "neither a path"),
            ("~nobody-of-this-name/x/y", MissingFileError, "neither a path"),
            ("https://example.org/a.pt", SourceError, "only safetensors"),
            ("nowhere://bucket/a.safetensors", SourceError, "no protocol"),
            (b"bytes", InputError, "bytes"),
            (7, InputError, "int"),
            (torch.nn.Linear(1, 1), InputError, "Linear"),
        ],
    )
    def test_what_is_none(self, source, kind, says):
        with pytest.raises(kind, match=says) as error:
            open_checkpoint(source)
        assert error.value.hint

    @pytest.mark.parametrize("name", ["a.npy", "a.pkl", "m.pb", "a.tflite"])
    def test_formats_not_read(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"\x08\x01\x12\x07")
        with pytest.raises(SourceError, match="files are not supported") as error:
            open_checkpoint(tmp_path / name)
        assert error.value.hint

    @pytest.mark.parametrize("end", [".incomplete", ".part", ".crdownload"])
    def test_download_that_was_not_finished(self, tmp_path, end):
        path = tmp_path / ("model.safetensors" + end)
        path.write_bytes(b"\x10" + bytes(99))
        with pytest.raises(SourceError, match="not finished") as error:
            open_checkpoint(path)
        assert "finish" in error.value.hint

    @pytest.mark.parametrize("content", [b"GGUF\x03\0\0\0", b"hello, this is text\n"])
    def test_unknown_suffix_goes_by_content(self, tmp_path, content):
        (tmp_path / "a.weights").write_bytes(content)
        with pytest.raises(SourceError) as error:
            open_checkpoint(tmp_path / "a.weights")
        assert error.value.hint

    def test_safetensors_of_unknown_suffix(self, tmp_path):
        shutil.copy(save(tmp_path / "a.safetensors"), tmp_path / "blob")
        assert opened_value(tmp_path / "blob") == 0

    def test_what_exists_comes_before_the_hub(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "gpt2").mkdir()
        save(tmp_path / "gpt2/model.safetensors", 5)
        assert opened_value("gpt2") == 5

    def test_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        save(tmp_path / "a.safetensors", 3)
        assert opened_value("~/a.safetensors") == 3

    def test_names_beyond_ascii(self, tmp_path):
        for name in ("модель.safetensors", "模型.pt"):
            assert opened_value(save(tmp_path / name, 2)) == 2

    def test_revision_is_for_the_hub(self, tmp_path):
        with pytest.raises(InputError, match="revision 'main'"):
            open_checkpoint(save(tmp_path / "a.pt"), revision="main")

    def test_source_is_what_was_named(self, tmp_path):
        path = save(tmp_path / "model.safetensors")
        with open_checkpoint(tmp_path) as one, open_checkpoint(str(path)) as two:
            assert (one.source, two.source) == (str(tmp_path), str(path))

    def test_file_without_permission(self, tmp_path, monkeypatch):
        path = save(tmp_path / "a.pt")

        def refused(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", refused)
        with pytest.raises(SourceError, match="Permission denied") as error:
            open_checkpoint(path)
        assert error.value.hint


def test_every_error_is_in_the_tree_and_has_a_hint(tmp_path):
    # The command line turns SourceError and InputError into exit code 2; nothing else may escape.
    for source in (tmp_path, tmp_path / "a.pt", 3):
        with pytest.raises(FlagscopeError) as error:
            open_checkpoint(source)
        assert isinstance(error.value, (SourceError, InputError))
        assert error.value.hint
