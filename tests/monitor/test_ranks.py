"""Distributed trainings of two processes on CPUs, with gloo: all take part, rank 0 measures."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="PyTorch was built without gloo",
)


def trained(kind: str, folder: Path) -> list[dict[str, Any]]:
    """What two processes of a training say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        tests = Path(__file__).parents[1]
        given = {
            "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": os.pathsep.join([str(tests), *sys.path]),
        }  # fmt: skip
        command = [sys.executable, str(tests / "monitor" / "ranks.py"), kind, str(folder)]
        process = subprocess.Popen(
            command, env={**os.environ, **given}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        ranks.append(process)
    try:
        said = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", ["ddp", "fully_shard"])
def test_a_training_is_the_same_to_the_byte_on_each_rank(tmp_path, kind):
    for said in trained(f"silent-{kind}", tmp_path):
        assert said["equal"]
        assert said["tensors"] > 20
    lines = (tmp_path / "out" / "monitor.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [50, 100, 150, 200]


@pytest.mark.parametrize("kind", ["ddp", "fully_shard", "budget"])
def test_rank_0_measures_the_whole_model(tmp_path, kind):
    first, second = trained(kind, tmp_path)
    assert first["schedule"] == second["schedule"]
    assert first["gaps"] == second["gaps"]
    assert second["seen"] == []
    if kind == "budget":
        assert first["schedule"] != "None"
        return
    assert first["seen"] == [2, 4]
    assert first["equal"]
    assert first["trainable"][0] == "0.bias"
    lines = (tmp_path / "out" / "monitor.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
