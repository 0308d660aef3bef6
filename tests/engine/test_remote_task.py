"""Tasks in other processes: what travels, who opens the checkpoint, and how often."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from engine.models import gpt2
from engine.scans import dumped, scan, tasks_of
from flagscope.checkpoint import from_state_dict, open_checkpoint
from flagscope.engine import Settings
from flagscope.engine.run import remote_task
from flagscope.engine.run.proof import Verifier
from flagscope.engine.run.remote_task import RemoteTask, run_remote_task
from flagscope.errors import InputError
from flagscope.records import FailureRecord

CPU = Settings(device="cpu")


@pytest.fixture
def folder(tmp_path):
    checkpoint = gpt2()
    save_file({n: checkpoint.read(n) for n in checkpoint.tensors}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(checkpoint.config))
    return tmp_path


def remote_task_of(checkpoint, number=0, threads=None):
    return RemoteTask(tasks_of(checkpoint)[number], checkpoint, CPU, threads=threads)


def travelled(task):
    return pickle.loads(pickle.dumps(task))


def accepted(checkpoint, number, outcome):
    return Verifier(checkpoint).accepted(tasks_of(checkpoint)[number], outcome)


def test_a_remote_task_is_small_and_opens_the_checkpoint_once(folder, monkeypatch):
    opened = []
    original = remote_task.reopened
    monkeypatch.setattr(remote_task, "reopened", lambda r: opened.append(r) or original(r))
    with open_checkpoint(folder) as checkpoint:
        count = len(tasks_of(checkpoint))
        sizes = [len(pickle.dumps(remote_task_of(checkpoint, n))) for n in range(count)]
        assert max(sizes) < 8_000
        for number in range(count):
            here = run_remote_task(remote_task_of(checkpoint, number))
            there = run_remote_task(travelled(remote_task_of(checkpoint, number)))
            assert here == accepted(checkpoint, number, there)
        assert len(opened) == 1
        assert opened[0].source == str(folder)


def test_a_path_holds_from_any_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with open_checkpoint(folder.name) as checkpoint:
        sent = pickle.dumps(remote_task_of(checkpoint))
    monkeypatch.chdir("/")
    assert not isinstance(run_remote_task(pickle.loads(sent)), FailureRecord)


def test_a_file_that_was_replaced_is_opened_anew(folder):
    path = folder / "model.safetensors"
    results = []
    for scale in (1.0, -3.0):
        checkpoint = gpt2()
        state = {n: scale * (checkpoint.read(n) + 0.01) for n in checkpoint.tensors}
        path.unlink()
        save_file(state, path)
        with open_checkpoint(folder) as opened:
            results.append(accepted(opened, 0, run_remote_task(travelled(remote_task_of(opened)))))
            assert results[-1] == run_remote_task(remote_task_of(opened))
    assert results[0] != results[1]


def test_another_checkpoint_at_the_same_path_is_noticed(folder):
    with open_checkpoint(folder) as checkpoint:
        sent = pickle.dumps(remote_task_of(checkpoint))
    (folder / "model.safetensors").unlink()
    save_file({"h.0.attn.c_attn.weight": torch.ones(24, 72)}, folder / "model.safetensors")
    failure = run_remote_task(pickle.loads(sent))
    assert isinstance(failure, FailureRecord)
    assert "other tensors" in failure.error
    assert failure.hint


def test_a_worker_that_cannot_see_the_file_says_so(folder):
    with open_checkpoint(folder) as checkpoint:
        sent = pickle.dumps(remote_task_of(checkpoint))
    (folder / "model.safetensors").unlink()
    failure = run_remote_task(pickle.loads(sent))
    assert isinstance(failure, FailureRecord)
    assert str(folder) in failure.error


def test_another_version_of_flagscope_is_refused(folder, monkeypatch):
    with open_checkpoint(folder) as checkpoint:
        sent = pickle.dumps(remote_task_of(checkpoint))
    monkeypatch.setattr(remote_task, "_version", lambda: "99.0")
    failure = run_remote_task(pickle.loads(sent))
    assert isinstance(failure, FailureRecord)
    assert "99.0" in failure.error


def test_of_weights_in_memory_only_those_of_the_task_travel():
    checkpoint = gpt2(layers=8, d=48)
    total = sum(info.nbytes for info in checkpoint.tensors.values())
    for number, task in enumerate(tasks_of(checkpoint)):
        sent = pickle.dumps(remote_task_of(checkpoint, number))
        assert len(sent) < 1.1 * task.bytes_read + 40_000
        assert len(sent) < total / 2
        assert run_remote_task(pickle.loads(sent)) == run_remote_task(
            remote_task_of(checkpoint, number)
        )


def test_a_view_does_not_take_its_storage_along():
    checkpoint = gpt2()
    storage = torch.zeros(2**22)
    state = {}
    for name, info in checkpoint.tensors.items():
        view = storage[: checkpoint.read(name).numel()].reshape(info.shape)
        state[name] = view
    small = from_state_dict(state, config=checkpoint.config)
    assert len(pickle.dumps(remote_task_of(small))) < 100_000


def test_scales_travel_with_what_they_scale():
    checkpoint = gpt2()
    state = {n: checkpoint.read(n) for n in checkpoint.tensors}
    name = "h.0.mlp.c_fc.weight"
    state[name] = state[name].to(torch.float8_e4m3fn)
    state[name + "_scale"] = torch.tensor(0.5)
    scaled = from_state_dict(state, config=checkpoint.config)
    for number in range(len(tasks_of(gpt2()))):
        task = tasks_of(gpt2())[number]
        one = RemoteTask(task, scaled, CPU, threads=None)
        assert run_remote_task(travelled(one)) == run_remote_task(one)


def test_too_much_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(remote_task, "_MOST_BYTES", 1000)
    with pytest.raises(InputError, match="would travel") as error:
        pickle.dumps(remote_task_of(gpt2()))
    assert "safetensors" in error.value.hint


def test_adapters_travel_as_recipes(folder, tmp_path):
    at = tmp_path / "adapter"
    at.mkdir()
    prefix = "base_model.model.h.0.mlp.c_fc"
    save_file(
        {
            f"{prefix}.lora_A.weight": torch.ones(2, 24),
            f"{prefix}.lora_B.weight": torch.ones(96, 2),
        },
        at / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "lora_alpha": 4, "r": 2, "fan_in_fan_out": True}
    (at / "adapter_config.json").write_text(json.dumps(settings))
    with open_checkpoint(at, base=folder) as checkpoint:
        for number in range(len(tasks_of(checkpoint))):
            one = remote_task_of(checkpoint, number)
            assert len(pickle.dumps(one)) < 8_000
            assert accepted(checkpoint, number, run_remote_task(travelled(one))) == run_remote_task(
                one
            )


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_give_what_one_thread_gives(folder, method):
    torch.set_num_threads(1)
    with open_checkpoint(folder) as checkpoint:
        alone = dumped(scan(checkpoint, workers=1))
    with warnings.catch_warnings():
        # Of forking with threads about, from Python 3.12 on.
        warnings.simplefilter("ignore", DeprecationWarning)
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
            done = []
            report = flagscope.scan(
                folder, device="cpu", executor=pool, progress=lambda *one: done.append(one)
            )
            pids = {pool.submit(os.getpid).result() for _ in range(8)}
    assert os.getpid() not in pids
    result = dumped(report.result)
    result["source"] = alone["source"]
    assert result == alone
    assert [i for i, _, _ in done] == list(range(1, len(done) + 1))
    assert report.result.run.workers == 2


def test_memory_in_a_process_pool():
    torch.set_num_threads(1)
    checkpoint = gpt2()
    alone = dumped(scan(checkpoint, workers=1))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert dumped(scan(checkpoint, executor=pool)) == alone


def test_a_task_too_large_to_travel_ends_the_scan(monkeypatch):
    monkeypatch.setattr(remote_task, "_MOST_BYTES", 1000)
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(InputError, match="would travel"),
    ):
        scan(gpt2(), executor=pool)


@pytest.mark.parametrize("executor", ["dask:", "slurm", 3, "dask"])
def test_what_is_no_executor(executor, folder):
    with pytest.raises(InputError, match="executor is") as error:
        flagscope.scan(folder, executor=executor)
    assert "dask:ADDRESS" in error.value.hint


def test_a_cluster_has_its_own_workers(folder):
    with pytest.raises(InputError, match="has its own"):
        flagscope.scan(folder, executor="dask:127.0.0.1:9", workers=2)
