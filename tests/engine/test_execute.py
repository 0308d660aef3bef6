"""What tasks share is worked out once, and the records are those of pairs on their own."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from engine.models import llama
from engine.scans import CPU, graph_of, tasks_of
from flagscope.engine.cache import stored_tensor
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.slots import TASK_MEMORY
from flagscope.engine.run import stream_pairs
from flagscope.engine.run.execute import execute
from flagscope.engine.scan import run_scan


def mlp_of(checkpoint):
    (task,) = (one for one in tasks_of(checkpoint, only=("pairs",)) if one.name.endswith("mlp"))
    return task


@pytest.mark.parametrize("scale", [1.0, 2.0**100])
def test_the_writers_of_a_gated_mlp_share_the_eigenproblem_of_their_reader(scale, monkeypatch):
    """Also where the maps are taken over powers of two."""
    checkpoint = llama(layers=1, scale=scale)
    task = mlp_of(checkpoint)
    assert len(task.pairs) == 2
    alone = [
        execute(replace(task, pairs=(pair,)), TensorCache(checkpoint, [task]), CPU).pairs[0]
        for pair in task.pairs
    ]
    sizes = Counter()
    solve = torch.linalg.eigh

    def counted(a, *args, **options):
        sizes[a.shape[-1]] += len(a)
        return solve(a, *args, **options)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    together = execute(task, TensorCache(checkpoint, [task]), CPU).pairs
    # Up, gate and down, and up and down once more after gauge fixing.
    assert sizes == {24: 5}
    assert together == alone


def test_readers_that_differ_share_nothing():
    """MLPs of two layers in one task: each group of pairs must meet its own reader."""
    first, second = llama(layers=1), llama(layers=2)
    one = mlp_of(first)
    pairs = [p for task in tasks_of(second, only=("pairs",)) for p in task.pairs if p.kind == "mlp"]
    task = replace(one, pairs=tuple(pairs))
    tensors = TensorCache(second, [task])
    together = execute(task, tensors, CPU).pairs
    alone = [execute(replace(one, pairs=(p,)), tensors, CPU).pairs[0] for p in pairs]
    assert together == alone
    assert together[0].commutator_ratio != together[2].commutator_ratio


def test_the_noise_of_a_map_is_measured_once_a_scan(monkeypatch):
    measured = Counter()
    measure = stored_tensor.storage_noise

    def counted(values, **options):
        measured[values.data_ptr(), tuple(values.shape)] += 1
        return measure(values, **options)

    monkeypatch.setattr(stored_tensor, "storage_noise", counted)
    checkpoint = llama(layers=3)
    result = run_scan(checkpoint, graph_of(checkpoint), CPU, workers=1)
    assert not result.failures
    assert measured
    assert set(measured.values()) == {1}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("memory", [TASK_MEMORY, 1])
def test_what_a_block_writes_is_decomposed_once_for_its_own_mlp_and_the_next_block(
    workers, memory, monkeypatch
):
    checkpoint = llama(layers=4)
    settings = CPU.model_copy(update={"only": ("residual",), "edges": 0})
    tasks = tasks_of(checkpoint, only=("residual",), edges=0)
    alone = [r for t in tasks for r in execute(t, TensorCache(checkpoint, [t]), settings).pairs]
    distinct = {
        (which, side.map.place)
        for task in tasks
        for pair in task.pairs
        for which, side in (("write", pair.write), ("read", pair.read))
    }
    solved = []
    solve = stream_pairs.prepared_map
    monkeypatch.setattr(
        stream_pairs, "prepared_map", lambda *a, **k: (solved.append(1), solve(*a, **k))[1]
    )
    result = run_scan(checkpoint, graph_of(checkpoint), settings, workers=workers, memory=memory)
    assert not result.failures
    kept = {pair.name: (pair.commutator_ratio, pair.cosines) for pair in result.pairs}
    assert kept == {pair.name: (pair.commutator_ratio, pair.cosines) for pair in alone}
    # Without memory each of the tasks between two blocks makes its own.
    assert len(solved) == len(distinct) + (3 if memory == 1 else 0)


def test_what_was_made_under_other_conditions_is_made_anew():
    checkpoint = llama(layers=1)
    tasks = tasks_of(checkpoint)
    with TensorCache(checkpoint, tasks, shared=[{"a"}, {"a", "b"}, {"a"}]) as tensors:
        assert tensors.shared_value("a", 1, lambda: "first", len) == "first"
        assert tensors.shared_value("a", 1, lambda: "again", len) == "first"
        assert tensors.shared_value("a", 2, lambda: "other", len) == "other"
        assert tensors.shared_value("b", 1, lambda: "own", len) == "own"
        assert tensors.shared_value("b", 1, lambda: "anew", len) == "anew"
        for place in range(3):
            tensors.finish(place)
        assert tensors.shared_value("a", 1, lambda: "late", len) == "late"
