"""Looking at a model on the hub: its headers are read by ranges of bytes, and nothing is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

from checkpoint.test_hub import COMMIT

D = 512
STATE = {f"h.{i}.mlp.{name}.weight": torch.zeros(*shape) for i in range(2)
         for name, shape in (("c_fc", (D, 4 * D)), ("c_proj", (4 * D, D)))}  # fmt: skip
CONFIG = b'{"model_type": "gpt2", "n_head": 8}'
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
PARTS = [{name: one for name, one in STATE.items() if f"h.{i}." in name} for i in range(2)]
INDEX = json.dumps({"weight_map": {name: SHARDS[int(name[2])] for name in STATE}}).encode()
MODELS = {
    "org/one": {"config.json": CONFIG, "model.safetensors": save(STATE)},
    "org/shards": {"config.json": CONFIG, "model.safetensors.index.json": INDEX,
                   **{name: save(part) for name, part in zip(SHARDS, PARTS, strict=True)}},
    "org/whole": {"config.json": CONFIG, "model.safetensors": save(STATE)},
    "org/lost": {"model.safetensors.index.json": INDEX, SHARDS[0]: save(PARTS[0])},
    "org/broken": {"model.safetensors": save(STATE)[:-100]},
    "org/small": {"model.safetensors": b"{}"},
    "org/gated": None,
}  # fmt: skip
SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import flagscope
from flagscope.errors import FlagscopeError
answers = []
for step in json.loads(sys.argv[1]):
    command, name, revision = step
    try:
        if command == "inspect":
            found = flagscope.inspect(name, revision=revision, estimate=True)
            answers.append({"parameters": found.parameters, "notes": found.notes,
                            "tasks": len(found.tasks), "family": found.graph.family})
        elif command == "hashes":
            from flagscope.checkpoint.hub import hashes_on_hub
            files = ["model.safetensors", "config.json", "absent.safetensors"]
            answers.append(hashes_on_hub(name, files, revision=revision))
        else:
            result = flagscope.scan(name, revision=revision, device="cpu", workers=1).result
            answers.append({"pairs": len(result.pairs), "notes": result.notes})
    except FlagscopeError as error:
        answers.append({"error": type(error).__name__, "says": str(error), "hint": error.hint})
print(json.dumps(answers))
"""


class Hub(BaseHTTPRequestHandler):
    """Resolves files of models, redirects to where they lie, and serves ranges there."""

    log: list[tuple[str, str, int]]
    tokens: set[str | None]
    failures: list[int]

    def respond(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            try:
                self.wfile.write(body)
            except ConnectionError:  # broken off by who asked
                return
            self.log.append((self.command, self.path, len(body)))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        stored = self.path.startswith("/stored/")
        model, _, rest = self.path.removeprefix("/stored").strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        self.tokens.add(self.headers.get("Authorization"))
        files = MODELS.get(model, ())
        if files is None:
            return self.respond(403, {"X-Error-Code": "GatedRepo"})
        if model not in MODELS:
            return self.respond(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", COMMIT):
            return self.respond(404, {"X-Error-Code": "RevisionNotFound"})
        if file not in files:
            return self.respond(404, {"X-Error-Code": "EntryNotFound"})
        if self.failures and file.endswith(".safetensors") and self.command == "GET":
            return self.respond(self.failures.pop(), {})
        content = files[file]
        etag = '"' + hashlib.sha256(content).hexdigest() + '"'
        if file.endswith(".safetensors") and not stored:
            return self.respond(302, {"Location": "/stored" + self.path, "X-Linked-Etag": etag,
                                      "X-Linked-Size": str(len(content))})  # fmt: skip
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span and model != "org/whole":
            start, stop = int(span[1]), min(int(span[2]) + 1, len(content))
            return self.respond(206, {"ETag": etag}, content[start:stop])
        size = {"Content-Length": str(len(content)), "ETag": etag}
        return self.respond(200, size, content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub():
    fields = {"log": [], "tokens": set(), "failures": []}
    handler = type("Handler", (Hub,), fields)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        handler.url = f"http://127.0.0.1:{server.server_port}"
        yield handler
        server.shutdown()
        thread.join()


def run(home, steps, **settings) -> list[dict]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and "PROXY" not in key.upper()
    }
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **settings}
    process = subprocess.run([sys.executable, "-c", SCRIPT, json.dumps(steps)], env=environment,
                             cwd=home, capture_output=True, text=True, timeout=200)  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def headers(model: str) -> int:
    """Bytes of the headers and of what is read whole."""
    total = 0
    for name, content in MODELS[model].items():
        safetensors = name.endswith(".safetensors")
        length = 8 + int.from_bytes(content[:8], "little") if safetensors else len(content)
        total += max(length, 64) if safetensors else length
    return total


@pytest.mark.parametrize("model", ["org/one", "org/shards"])
def test_only_headers_are_read(hub, tmp_path, model):
    [found] = run(tmp_path, [("inspect", model, None)], HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret")
    assert found["parameters"] == sum(one.numel() for one in STATE.values())
    assert (found["family"], found["tasks"]) == ("gpt2", 4)
    assert any("by ranges of bytes" in note for note in found["notes"])
    read = sum(size for _, _, size in hub.log)
    # The index is read twice: for the names of the shards, and for what lies in them.
    twice = len(INDEX) if model == "org/shards" else 0
    assert read == headers(model) + twice
    assert read < 20_000 < sum(map(len, MODELS[model].values())) / 100
    assert "Bearer hf_secret" in hub.tokens
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not any(len(str(path)) and path.stat().st_size > 10_000
                   for path in tmp_path.rglob("*") if path.is_file())  # fmt: skip


@pytest.mark.parametrize("model", ["org/one", "org/shards"])
def test_what_a_scan_fetched_is_taken_from_the_cache(hub, tmp_path, model):
    steps = [("scan", model, None), ("inspect", model, None), ("inspect", model, COMMIT)]
    scan, *inspections = run(tmp_path, steps, HF_ENDPOINT=hub.url)
    assert scan["pairs"] == 2
    assert not any("ranges" in note for note in scan["notes"])
    sizes = [size for _, path, size in hub.log if path.endswith(".safetensors")]
    assert sum(sizes) == sum(len(content) for name, content in MODELS[model].items()
                             if name.endswith(".safetensors"))  # fmt: skip
    for found in inspections:
        assert (found["family"], found["tasks"]) == ("gpt2", 4)
        assert not any("ranges" in note for note in found["notes"])
    hub.log.clear()
    [offline] = run(tmp_path, [("inspect", model, None)], HF_HUB_OFFLINE="1")
    assert offline["tasks"] == 4
    assert not hub.log


def test_hashes_are_known_without_reading(hub, tmp_path):
    """From what the hub says of a file, and from the names of what its cache holds."""
    asked = ("hashes", "org/one", "main")
    before, _, after = run(
        tmp_path, [asked, ("scan", "org/one", "main"), asked], HF_ENDPOINT=hub.url
    )
    known = hashlib.sha256(MODELS["org/one"]["model.safetensors"]).hexdigest()
    assert before[0] == after[0] == known
    assert before[2] is after[2] is None
    hub.log.clear()
    [offline] = run(tmp_path, [asked], HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline[0] == known
    assert not hub.log


def test_troubles(hub, tmp_path):
    refusals = {
        ("org/unheard-of", None): ("MissingFileError", "neither a path that exists nor a model"),
        ("org/one", "v9"): ("MissingFileError", "no revision 'v9'"),
        ("org/gated", None): ("MissingFileError", "restricted"),
        ("org/lost", None): ("MissingFileError", SHARDS[1]),
        ("org/broken", None): ("CorruptFileError", "bytes"),
        ("org/small", None): ("CorruptFileError", "header"),
        ("org/whole", None): ("SourceError", "whole files only"),
    }
    steps = [("inspect", name, revision) for name, revision in refusals]
    answers = run(tmp_path, steps, HF_ENDPOINT=hub.url)
    for found, (error, says) in zip(answers, refusals.values(), strict=True):
        assert found["error"] == error
        assert says in found["says"]
        assert found["hint"]
    assert sum(size for _, path, size in hub.log if "org/whole" in path) < 10**6
    [unreached] = run(tmp_path, [("inspect", "org/one", None)], HF_HUB_OFFLINE="1")
    assert unreached["error"] == "MissingFileError"
    assert "HF_HUB_OFFLINE" in unreached["hint"]


def test_a_server_that_stumbles_is_asked_again(hub, tmp_path):
    hub.failures[:] = [503, 500]
    [found] = run(tmp_path, [("inspect", "org/one", None)], HF_ENDPOINT=hub.url)
    assert found["tasks"] == 4
    assert not hub.failures
    hub.failures[:] = [403]
    [refused] = run(tmp_path, [("inspect", "org/one", None)], HF_ENDPOINT=hub.url)
    assert refused["error"] == "SourceError"
