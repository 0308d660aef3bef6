"""Which task begins when, and with how much of the machine."""

from types import SimpleNamespace

import pytest

from engine.models import llama
from engine.scans import OnDisk, tasks_of
from flagscope.engine.plan.order import task_order
from flagscope.engine.plan.slots import slots_per_task


def test_tasks_that_share_tensors_stand_together():
    checkpoint = OnDisk(llama(layers=12))  # by name layers 10 and 11 come before layer 2
    tasks = tasks_of(checkpoint)
    order = task_order(tasks, checkpoint.tensors, workers=1)
    assert sorted(order) == list(range(len(tasks)))
    spans = {}
    for at, i in enumerate(order):
        for piece in tasks[i].pieces:
            spans.setdefault(piece, []).append(at)
    # Three tasks a layer: its tensors are needed by them and by those of the layer before.
    assert max(max(at) - min(at) for at in spans.values()) <= 6


def test_the_first_in_the_files_begins():
    checkpoint = OnDisk(llama(layers=4))
    tasks = tasks_of(checkpoint)
    backwards = dict(reversed(checkpoint.tensors.items()))
    assert task_order(tasks, checkpoint.tensors, workers=1)[0] < 3
    last = tasks[task_order(tasks, backwards, workers=1)[0]]
    assert any(".layers.3." in piece.tensor for piece in last.pieces)


@pytest.mark.parametrize("workers", [2, 4])
def test_the_last_to_begin_are_small(workers):
    checkpoint = OnDisk(llama(layers=12))
    tasks = tasks_of(checkpoint)
    order = task_order(tasks, checkpoint.tensors, workers=workers)
    assert sorted(order) == list(range(len(tasks)))
    assert tasks[order[-1]].flops == min(task.flops for task in tasks)
    # In the end the largest go first, and only there.
    flops = [tasks[i].flops for i in order]
    falling = next(i for i in range(len(flops)) if flops[i:] == sorted(flops[i:], reverse=True))
    end = sum(flops[falling:])
    assert 2 * workers * max(flops) * 0.5 < end < 2 * workers * max(flops) * 1.5 + max(flops)


def of_bytes(*sizes, sharp=()):
    return [SimpleNamespace(bytes_working=size, sharp=i in sharp) for i, size in enumerate(sizes)]


def test_large_tasks_run_alone_and_few_small_ones_share_the_cores():
    assert slots_per_task(of_bytes(1, 1, 1, 9, 9, 1, 9), workers=2, room=10) == [
        1,
        1,
        1,
        2,
        2,
        2,
        2,
    ]
    assert slots_per_task(of_bytes(9, 1, 1, 9), workers=4, room=10) == [4, 2, 2, 4]
    assert slots_per_task(of_bytes(9, 1), workers=1, room=1) == [1, 1]
    assert slots_per_task([], workers=3, room=1) == []


def test_sharp_tasks_have_as_many_cores_as_the_largest_of_them():
    # They share values, which sums over other numbers of threads would round differently.
    tasks = of_bytes(9, 1, 1, 1, 1, sharp={0, 3})
    assert slots_per_task(tasks, workers=2, room=10) == [2, 1, 1, 2, 2]
    assert slots_per_task(of_bytes(4, 1, 1, 1, sharp={0, 3}), workers=2, room=10) == [1] * 4
