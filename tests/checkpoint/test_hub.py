"""Hub names, against a small hub on this machine and against a cache without any hub."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from flagscope.checkpoint.hub import is_hub_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"
W = torch.arange(12.0).reshape(3, 4)
CONFIG = b'{"model_type": "planted"}'
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
MODELS = {
    "org/single": {
        "config.json": CONFIG,
        "model.safetensors": save({"w": W}),
        "pytorch_model.bin": b"not to be fetched",
        "README.md": b"not to be fetched",
    },
    "org/shards": {
        "config.json": CONFIG,
        "model.safetensors.index.json": json.dumps(
            {"weight_map": dict(zip("wv", SHARDS, strict=True))}
        ).encode(),
        SHARDS[0]: save({"w": W}),
        SHARDS[1]: save({"v": W}),
    },
    "org/lost-shard": {
        "model.safetensors.index.json": json.dumps(
            {"weight_map": dict(zip("wv", SHARDS, strict=True))}
        ).encode(),
        SHARDS[0]: save({"w": W}),
    },
    "org/outside": {
        "model.safetensors.index.json": b'{"weight_map": {"w": "../../secret.safetensors"}}',
    },
    # Its main branch loses all but the configuration as soon as that is fetched.
    "org/moving": {"config.json": CONFIG, "model.safetensors": save({"w": W})},
    "plain": {"model.safetensors": save({"w": W})},
    "org/no-weights": {"config.json": CONFIG, "model.ckpt.index": b""},
    # {"w": an array of shape (3, 4)} as Flax writes it.
    "org/flax": {
        "flax_model.msgpack": b"\x81\xa1w\xc7\x3e\x01\x93\x92\x03\x04\xa7float32\xc4\x30"
        + W.numpy().tobytes()
    },
    "org/gated": None,
}
SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import FlagscopeError
answers = []
for name, revision in json.loads(sys.argv[1]):
    try:
        with open_checkpoint(name, revision=revision) as checkpoint:
            sums = {name: checkpoint.read(name).sum().item() for name in checkpoint.tensors}
            found = {"source": checkpoint.source, "config": checkpoint.config, "sums": sums}
    except FlagscopeError as error:
        found = {"error": type(error).__name__, "says": str(error), "hint": error.hint}
    answers.append(found)
print(json.dumps(answers))
"""


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that fetching a file needs."""

    asked: list[tuple[str, str]]

    def answer(self, *, body: bool) -> None:
        model, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        files = MODELS.get(model, ())
        type(self).asked.append((self.command, file))
        if files is None:
            return self.refuse(403, "GatedRepo")
        if model not in MODELS:
            return self.refuse(404, "RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        moved = model == "org/moving" and revision == "main" and file != "config.json"
        if file not in files or moved:
            return self.refuse(404, "EntryNotFound")
        content = files[file]
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"' + hashlib.sha256(content).hexdigest() + '"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    handler = type("Handler", (Hub,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
        server.shutdown()
        thread.join()


def opened(home: Path, *models: tuple[str, str | None], endpoint: str = "") -> list[dict]:
    """What a fresh process finds, since the hub's library reads its settings on import."""
    return json.loads(answers(home, *models, endpoint=endpoint).stdout)


def answers(
    home: Path, *models: tuple[str, str | None], endpoint: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and "PROXY" not in key.upper()
    }
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(models)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    return run


def fetched(asked: list[tuple[str, str]]) -> set[str]:
    return {file for method, file in asked if method == "GET" and file}


def test_files_needed_are_fetched_and_no_other_then_the_cache_does(hub, tmp_path):
    endpoint, asked = hub
    models = [("org/single", None), ("org/shards", "v1"), ("plain", None), ("org/moving", None),
              ("org/flax", None)]  # fmt: skip
    expected = [
        {"source": "org/single", "config": json.loads(CONFIG), "sums": {"w": 66.0}},
        {"source": "org/shards", "config": json.loads(CONFIG), "sums": {"w": 66.0, "v": 66.0}},
        {"source": "plain", "config": None, "sums": {"w": 66.0}},
        {"source": "org/moving", "config": json.loads(CONFIG), "sums": {"w": 66.0}},
        {"source": "org/flax", "config": None, "sums": {"w": 66.0}},
    ]
    assert opened(tmp_path, *models, endpoint=endpoint) == expected
    needed = {"config.json", "model.safetensors", "model.safetensors.index.json", *SHARDS}
    needed |= {"flax_model.msgpack"}
    assert fetched(asked) == needed
    asked.clear()
    assert opened(tmp_path, *models, endpoint=endpoint) == expected
    assert not fetched(asked)
    assert opened(tmp_path, *models, ("org/shards", COMMIT)) == [*expected, expected[1]]


def test_what_the_hub_does_not_have(hub, tmp_path):
    refusals = {
        ("org/unheard-of", None): ("MissingFileError", "neither a path that exists nor a model"),
        ("org/single", "v9"): ("MissingFileError", "no revision 'v9'"),
        ("org/gated", None): ("MissingFileError", "restricted"),
        ("org/no-weights", None): ("MissingFileError", "not on the hub"),
        ("org/lost-shard", None): ("MissingFileError", SHARDS[1]),
        ("org/outside", None): ("CorruptFileError", "no file of its folder"),
    }
    answers = opened(tmp_path, *refusals, endpoint=hub[0])
    for found, (error, says) in zip(answers, refusals.values(), strict=True):
        assert found["error"] == error
        assert says in found["says"]
        assert found["hint"]


def cached(home: Path, name: str) -> Path:
    """Folder of a snapshot in a cache that nobody fetched into."""
    repository = home / "hub" / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return snapshot


def test_cache_laid_down_by_others_and_what_it_lacks(tmp_path):
    torch.save({"w": W}, cached(tmp_path, "org/elsewhere") / "pytorch_model.bin")
    part_of_it = cached(tmp_path, "org/part")
    for file, content in MODELS["org/lost-shard"].items():
        (part_of_it / file).write_bytes(content)
    whole, part, nothing = opened(
        tmp_path, ("org/elsewhere", None), ("org/part", None), ("org/single", None)
    )
    assert whole == {"source": "org/elsewhere", "config": None, "sums": {"w": 66.0}}
    assert part["error"] == nothing["error"] == "MissingFileError"
    assert "1 of the 2 shards" in part["says"]
    assert SHARDS[1] in part["says"]
    assert "not in the local cache" in nothing["says"]
    assert "HF_HUB_OFFLINE" in part["hint"]
    assert "HF_HUB_OFFLINE" in nothing["hint"]


def test_an_address_that_nobody_answers_is_asked_once(tmp_path):
    torch.save({"w": W}, cached(tmp_path, "org/elsewhere") / "pytorch_model.bin")
    with socket.socket() as taken:  # a port that is bound and does not listen refuses
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        run = answers(tmp_path, ("nofile", None), ("org/elsewhere", None), endpoint=endpoint)
    lost, known = json.loads(run.stdout)
    assert "Retrying" not in run.stderr
    assert lost["error"] == "MissingFileError"
    assert lost["hint"].startswith("there is no file or folder 'nofile' here: check the path.")
    assert known == {"source": "org/elsewhere", "config": None, "sums": {"w": 66.0}}


@pytest.mark.parametrize(
    ("text", "plausible"),
    [
        ("gpt2", True),
        ("sentence-transformers/all-MiniLM-L6-v2", True),
        ("org/model_1.5B", True),
        ("a/b/c", False),
        ("/a", False),
        ("./a", False),
        ("a/", False),
        ("-a/b", False),
        ("a..b", False),
        ("a--b", False),
        ("a b", False),
        ("org/model.safetensors", False),
        ("model.safetensors.index.json", False),
        ("ключ", False),
        ("", False),
    ],
)
def test_which_texts_can_be_hub_names(text, plausible):
    assert is_hub_name(text) is plausible
