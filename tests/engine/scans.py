"""Checkpoints whose reads are counted, and the parts of a scan that tests call."""

import json
import threading
from collections import Counter
from dataclasses import replace

import pytest
import torch

from flagscope.arch import build_graph
from flagscope.checkpoint import Checkpoint
from flagscope.engine import Settings, plan, run_scan
from flagscope.engine.plan.order import task_order
from flagscope.engine.plan.slots import slots_per_task
from flagscope.engine.run.thread_runner import run_in_threads
from flagscope.errors import SourceError

CPU = Settings(device="cpu")


class Spy(Checkpoint):
    """Counts what is read of the checkpoint behind it; reading `broken` fails."""

    def __init__(self, inner, broken=None, error=None):
        super().__init__(inner.source, dict(inner.tensors), config=inner.config)
        self.inner, self.broken, self.error = inner, broken, error
        self.reads, self.bytes = Counter(), Counter()

    def _read(self, stored, index):
        if stored == self.broken:
            raise self.error
        tensor = self.inner.read(stored, index)
        self.reads[stored, repr(index)] += 1
        self.bytes[stored] += tensor.numel() * tensor.element_size()
        return tensor


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


def graph_of(checkpoint):
    return build_graph({n: i.shape for n, i in checkpoint.tensors.items()}, checkpoint.config)


def tasks_of(checkpoint, **settings):
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    return plan(graph_of(checkpoint), Settings(**settings), sizes)


def planned(checkpoint):
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    tasks = plan(graph_of(checkpoint), CPU, sizes)
    return [tasks[i] for i in task_order(tasks, checkpoint.tensors, workers=1)]


def run(tasks, tensors, workers=1):
    taken = slots_per_task(tasks, workers=workers, room=1e12)
    return [
        outcome
        for batch in run_in_threads(tasks, taken, tensors, CPU, workers=workers)
        for _, outcome in batch
    ]


def scan(checkpoint, **options):
    return run_scan(checkpoint, graph_of(checkpoint), options.pop("settings", CPU), **options)


def dumped(result):
    return json.loads(result.model_dump_json(by_alias=True, exclude={"run"}))


def assert_close(one, other, where=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, f"{where}[{i}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-10, abs=1e-10), where
    else:
        assert one == other, where
