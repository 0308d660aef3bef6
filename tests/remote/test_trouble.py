"""What can go wrong with a store: an error of the tree, with a hint, and no secret in it."""

from __future__ import annotations

import json
import random
import struct
import sys

import fsspec
import pytest
import torch
from safetensors.torch import save

from attacks.test_mutations import STATE, damaged
from attacks.test_safetensors import HOSTILE
from checkpoint.test_contract import same_bits
from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.errors import (
    CorruptFileError,
    InputError,
    MissingExtraError,
    MissingFileError,
    SourceError,
    UnknownDtypeError,
)
from remote.conftest import in_folder, model, sharded, single

WHOLE = save({"a": torch.arange(2**16).float()})


def in_memory(content: bytes) -> str:
    fsspec.filesystem("memory").pipe_file("/trouble/a.safetensors", content)
    return "memory://trouble/a.safetensors"


def read_all(url):
    with open_checkpoint(url) as checkpoint:
        read = {name: checkpoint.read(name) for name in checkpoint.tensors}
        checkpoint_fingerprint(checkpoint)
        return read


def refused(url, kind, says=""):
    with pytest.raises(SourceError if kind is None else kind, match=says or None) as caught:
        read_all(url)
    assert kind is None or type(caught.value) is kind
    assert caught.value.hint
    assert len(str(caught.value)) < 1000
    return caught.value


class TestHeader:
    """The library's own checks, done without the file."""

    @pytest.mark.parametrize("what", HOSTILE)
    def test_that_lies(self, what):
        header, length, data = HOSTILE[what]
        start = struct.pack("<Q", len(header) if length is None else length)
        refused(in_memory(start + header + data), CorruptFileError)

    @pytest.mark.parametrize("dtype", ["X9", "f32", "F128", ""])
    def test_of_a_type_that_the_format_does_not_have(self, dtype):
        fields = {"dtype": dtype, "shape": [2], "data_offsets": [0, 8]}
        header = json.dumps({"a": fields}).encode()
        refused(in_memory(struct.pack("<Q", len(header)) + header + bytes(8)), UnknownDtypeError)

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 60, len(WHOLE) - 1])
    def test_cut_short(self, size):
        refused(in_memory(WHOLE[:size]), CorruptFileError)

    def test_damaged_files_are_taken_or_refused_as_on_disk(self, tmp_path):
        whole, rng, read = save(STATE), random.Random(11), 0
        for _ in range(300):
            content = damaged(whole, rng)
            near = in_folder({"a.safetensors": content}, tmp_path) / "a.safetensors"
            try:
                expected = read_all(near)
            except SourceError as error:
                refused(in_memory(content), type(error))
                continue
            found = read_all(in_memory(content))
            assert found.keys() == expected.keys()
            for name, tensor in expected.items():
                assert same_bits(found[name], tensor)
            read += 1
        assert 20 < read < 280


class TestDisguise:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"<!DOCTYPE html><html></html>" + bytes(100), "web page"),
            (b"\x1f\x8b" + bytes(100), "gzip"),
        ],
    )
    def test_is_named(self, content, says):
        refused(in_memory(content), CorruptFileError, says)


class TestWeb:
    def test_missing(self, web):
        refused(f"{web.url}/a.safetensors", MissingFileError, "there is no http")
        refused(f"{web.url}/folder/", MissingFileError, "no weights")

    def test_missing_shard(self, web):
        files = sharded(model())
        web.files = {f"/m/{n}": c for n, c in files.items() if "00002-of" not in n}
        refused(f"{web.url}/m/", MissingFileError, "00002-of")

    @pytest.mark.parametrize("status", [401, 403])
    def test_forbidden(self, web, status):
        web.files["/a.safetensors"] = WHOLE
        web.trouble.append(lambda _, path: status if path.startswith("/a.") else None)
        error = refused(f"{web.url}/a.safetensors", SourceError, "does not let")
        assert "credentials" in error.hint

    def test_a_server_that_sends_whole_files_only(self, web):
        web.files["/a.safetensors"] = save({"a": torch.zeros(2**22)})
        web.ranges = False
        error = refused(f"{web.url}/a.safetensors", SourceError, "whole files only")
        assert "download" in error.hint

    def test_a_failure_that_passes_is_tried_again(self, web):
        web.files["/a.safetensors"] = WHOLE
        busy = {"/a.safetensors": [503] * 2}  # HEAD, and the GET that is tried in its place
        web.trouble.append(lambda _, path: busy[path].pop() if busy.get(path) else None)
        with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
            left = [503, 500]
            web.trouble.append(lambda *_: left.pop() if left else None)
            assert checkpoint.read("a")[-1] == 2**16 - 1
            assert left == []

    def test_a_failure_that_stays(self, web):
        web.files["/a.safetensors"] = WHOLE
        with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
            web.trouble.append(lambda *_: 500)
            web.log.clear()
            with pytest.raises(SourceError, match="cannot read") as error:
                checkpoint.read("a")
            assert error.value.hint
            assert web.log.count() == 3

    def test_truncated_after_it_was_opened(self, web):
        web.files["/a.safetensors"] = WHOLE
        with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
            web.files["/a.safetensors"] = WHOLE[: len(WHOLE) // 2]
            with pytest.raises(CorruptFileError, match="it has") as error:
                checkpoint.read("a")
            assert "start again" in error.value.hint

    def test_nobody_there(self):
        refused("http://127.0.0.1:9/a.safetensors", None, r"127\.0\.0\.1:9")

    def test_secrets_of_a_url_are_used_and_not_shown(self, web):
        asked = []
        web.files["/a.safetensors"] = WHOLE
        web.trouble.append(lambda _, path: asked.append(path))
        secret = f"{web.url}/a.safetensors?X-Signature=s3cr3t"
        with open_checkpoint(secret) as checkpoint:
            shown = [checkpoint.source, repr(checkpoint), checkpoint.tensors["a"].file]
            web.trouble.append(lambda *_: 403)
            with pytest.raises(SourceError) as error:
                checkpoint.read("a")
        assert any("s3cr3t" in path for _, path, _ in web.log.requests)
        assert "s3cr3t" not in " ".join([*shown, str(error.value), error.value.hint])
        web.trouble[:] = [lambda _, path: 403 if path.endswith("config.json") else None]
        with open_checkpoint(secret) as checkpoint:  # a signature opens this file alone
            assert checkpoint.config is None
        web.trouble[:] = [lambda *_: 403]
        user = secret.replace("http://", "http://user:p4ss@")
        error = refused(user, SourceError)
        assert "p4ss" not in f"{error} {error.hint}"


class TestS3:
    def test_missing(self, bucket):
        put, _ = bucket
        url = put(single(model()))
        refused(f"{url}none.safetensors", MissingFileError)
        refused(f"{url}none/", MissingFileError)
        refused("s3://no-such-bucket-here/model.safetensors", MissingFileError)

    def test_without_config(self, bucket):
        put, _ = bucket
        files = single(model())
        with open_checkpoint(put({"model.safetensors": files["model.safetensors"]})) as one:
            assert one.config is None

    def test_without_credentials(self, bucket, monkeypatch, tmp_path):
        put, _ = bucket
        url = put(single(model()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        error = refused(url, SourceError, "does not let")
        assert "AWS_ACCESS_KEY_ID" in error.hint

    def test_a_new_upload_is_seen_by_the_next_opening(self, bucket):
        put, _ = bucket
        state = model()
        with open_checkpoint(put(single(state))) as before:
            first = checkpoint_fingerprint(before)
        more = state | {"later.weight": torch.ones(300, 300)}
        url = put(single(more))
        for again in (url + "model.safetensors", url):
            with open_checkpoint(again) as after:
                assert "later.weight" in after.tensors
                assert checkpoint_fingerprint(after) != first


def test_missing_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    error = refused("s3://bucket/model.safetensors", MissingExtraError, "not installed")
    assert "flagscope[s3]" in error.hint


@pytest.mark.parametrize("name", ["a.bin", "a.npz", "a.gguf", "a.onnx", "pytorch_model.bin"])
def test_formats_that_need_the_file(name):
    error = refused(f"memory://m/{name}", SourceError, "only safetensors")
    assert "download" in error.hint


def test_a_revision_is_for_the_hub():
    with pytest.raises(InputError, match="revision"):
        open_checkpoint("memory://m/a.safetensors", revision="main")


def test_a_protocol_that_nobody_knows():
    refused("gopher://m/a.safetensors", SourceError, "no protocol")
