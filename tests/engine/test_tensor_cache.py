"""Tensors that tasks share: each read once where memory allows, and never more held than that."""

import threading

import pytest

from engine.models import llama, whole_gpt2
from engine.scans import CPU, OnDisk, assert_close, dumped, graph_of, planned, run
from flagscope.engine import run_scan
from flagscope.engine.cache.prefetch import prefetch
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.run.attempt import attempt
from flagscope.engine.run.thread_runner import run_in_threads


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("model", [whole_gpt2, llama])
def test_each_tensor_is_read_once_where_memory_allows(model, workers):
    inner = model()
    checkpoint = OnDisk(inner)
    result = run_scan(checkpoint, graph_of(checkpoint), CPU, workers=workers)
    assert result.failures == []
    assert set(checkpoint.reads.values()) == {1}
    matrices = {
        n for n, info in inner.tensors.items() if len(info.shape) == 2 and n != "wte.weight"
    }
    assert set(checkpoint.reads) >= matrices
    alone = run_scan(inner, graph_of(inner), CPU, workers=1)
    assert_close(dumped(result), dumped(alone))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.3])
def test_no_more_is_held_than_the_budget(share, workers):
    inner = llama()
    whole = sum(info.nbytes for info in inner.tensors.values())
    expected = [attempt(task, TensorCache(inner, [task]), CPU) for task in planned(inner)]
    checkpoint = OnDisk(inner)
    tasks = planned(checkpoint)
    with TensorCache(checkpoint, tasks, budget=int(share * whole)) as tensors:
        found = run(tasks, tensors, workers)
        assert tensors.cache.most_bytes <= share * whole
        assert (tensors.cache.most_bytes > 0.7 * share * whole) == (share > 0.01)
    if workers == 1:
        assert found == expected
    assert sum(checkpoint.reads.values()) > len(checkpoint.reads)


def test_a_task_that_runs_alone_has_the_rest_of_the_memory():
    inner = llama()
    tasks = planned(inner)
    largest = max(task.bytes_working for task in tasks)
    checkpoint = OnDisk(inner)
    held = []
    with TensorCache(checkpoint, tasks) as tensors:
        tensors.limit(2000)
        assert tensors.cache.budget == 2000
        read = checkpoint._read

        def watched(stored, index):
            held.append(tensors.cache.bytes)
            return read(stored, index)

        checkpoint._read = watched
        for _ in run_in_threads(tasks, [1] * len(tasks), tensors, CPU, workers=1, memory=largest):
            assert tensors.cache.bytes <= tensors.cache.budget <= largest
    assert max(held) <= largest - min(task.bytes_working for task in tasks)
    assert max(checkpoint.reads.values()) > 1


def test_what_no_longer_has_room_goes_the_furthest_first():
    checkpoint = OnDisk(llama())
    tasks = planned(checkpoint)
    pieces = list({piece: None for task in tasks for piece in task.pieces})
    with TensorCache(checkpoint, tasks) as tensors:
        for piece in pieces:
            tensors.get(piece)
        tensors.limit(tasks[0].bytes_read)
        assert set(tasks[0].pieces) == tensors.cache.keys
        tensors.limit(0)
        assert tensors.cache.bytes == 0


def test_a_tensor_is_let_go_with_its_last_task():
    checkpoint = OnDisk(llama(layers=6))
    tasks = planned(checkpoint)
    layer = sum(info.nbytes for name, info in checkpoint.tensors.items() if ".layers.2." in name)
    with TensorCache(checkpoint, tasks) as tensors:
        run(tasks, tensors)
        # A layer, the readers of the next one, and norms.
        assert tensors.cache.most_bytes < 2.1 * layer
        assert all(piece.tensor.endswith("norm.weight") for piece in tensors.cache.keys)


def test_the_next_task_is_read_while_this_one_computes():
    checkpoint = OnDisk(llama())
    tasks = planned(checkpoint)
    with TensorCache(checkpoint, tasks) as tensors:
        tensors.prefetch(0)
        for _ in range(1000):
            if len(tensors.cache.keys) == len(tasks[0].pieces):
                break
            threading.Event().wait(0.01)
        assert checkpoint.threads == {"flagscope-prefetch"}
        # One task, and no more.
        assert {piece.tensor for piece in tasks[0].pieces} == set(checkpoint.reads)
        attempt(tasks[0], tensors, CPU)
    assert max(checkpoint.reads.values()) == 1


def test_reading_ahead_takes_nothing_from_the_tasks_before():
    checkpoint = OnDisk(llama())
    tasks = planned(checkpoint)
    need = tasks[0].bytes_read
    with TensorCache(checkpoint, tasks, budget=need) as tensors:
        held = [tensors.get(piece) for piece in tasks[0].pieces]
        before = dict(checkpoint.reads)
        last = len(tasks) - 1
        prefetch(last, tasks[last], tensors.cache, tensors.get, is_wanted=lambda: True)
        assert dict(checkpoint.reads) == before
        assert all(
            tensors.get(piece) is one for piece, one in zip(tasks[0].pieces, held, strict=True)
        )


def test_an_error_ahead_belongs_to_the_task_that_needs_the_tensor():
    broken = "model.layers.1.mlp.down_proj.weight"
    checkpoint = OnDisk(llama(), broken=broken)
    result = run_scan(checkpoint, graph_of(checkpoint), CPU, workers=1)
    tasks = planned(checkpoint)
    need = {task.name for task in tasks if any(p.tensor == broken for p in task.pieces)}
    assert {one.task for one in result.failures} == need
    assert all(broken in one.error and one.hint == "look for it" for one in result.failures)


def prefetching():
    return [one for one in threading.enumerate() if one.name == "flagscope-prefetch"]


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", [None, KeyError, Interrupted])
def test_no_thread_is_left_behind(error, workers):
    def step(done, *_):
        assert len(prefetching()) <= 1
        if error and done == 2:
            raise error

    checkpoint = OnDisk(llama())
    if error:
        with pytest.raises(error):
            run_scan(checkpoint, graph_of(checkpoint), CPU, workers=workers, progress=step)
    else:
        run_scan(checkpoint, graph_of(checkpoint), CPU, workers=workers, progress=step)
    assert "flagscope-prefetch" in checkpoint.threads
    assert prefetching() == []


def test_weights_in_memory_take_no_room_and_no_thread():
    checkpoint = llama()
    tasks = planned(checkpoint)
    with TensorCache(checkpoint, tasks, budget=0) as tensors:
        run(tasks, tensors)
        assert tensors.cache.most_bytes == 0
        assert prefetching() == []


def test_one_thread_reads_for_all_that_wait():
    checkpoint = OnDisk(llama())
    started, go = threading.Event(), threading.Event()
    read = checkpoint._read

    def slow(stored, index):
        started.set()
        go.wait(10)
        return read(stored, index)

    checkpoint._read = slow
    name = "model.layers.0.mlp.up_proj.weight"
    piece = Piece(name, 0, 40)
    tensors = TensorCache(checkpoint, [])
    found = []
    threads = [threading.Thread(target=lambda: found.append(tensors.get(piece))) for _ in range(4)]
    for one in threads:
        one.start()
    started.wait(10)
    go.set()
    for one in threads:
        one.join()
    assert len({id(one) for one in found}) == 1
    assert checkpoint.reads[name] == 1
