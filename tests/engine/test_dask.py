"""Scans on a real Dask scheduler with two worker processes."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from engine.lethal import Lethal
from engine.models import gpt2
from engine.scans import dumped, graph_of
from flagscope.checkpoint import open_checkpoint
from flagscope.engine import Settings, chosen_executor, run_scan
from flagscope.errors import InputError, MissingExtraError, SourceError

distributed = pytest.importorskip("distributed")
CPU = Settings(device="cpu")
# What Dask leaves behind when its processes are killed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    import dask

    # A task may take two workers with it, not four, before it is given up.
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        running = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=50,
        )
        with running:
            yield running


def saved(folder, layers):
    checkpoint = gpt2(layers=layers)
    save_file({n: checkpoint.read(n) for n in checkpoint.tensors}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(checkpoint.config))
    return folder


def alone(folder):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return flagscope.scan(folder, device="cpu", workers=1).result
    finally:
        torch.set_num_threads(before)


def test_two_workers_give_the_results_of_this_process_bit_for_bit(cluster, tmp_path):
    folder = saved(tmp_path, layers=4)
    done = []
    report = flagscope.scan(
        folder,
        device="cpu",
        executor=f"dask:{cluster.scheduler_address}",
        progress=lambda *one: done.append(one),
    )
    assert dumped(report.result) == dumped(alone(folder))
    assert report.result.run.workers == 2
    assert [i for i, _, _ in done] == list(range(1, len(done) + 1))
    with distributed.Client(cluster, set_as_default=False) as client:
        held = client.run(_opened_here)
    # Both had tasks, opened the checkpoint themselves, and once.
    assert sorted(held.values()) == [1, 1]


def _opened_here():
    from flagscope.engine.run import remote_task

    return len(remote_task._opened.by_opening)


def test_a_client_is_left_open(cluster, tmp_path):
    folder = saved(tmp_path, layers=2)
    with distributed.Client(cluster, set_as_default=False) as client:
        report = flagscope.scan(folder, device="cpu", executor=client)
        assert report.result.failures == []
        assert client.submit(int).result() == 0


def test_a_worker_killed_in_the_middle_costs_nothing(cluster, tmp_path):
    folder = saved(tmp_path, layers=12)
    killed = []
    with distributed.Client(cluster, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())

        def kill(done, total, _):
            if done == 2:
                os.kill(pids[0], signal.SIGKILL)
                killed.append(total - done)

        report = flagscope.scan(folder, device="cpu", executor=client, progress=kill)
    assert killed[0] > 20
    assert report.result.failures == []
    assert dumped(report.result) == dumped(alone(folder))


def test_a_task_that_kills_its_workers_is_a_listed_failure(cluster):
    inner = gpt2()
    state = {name: inner.read(name) for name in inner.tensors}
    deadly = "h.1.mlp.c_proj.weight"
    checkpoint = Lethal(state, inner.config, deadly)
    settings = Settings(device="cpu", only=("pairs", "heads"))
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
        client.run(sys.path.extend, [p for p in sys.path if p.endswith("tests")])
        result = run_scan(checkpoint, graph_of(inner), settings, executor=client.get_executor())
    whole = run_scan(inner, graph_of(inner), settings, workers=1)
    (failure,) = result.failures
    assert "mlp" in failure.task
    assert "KilledWorker" in failure.error
    assert "workers" in failure.hint
    assert [h.name for h in result.pairs] == [
        pair.name for pair in whole.pairs if pair.name != "layer.1.mlp"
    ]
    assert len(result.heads) == len(whole.heads)


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setattr("flagscope.engine.run.executors._PATIENCE", "500ms")
    with (
        pytest.raises(SourceError, match=r"no Dask scheduler answers at 127\.0\.0\.1:9") as error,
        chosen_executor("dask:127.0.0.1:9"),
    ):
        pass
    assert "dask scheduler" in error.value.hint


@pytest.mark.parametrize(
    "address",
    ["", "foo bar", "host", "host:notaport", "host:0", "host:70000", ":8786", "tcp://", "tcp://host",
     "//host:1", "gopher://host:1", "host:8786/path", "tcp://user:s3cr3t@host:8786", "::1:8786"],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_anybody_is_waited_for(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="no address") as error, chosen_executor(f"dask:{address}"):
        pass
    assert "HOST:PORT" in error.value.hint
    assert "s3cr3t" not in str(error.value)


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError) as error, chosen_executor("dask:127.0.0.1:9"):
        pass
    assert "flagscope[dask]" in error.value.hint


def test_a_slurm_cluster_can_be_constructed(tmp_path):
    jobqueue = pytest.importorskip("dask_jobqueue")
    with jobqueue.SLURMCluster(
        cores=8,
        processes=2,
        memory="64GB",
        walltime="01:00:00",
        worker_extra_args=["--nthreads 1"],
        job_script_prologue=["export OMP_NUM_THREADS=4"],
        scheduler_options={"dashboard_address": ":0", "host": "127.0.0.1"},
        silence_logs=50,
    ) as cluster:
        script = cluster.job_script()
        assert "#SBATCH --mem=60G" in script
        assert "export OMP_NUM_THREADS=4" in script
        assert "--nworkers 2" in script
        assert script.rstrip().endswith("--nthreads 1")  # the last one counts
        with distributed.Client(cluster, set_as_default=False) as client:
            assert hasattr(client, "get_executor")


def test_the_checkpoint_of_a_recipe_is_known(tmp_path):
    with open_checkpoint(saved(tmp_path, layers=2)) as checkpoint:
        assert checkpoint.recipe is not None
        assert checkpoint.recipe.header
