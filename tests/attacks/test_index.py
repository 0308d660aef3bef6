"""Indices that point where they should not."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from flagscope.errors import CorruptFileError, SourceError


@pytest.mark.parametrize(
    "file",
    [
        "../secret.safetensors",
        "..",
        ".",
        "",
        "/etc/passwd",
        "sub/a.safetensors",
        "..\\secret.safetensors",
        "C:secret.safetensors",
        "\\\\server\\share\\a.safetensors",
        "a\0b.safetensors",
        7,
        None,
        ["a.safetensors"],
    ],
)
def test_files_outside_the_folder_are_not_opened(tmp_path, refused, file):
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "sub").mkdir()
    for place in (tmp_path / "secret.safetensors", inner / "sub/a.safetensors"):
        save_file({"w": torch.ones(1)}, place)
    index = inner / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": file}}))
    refused(index, CorruptFileError, "no file of its folder")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"weight_map": {}}',
        b'{"weight_map": []}',
        b'{"weight_map": "a.safetensors"}',
        b'{"weight_map": {"w": {}}}',
        b"[" * 100_000,
        b"\xff\xff",
    ],
)
def test_malformed(tmp_path, refused, content):
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content)
    refused(index, CorruptFileError)


def test_index_that_names_itself(tmp_path, refused):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": index.name}}))
    refused(index, SourceError, "no format that flagscope reads")
