"""Files on a server that change while they are read: another file is never taken for the first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from safetensors.torch import save

import flagscope
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, FlagscopeError, SourceError
from remote.conftest import model

ONE, OTHER = (save({n: w + shift for n, w in model().items()}) for shift in (0.0, 1.0))
CHANGED = "was changed while it was being read"


class Server:
    """One file, what a server says of it, and what is wrong with its answers to parts."""

    def __init__(self) -> None:
        self.body, self.headers, self.fault, self.requests = ONE, {}, "", 0
        self.after = None  # request behind which the file is the other one
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer()

            def do_GET(self):
                self.answer()

            def answer(self):
                outer.requests += 1
                if outer.after is not None and outer.requests > outer.after:
                    outer.change()
                outer.reply(self)

        self.web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.web.daemon_threads = True
        self.web.handle_error = lambda *_: None
        Thread(target=self.web.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.web.server_address[1]}/model.safetensors"

    def change(self):
        self.body = OTHER
        self.headers = {k: f"{v}2" for k, v in self.headers.items() if not v.endswith("2")} or (
            self.headers
        )

    def reply(self, handler):
        if not handler.path.endswith("model.safetensors"):
            handler.send_response(404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body, status, headers = self.body, 200, dict(self.headers)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        if span:
            start, stop = int(span[1]), min(int(span[2]) + 1, len(body))
            status, whole = 206, len(body)
            if self.fault == "shifted":
                start, stop = start + 4, min(stop + 4, whole)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{whole}"
            body = body[start:stop]
            if self.fault == "longer":
                body += b"x" * 100
            if self.fault == "shorter":
                body = body[: len(body) // 2]
            if self.fault == "packed":
                headers["Content-Encoding"] = "snappy"
            if self.fault == "silent":
                del headers["Content-Range"]
            if self.fault == "whole":
                body, status, headers = self.body, 200, {}
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    try:
        yield found
    finally:
        found.web.shutdown()
        found.web.server_close()


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_a_file_that_was_uploaded_anew_is_not_read_further(server, header):
    server.headers = {header: "one"}
    with open_checkpoint(server.url) as checkpoint:
        name = next(iter(checkpoint.tensors))
        before = checkpoint.read(name)
        server.change()
        with pytest.raises(CorruptFileError, match=CHANGED) as error:
            checkpoint.read(name)
        assert error.value.hint
    with open_checkpoint(server.url) as checkpoint:
        assert checkpoint.read(name).equal(before + 1.0)


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("shifted", SourceError, "were asked for"),
        ("longer", SourceError, "more than the part"),
        ("shorter", CorruptFileError, "bytes of"),
        ("packed", SourceError, "packed"),
        ("silent", SourceError, "without saying which"),
        ("whole", SourceError, "whole files only"),
    ],
)
def test_answers_that_are_not_the_part_that_was_asked_for(server, fault, kind, says):
    server.headers = {"ETag": "one"}
    with open_checkpoint(server.url) as checkpoint:
        name = next(iter(checkpoint.tensors))
        server.fault = fault
        with pytest.raises(kind, match=says) as error:
            checkpoint.read(name)
        assert error.value.hint
        server.fault = ""
        assert torch.is_tensor(checkpoint.read(name))


@pytest.mark.parametrize("tag", ["one", None])
@pytest.mark.parametrize("after", range(3, 24, 4))
def test_a_scan_gives_the_first_file_or_says_that_it_changed(server, tag, after, tmp_path):
    server.headers = {} if tag is None else {"ETag": tag}
    whole = flagscope.scan(server.url, workers=1, device="cpu").result
    server.requests, server.after = 0, after
    found = None
    try:
        found = flagscope.scan(server.url, workers=1, device="cpu", store=tmp_path).result
    except FlagscopeError as error:
        hint = error.hint
    else:
        hint = "none is needed"
    assert hint
    if found is not None and not found.failures:
        # All of it was read before the change, or after it.
        server.after = None
        assert found.fingerprint in (whole.fingerprint, flagscope.scan(
            server.url, workers=1, device="cpu").result.fingerprint)  # fmt: skip
        assert (found.pairs == whole.pairs) == (found.fingerprint == whole.fingerprint)
    # What was kept belongs to a file that can be had once more: the first.
    server.body, server.after = ONE, None
    server.headers = {} if tag is None else {"ETag": tag}
    again = flagscope.scan(server.url, workers=1, device="cpu", store=tmp_path).result
    assert again.pairs == whole.pairs
    if tag is None:
        assert again.run.tasks_from_store == 0
        assert any("neither an ETag" in note for note in again.notes)
