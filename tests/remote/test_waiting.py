"""Waiting for a store ends: with an answer, or with an error that says what to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from cli.conftest import run  # noqa: F401 (a fixture)
from flagscope.checkpoint import open_checkpoint
from flagscope.checkpoint.remote import retries
from flagscope.errors import InputError, SourceError
from remote.stores import Web

WEIGHTS = save({f"layers.{i}.weight": torch.eye(6) + i for i in range(8)})


@pytest.fixture
def stalled(web: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server that stops to answer once its event is cleared."""
    monkeypatch.setenv(retries.VARIABLE, "0.3")
    monkeypatch.setattr(retries, "_WHOLE", 1000)  # the silence alone must end it
    going = threading.Event()
    going.set()
    web.files["/model.safetensors"] = WEIGHTS
    web.trouble.append(lambda *_: going.wait(60) and None)
    web.going = going  # pyright: ignore[reportAttributeAccessIssue]
    yield web
    going.set()


def test_a_server_that_falls_silent_is_an_error(stalled) -> None:
    with open_checkpoint(f"{stalled.url}/model.safetensors") as checkpoint:
        stalled.going.clear()
        before = time.monotonic()
        for i in range(8):  # the first waits; the others know
            with pytest.raises(SourceError, match=r"sends nothing|did not answer") as error:
                checkpoint.read(f"layers.{i}.weight")
            assert "FLAGSCOPE_TIMEOUT" in (error.value.hint or "")
        assert time.monotonic() - before < 20
        stalled.going.set()
        time.sleep(retries.in_all() + 0.1)
        assert float(checkpoint.read("layers.3.weight")[0, 1]) == 3


def test_a_server_that_is_silent_from_the_start(stalled) -> None:
    stalled.going.clear()
    with pytest.raises(SourceError, match="sends nothing") as error:
        open_checkpoint(f"{stalled.url}/model.safetensors")
    assert error.value.hint


def test_a_scan_of_a_silent_server_ends(stalled, run, tmp_path: Path) -> None:  # noqa: F811
    asked = []

    def late(method: str, path: str) -> None:
        asked.append(path)
        if len(asked) > 6:
            stalled.going.clear()

    stalled.trouble.insert(0, late)
    answer = run("scan", f"{stalled.url}/model.safetensors", "--memory", "1MB")
    assert answer.code in (1, 2)
    assert "hint: " in answer.err
    assert "Traceback" not in answer.err


def test_a_connection_that_was_dropped_is_made_again(web: Web) -> None:
    web.files["/model.safetensors"] = WEIGHTS
    with open_checkpoint(f"{web.url}/model.safetensors") as checkpoint:
        left = [503, 429]
        web.trouble.append(lambda *_: left.pop() if left else None)
        assert checkpoint.read("layers.1.weight")[0, 0] == 2


class _BusyError(Exception):
    status = 429

    def __init__(self, after: str) -> None:
        super().__init__("busy")
        self.headers = {"Retry-After": after}


def always(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(("after", "pause"), [("1.5", 1.5), ("0", 0.2), ("soon", 0.2)])
def test_a_busy_server_says_when_to_ask_again(
    monkeypatch: pytest.MonkeyPatch, after: str, pause: float
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    left: list[Exception] = [_BusyError(after)]

    def question() -> str:
        if left:
            raise left.pop()
        return "answer"

    assert retries.patiently(question, place="http://busy") == "answer"
    assert slept == [pause]


def test_a_pause_beyond_the_total_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.time, "sleep", None)
    for after in ("3600", "Fri, 31 Dec 2100 23:59:59 GMT"):
        with pytest.raises(_BusyError):
            retries.patiently(partial(always, _BusyError(after)), place="http://busy")


def test_redirections_without_end(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp import TooManyRedirects

    def turning(question: object, *, place: str) -> None:
        raise FileNotFoundError("http://host/a") from TooManyRedirects(
            None,
            (),
            status=302,  # pyright: ignore[reportArgumentType]
        )

    monkeypatch.setattr("flagscope.checkpoint.remote.path.patiently", turning)
    with pytest.raises(SourceError, match="without end"):
        open_checkpoint(f"{web.url}/model.safetensors")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(retries.VARIABLE, text)
    with pytest.raises(InputError, match="FLAGSCOPE_TIMEOUT"):
        retries.seconds()


def test_limits_reach_the_drivers_next_to_what_the_user_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("aiohttp")
    from fsspec.config import conf

    monkeypatch.setenv(retries.VARIABLE, "7")
    monkeypatch.setitem(conf, "https", {"client_kwargs": {"trust_env": True}})
    options = retries.store_options("simplecache::https://host/a")["https"]["client_kwargs"]
    assert options["trust_env"] is True
    assert (options["timeout"].sock_read, options["timeout"].sock_connect) == (7, 7)
    assert options["timeout"].total == 210
    limits = retries.store_options("s3://bucket/a")["s3"]["config_kwargs"]
    assert (limits["connect_timeout"], limits["read_timeout"]) == (7, 7)
    assert retries.store_options("memory://a") == {}
