"""No credential of a URL is shown: not in output, reports, errors or their traces."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import flagscope
from cli.conftest import run  # noqa: F401 (a fixture)
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import FlagscopeError
from flagscope.masking import masked, shown_url, without_secrets
from remote.stores import Web

WEIGHTS = save({"layers.0.weight": torch.eye(6), "layers.1.weight": torch.eye(6) + 1})
SECRET = "S3CRET"
READ = [
    "http://user:S3CRET@HOST/m/model.safetensors?sig=S3CRET",
    "HTTP://HOST/m/model.safetensors?X-Amz-Signature=S3CRET&X-Amz-Credential=S3CRET",
    "http://user:S3CRET@HOST/m/model.safetensors#S3CRET",
    "http://user:S3CRET%2Fx@HOST/m/",
    "simplecache::http://user:S3CRET@HOST/m/model.safetensors?sig=S3CRET",
]
REFUSED = [
    "filecache::http://HOST/m/model.safetensors?sig=S3CRET",
    "http://HOST/m/none.safetensors?sig=S3CRET",
    "http://user:S3CRET@127.0.0.1:1/m/model.safetensors?sig=S3CRET",
    "http://user:S3CR/ET@HOST/m/model.safetensors",
    "http://user:S3CRET@HOST/m/model.bin?sig=S3CRET",
    "http:/user:S3CRET@HOST/m/model.safetensors",
    "http://user:S3CRET@HOST:port/m/model.safetensors",
    "s3://S3CRET:S3CRETKEY@bucket/x.safetensors",
    "ftp://user:S3CRET@127.0.0.1:1/x.safetensors",
    "gopher://user:S3CRET@HOST/x.safetensors?sig=S3CRET",
    "dask:tcp://user:S3CRET@127.0.0.1:1",
]


def placed(url: str, web: Web) -> str:
    web.files = {"/m/model.safetensors": WEIGHTS}
    return url.replace("HOST", web.url.removeprefix("http://"))


def clean(text: str) -> bool:
    return SECRET not in text and "S3CR" not in text


@pytest.mark.parametrize("url", READ)
def test_of_a_source_that_is_read(web: Web, run, tmp_path: Path, url: str) -> None:  # noqa: F811
    files = {kind: tmp_path / f"a.{kind}" for kind in ("json", "html", "csv")}
    answer = run("scan", placed(url, web), *(f"--{kind}={path}" for kind, path in files.items()),
                 "--store", tmp_path / "store", "--paths")  # fmt: skip
    assert answer.code == 0, answer.err
    assert clean(answer.out + answer.err)
    for path in (*files.values(), *(tmp_path / "store").iterdir()):
        assert clean(path.name)
        assert SECRET.encode() not in path.read_bytes()
    assert clean(run("inspect", placed(url, web)).out)
    assert clean(repr(flagscope.scan(placed(url, web))))


@pytest.mark.parametrize("url", REFUSED)
def test_of_a_source_that_is_refused(web: Web, run, url: str) -> None:  # noqa: F811
    answer = run("scan", placed(url, web))
    assert answer.code == 2
    assert "hint: " in answer.err
    assert clean(answer.out + answer.err)


@pytest.mark.parametrize("option", ["--base", "--config", "--executor", "--family"])
def test_of_an_option(web: Web, run, tmp_path: Path, option: str) -> None:  # noqa: F811
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(WEIGHTS)
    answer = run("scan", tmp_path, option, "http://user:S3CRET@127.0.0.1:1/m/a?sig=S3CRET")
    assert answer.code == 2
    assert clean(answer.out + answer.err)


def test_of_an_error_in_the_middle_of_a_read(web: Web) -> None:
    url = placed("http://user:S3CRET@HOST/m/model.safetensors?sig=S3CRET", web)
    with open_checkpoint(url) as checkpoint:
        web.trouble.append(lambda *_: 403)
        with pytest.raises(FlagscopeError) as caught:
            checkpoint.read("layers.0.weight")
    error = caught.value
    assert clean(f"{error} {error.hint}")
    assert clean(masked("".join(traceback.format_exception(error))))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/b.safetensors", "https://host/a/b.safetensors"),
        ("https://user@host/a", "https://host/a"),
        ("https://a:b@c:d@host/a", "https://host/a"),
        ("https://user:p::w@host/a", "https://host/a"),
        ("https://user:p?w@host/a", "https://host/a"),
        ("https://user:p#w@host/a", "https://host/a"),
        ("https://[::1]:80/a?b", "https://[::1]:80/a"),
        ("https://host:80/a@b/c", "https://host:80/a@b/c"),
        ("s3://bucket/what?/a#b", "s3://bucket/what?/a#b"),
        ("s3://bucket/a?versionId=1&sig=x", "s3://bucket/a"),
        ("abfs://container@account.dfs/a", "abfs://container@account.dfs/a"),
        (
            "zip://a.safetensors::https://u:p@host/b.zip?c",
            "zip://a.safetensors::https://host/b.zip",
        ),
        ("C:/folder/a@b?c", "C:/folder/a@b?c"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert masked(f"'{url}': 403") == f"'{shown}': 403"
    if not url.startswith("C:"):
        assert shown_url(url) == shown


def test_pieces_that_a_library_quotes_are_hidden() -> None:
    url = "https://user:S3CRET%2Fmore/x@host/a?sig=OTHER"
    text = "no port 'S3CRET/more', 'S3CRET%2Fmore', OTHER"
    assert without_secrets(text, url) == "no port '***', '***', ***"
