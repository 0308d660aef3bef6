"""Workers prove which weights they read, and results of other weights are refused by name."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import load_file, save_file

import flagscope
from engine.models import gpt2
from engine.scans import graph_of, tasks_of
from flagscope.checkpoint import open_checkpoint
from flagscope.engine import Settings, run_scan
from flagscope.engine.run.outcome import TaskResult
from flagscope.engine.run.proof import Proven, Verifier, proof_of, stamps_of
from flagscope.engine.run.remote_task import RemoteTask, run_remote_task
from flagscope.records import FailureRecord

CPU = Settings(device="cpu")
STRANGE = "a worker read other weights than those of the scan"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    checkpoint = gpt2()
    place = tmp_path / "ours"
    place.mkdir()
    save_file({n: checkpoint.read(n) for n in checkpoint.tensors}, place / WEIGHTS)
    (place / "config.json").write_text(json.dumps(checkpoint.config))
    return place


def copied(folder, *, times, changed=None, row=0):
    """The folder elsewhere, its file with the same times or others, one element changed."""
    place = folder.with_name("theirs")
    shutil.copytree(folder, place, copy_function=shutil.copy2 if times else shutil.copy)
    if changed:
        state = load_file(place / WEIGHTS)
        state[changed][row] += 0.5
        save_file(state, place / WEIGHTS)
    if times:
        stat = (folder / WEIGHTS).stat()
        os.utime(place / WEIGHTS, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        os.utime(place / WEIGHTS, (1, 1))
    return place


def outcomes(folder, other):
    """What comes of each task where a worker opens another folder, once it has been verified."""
    with open_checkpoint(folder) as ours, open_checkpoint(other) as theirs:
        verifier = Verifier(ours)
        found = []
        for task in tasks_of(ours):
            here = run_remote_task(RemoteTask(task, theirs, CPU, threads=None))
            assert isinstance(here, TaskResult)
            proof = proof_of(theirs, task, stamps_of(ours))
            found.append((task, verifier.accepted(task, Proven(here, proof)), proof.whole))
        return found


def test_a_copy_with_other_times_is_believed_for_all_its_bytes(folder):
    found = outcomes(folder, copied(folder, times=False))
    assert all(isinstance(one, TaskResult) and whole for _, one, whole in found)


def test_a_file_of_the_same_times_is_believed_for_samples(folder):
    found = outcomes(folder, copied(folder, times=True))
    assert all(isinstance(one, TaskResult) and not whole for _, one, whole in found)


def test_one_element_of_a_copy_is_enough(folder):
    # Far from the samples at the start, in the middle and at the end.
    name, row = "h.1.mlp.c_fc.weight", 7
    found = outcomes(folder, copied(folder, times=False, changed=name, row=row))
    failed = {task.name for task, one, _ in found if isinstance(one, FailureRecord)}
    reading = {task.name for task, _, _ in found if name in repr(task)}
    assert failed == reading != set()
    for _, one, _ in found:
        if isinstance(one, FailureRecord):
            assert one.error.startswith(STRANGE)
            assert repr(name) in one.error
            assert one.hint


def test_a_checkpoint_of_other_weights_gives_nothing_from_a_pool(folder):
    other = folder.with_name("theirs")
    shutil.copytree(folder, other)
    state = {n: torch.randn(w.shape) for n, w in load_file(folder / WEIGHTS).items()}
    save_file(state, other / WEIGHTS)
    with (
        open_checkpoint(folder) as checkpoint,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        assert checkpoint.recipe is not None
        checkpoint.recipe = replace(checkpoint.recipe, source=str(other))
        result = run_scan(checkpoint, graph_of(checkpoint), CPU, executor=pool)
    assert not result.pairs
    assert not result.heads
    assert len(result.failures) == result.run.tasks
    assert all(one.error.startswith(STRANGE) for one in result.failures)


def _sees(place):
    """In a worker: every recipe opens the checkpoint in another place."""
    from flagscope.engine.run import remote_task

    opening = remote_task.reopened
    remote_task.reopened = lambda recipe: opening(replace(recipe, source=place))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_of_two_dask_workers_the_one_with_other_weights_is_refused(folder):
    distributed = pytest.importorskip("distributed")
    other = folder.with_name("theirs")
    shutil.copytree(folder, other)
    state = {n: torch.randn(w.shape) for n, w in load_file(folder / WEIGHTS).items()}
    save_file(state, other / WEIGHTS)
    alone = flagscope.scan(folder, device="cpu", workers=1).result
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", silence_logs=50,
    )  # fmt: skip
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        workers = sorted(client.scheduler_info()["workers"])
        client.run(_sees, str(other), workers=workers[:1])
        result = flagscope.scan(folder, device="cpu", executor=client).result
    assert 0 < len(result.failures) < result.run.tasks
    assert all(one.error.startswith(STRANGE) for one in result.failures)
    kept = {pair.name: pair for pair in result.pairs}
    assert kept
    for pair in alone.pairs:
        if pair.name in kept:
            ours = pair.gram_correlation
            assert kept[pair.name].gram_correlation == pytest.approx(ours, rel=1e-6)
