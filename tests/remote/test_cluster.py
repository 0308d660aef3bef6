"""From the command line: a checkpoint in an object store, scanned by the workers of a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from cli.conftest import run  # noqa: F401 (a fixture)
from remote.conftest import in_folder, model, sharded

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def cluster(workers: int):
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        silence_logs=50,
    )


def test_workers_fetch_what_their_tasks_read(run, bucket, tmp_path):  # noqa: F811
    torch.set_num_threads(1)
    put, log = bucket
    files = sharded(model(layers=6))
    folder, url = in_folder(files, tmp_path / "m"), put(files)
    near, far = tmp_path / "near.json", tmp_path / "far.json"
    local = run("scan", folder, "--json", near, "--workers", 1, "--device", "cpu")
    with cluster(2) as running:
        answer = run(
            *("scan", url, "--json", far, "--device", "cpu"),
            *("--executor", f"dask:{running.scheduler_address}"),
        )
    assert (local.code, answer.code) == (0, 0), answer.err
    results = [json.loads(path.read_text()) for path in (near, far)]
    for result in results:
        del result["run"], result["source"]
    assert results[0] == results[1]
    # The driver and two workers each open it: listing, config, index, three headers. The driver
    # takes the fingerprint. Tasks read each of 37 tensors at most three times over. Behind each
    # reading of data the store is asked whether the file is still the same.
    assert log.count("GET") < 3 * (1 + 2 + 3) + 3 + 3 * 37
    assert log.count("HEAD") <= 3 + 3 + 3 * 37
    total = sum(map(len, files.values()))
    assert log.sent() < 7 * total


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent otherwise on Windows")
def test_an_interrupt_leaves_nothing_behind_on_the_scheduler(tmp_path):
    folder = in_folder(sharded(model()), tmp_path / "m")
    command = [sys.executable, "-m", "flagscope", "scan"]
    with cluster(0) as running:  # nobody does the tasks: the scan waits
        process = subprocess.Popen(
            [*command, str(folder), "--executor", f"dask:{running.scheduler_address}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        patience = time.monotonic() + 60
        while not running.scheduler.tasks and process.poll() is None:
            assert time.monotonic() < patience
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (130, "", "interrupted\n")
        while running.scheduler.tasks:
            assert time.monotonic() < patience
            time.sleep(0.05)
