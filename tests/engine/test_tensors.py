"""Tensors that tasks share: each read once where memory allows, and never more held than that."""

import threading
from collections import Counter
from dataclasses import replace

import pytest
import torch

from diagnose.planted import normal
from engine.test_plan import gpt2, graph_of
from engine.test_run import CPU, assert_close, dumped
from flagscope.checkpoint import Checkpoint, from_state_dict
from flagscope.engine import plan, run_scan
from flagscope.engine.attempt import attempt
from flagscope.engine.local import carried_out_here, slots
from flagscope.engine.order import begun_in
from flagscope.engine.pieces import Piece
from flagscope.engine.tensors import Tensors
from flagscope.errors import SourceError


class OnDisk(Checkpoint):
    """Weights in memory that look as if they lay in a file; every read is counted and a copy."""

    def __init__(self, inner, broken=None):
        infos = {name: replace(info, file="a.bin") for name, info in inner.tensors.items()}
        super().__init__(inner.source, infos, config=inner.config)
        self.inner, self.broken = inner, broken
        self.reads, self.threads = Counter(), set()

    def _read(self, stored, index):
        self.threads.add(threading.current_thread().name)
        self.reads[stored] += 1
        if stored == self.broken:
            raise SourceError(f"{stored} is gone", hint="look for it")
        return self.inner.read(stored, index).clone()

    def runs(self, wanted):
        """Samples of a fingerprint, which are no reads of a task."""
        data = {name: self.inner.read(name).contiguous().view(torch.uint8) for name, _, _ in wanted}
        return [data[name].flatten()[a:b].numpy().tobytes() for name, a, b in wanted]


def whole_gpt2(layers=3, d=24):
    checkpoint = gpt2(layers=layers, d=d)
    state = {name: checkpoint.read(name) for name in checkpoint.tensors}
    for i in range(layers):
        state |= {f"h.{i}.ln_{n}.weight": torch.rand(d) + 0.5 for n in (1, 2)}
        state |= {f"h.{i}.ln_{n}.bias": torch.rand(d) for n in (1, 2)}
    return from_state_dict(state, config=checkpoint.config)


def llama(layers=3, d=24, f=40, scale=1.0):
    shapes = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (d // 2, d), "mlp.up_proj": (f, d)}
    shapes |= {"self_attn.v_proj": (d // 2, d), "self_attn.o_proj": (d, d)}
    shapes |= {"mlp.gate_proj": (f, d), "mlp.down_proj": (d, f)}
    state = {
        f"model.layers.{i}.{name}.weight": (scale * normal(*shape, seed=i)).bfloat16()
        for i in range(layers)
        for name, shape in shapes.items()
    }
    norms = ("input_layernorm", "post_attention_layernorm")
    state |= {f"model.layers.{i}.{n}.weight": torch.ones(d) for i in range(layers) for n in norms}
    config = {
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": d,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": f,
        "vocab_size": 50, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    }  # fmt: skip
    return from_state_dict(state, config=config)


def planned(checkpoint):
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    tasks = plan(graph_of(checkpoint), CPU, sizes)
    return [tasks[i] for i in begun_in(tasks, checkpoint.tensors, workers=1)]


def run(tasks, tensors, workers=1):
    taken = slots(tasks, workers=workers, room=1e12)
    return [
        outcome
        for batch in carried_out_here(tasks, taken, tensors, CPU, workers=workers)
        for _, outcome in batch
    ]


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
    expected = [attempt(task, Tensors(inner, [task]), CPU) for task in planned(inner)]
    checkpoint = OnDisk(inner)
    tasks = planned(checkpoint)
    with Tensors(checkpoint, tasks, budget=int(share * whole)) as tensors:
        found = run(tasks, tensors, workers)
        assert tensors.most_held <= share * whole
        assert (tensors.most_held > 0.7 * share * whole) == (share > 0.01)
    if workers == 1:
        assert found == expected
    assert sum(checkpoint.reads.values()) > len(checkpoint.reads)


def test_a_task_that_runs_alone_has_the_rest_of_the_memory():
    inner = llama()
    tasks = planned(inner)
    largest = max(task.bytes_working for task in tasks)
    checkpoint = OnDisk(inner)
    held = []
    with Tensors(checkpoint, tasks) as tensors:
        tensors.limit(2000)
        assert tensors._budget == 2000
        read = checkpoint._read

        def watched(stored, index):
            held.append(tensors._bytes)
            return read(stored, index)

        checkpoint._read = watched
        for _ in carried_out_here(tasks, [1] * len(tasks), tensors, CPU, workers=1, memory=largest):
            assert tensors._bytes <= tensors._budget <= largest
    assert max(held) <= largest - min(task.bytes_working for task in tasks)
    assert max(checkpoint.reads.values()) > 1


def test_what_no_longer_has_room_goes_the_furthest_first():
    checkpoint = OnDisk(llama())
    tasks = planned(checkpoint)
    pieces = list({piece: None for task in tasks for piece in task.pieces})
    with Tensors(checkpoint, tasks) as tensors:
        for piece in pieces:
            tensors.get(piece)
        tensors.limit(tasks[0].bytes_read)
        assert set(tasks[0].pieces) == set(tensors._held)
        tensors.limit(0)
        assert tensors._bytes == 0


def test_a_tensor_is_let_go_with_its_last_task():
    checkpoint = OnDisk(llama(layers=6))
    tasks = planned(checkpoint)
    layer = sum(info.nbytes for name, info in checkpoint.tensors.items() if ".layers.2." in name)
    with Tensors(checkpoint, tasks) as tensors:
        run(tasks, tensors)
        # A layer, the readers of the next one, and norms.
        assert tensors.most_held < 2.1 * layer
        assert all(piece.tensor.endswith("norm.weight") for piece in tensors._held)


def test_the_next_task_is_read_while_this_one_computes():
    checkpoint = OnDisk(llama())
    tasks = planned(checkpoint)
    with Tensors(checkpoint, tasks) as tensors:
        tensors.prefetch(0)
        for _ in range(1000):
            if len(tensors._held) == len(tasks[0].pieces):
                break
            threading.Event().wait(0.01)
        assert checkpoint.threads == {"flagscope-ahead"}
        # One task, and no more.
        assert {piece.tensor for piece in tasks[0].pieces} == set(checkpoint.reads)
        attempt(tasks[0], tensors, CPU)
    assert max(checkpoint.reads.values()) == 1


def test_reading_ahead_takes_nothing_from_the_tasks_before():
    checkpoint = OnDisk(llama())
    tasks = planned(checkpoint)
    need = tasks[0].bytes_read
    with Tensors(checkpoint, tasks, budget=need) as tensors:
        held = [tensors.get(piece) for piece in tasks[0].pieces]
        before = dict(checkpoint.reads)
        tensors._read_ahead(len(tasks) - 1, lambda: True)
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


def ahead():
    return [one for one in threading.enumerate() if one.name == "flagscope-ahead"]


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", [None, KeyError, Interrupted])
def test_no_thread_is_left_behind(error, workers):
    def step(done, *_):
        assert len(ahead()) <= 1
        if error and done == 2:
            raise error

    checkpoint = OnDisk(llama())
    if error:
        with pytest.raises(error):
            run_scan(checkpoint, graph_of(checkpoint), CPU, workers=workers, progress=step)
    else:
        run_scan(checkpoint, graph_of(checkpoint), CPU, workers=workers, progress=step)
    assert "flagscope-ahead" in checkpoint.threads
    assert ahead() == []


def test_weights_in_memory_take_no_room_and_no_thread():
    checkpoint = llama()
    tasks = planned(checkpoint)
    with Tensors(checkpoint, tasks, budget=0) as tensors:
        run(tasks, tensors)
        assert tensors.most_held == 0
        assert ahead() == []


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
    tensors = Tensors(checkpoint, [])
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
