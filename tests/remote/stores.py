"""Stores that note every request: a web server of byte ranges, and an S3 server."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Log:
    """What was asked: (method, path, bytes sent)."""

    requests: list[tuple[str, str, int]] = field(default_factory=list)

    def clear(self) -> None:
        self.requests.clear()

    def count(self, method: str | None = None, ending: str = "") -> int:
        return sum(
            method in (None, verb) and path.endswith(ending) for verb, path, _ in self.requests
        )

    def sent(self) -> int:
        return sum(size for method, _, size in self.requests if method == "GET")


@dataclass
class Web:
    """A web server of files in memory."""

    url: str
    files: dict[str, bytes]
    log: Log
    # Called with (method, path); a status to answer with in place of the file.
    trouble: list[Callable[[str, str], int | None]]
    ranges: bool = True
    tags: bool = False  # whether answers have an ETag


@contextmanager
def web_server() -> Iterator[Web]:
    """Serve files by ranges on a free port of this machine."""
    web = Web("", {}, Log(), [])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.partition("?")[0]
            status = next((s for one in web.trouble if (s := one(self.command, path))), None)
            body = web.files.get(path)
            if status is None and body is None:
                status = 404
            if status is not None or body is None:
                self.reply(status or 404, b"")
                return
            tag = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'} if web.tags else {}
            asked = _RANGE.fullmatch(self.headers.get("Range", "")) if web.ranges else None
            if asked is None:
                self.reply(200, body, **tag)
                return
            start = int(asked[1])
            stop = min(int(asked[2]) + 1 if asked[2] else len(body), len(body))
            span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
            self.reply(206, body[start:stop], **span, **tag)

        def reply(self, status: int, body: bytes, **headers: str) -> None:
            # Noted before it goes out: who has the answer may count at once.
            web.log.requests.append((self.command, self.path, len(body)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if web.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that went away
    threading.Thread(target=server.serve_forever, daemon=True).start()
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def s3_server() -> Iterator[tuple[str, Log]]:
    """moto's S3 on a free port; its URL and the log of its requests."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    log = Log()
    app = DomainDispatcherApplication(create_backend_app)

    def noted(environ: dict[str, Any], start_response: Any) -> Any:
        body = b"".join(app(environ, start_response))
        log.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], len(body)))
        return [body]

    server = make_server("127.0.0.1", 0, noted, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
