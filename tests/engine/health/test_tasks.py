"""Health is checked by tasks of the plan: in their pieces, in bounded blocks, wherever they run."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save, save_file

import flagscope
from engine.models import gpt2, llama, whole_gpt2
from engine.scans import OnDisk, Spy, dumped, graph_of, tasks_of
from flagscope.checkpoint import Checkpoint, from_state_dict, open_checkpoint
from flagscope.engine import Settings, Store, health_tasks, run_scan, weights_of
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan import health_tasks as planning
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.execute import execute
from flagscope.engine.store.task_keys import task_keys
from flagscope.records import Health, ScanResult

CPU = Settings(device="cpu")
HEALTH = Settings(device="cpu", only=("health",))


def planned(checkpoint: Checkpoint, tasks: list[Task], settings: Settings = CPU) -> list[Task]:
    weights = weights_of(checkpoint, read=False)
    return health_tasks(checkpoint, graph_of(checkpoint), settings, tasks, weights)


def state_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


def ill(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a NaN, a dead neuron, and a copied row of the embedding."""
    state = state_of(checkpoint)
    state["h.0.mlp.c_proj.weight"][3] = 0
    state["h.1.attn.c_proj.weight"][0, 0] = math.nan
    state["wte.weight"][40] = state["wte.weight"][2]
    return from_state_dict(state, config=checkpoint.config)


def health(result: ScanResult) -> Health:
    assert result.health is not None
    return result.health


def test_every_weight_is_looked_at_once_in_the_pieces_of_the_other_tasks():
    checkpoint = whole_gpt2()
    tasks = tasks_of(checkpoint)
    looks = [look for task in planned(checkpoint, tasks) for look in task.looks]
    assert sorted(look.tensor for look in looks) == sorted(checkpoint.tensors)
    shared = {piece for task in tasks for piece in task.pieces}
    for look in looks:
        rows = checkpoint.tensors[look.tensor].shape[0]
        assert [piece.start for piece in look.blocks] == [0, *(p.stop for p in look.blocks[:-1])]
        assert look.blocks[-1].stop == rows
        assert look.shared == shared & {*look.blocks}
        if look.tensor.startswith("h.") and ".ln" not in look.tensor:
            assert look.shared


def test_pieces_that_leave_rows_out_or_overlap_are_filled_up(monkeypatch: pytest.MonkeyPatch):
    checkpoint = from_state_dict({"w": torch.zeros(100, 16)})
    monkeypatch.setattr(planning, "_BLOCK", 20 * 16 * 4)
    pieces = {Piece("w", 10, 30): 1, Piece("w", 20, 40): 1, Piece("w", 70, 90): 1}
    other = Task("other", (), (), tasks_of(gpt2())[0].work, pieces, 0)
    (task,) = planned(checkpoint, [other])
    (look,) = task.looks
    spans = [(piece.start, piece.stop) for piece in look.blocks]
    assert spans == [(0, 10), (10, 30), (30, 50), (50, 70), (70, 90), (90, 100)]
    assert look.shared == {Piece("w", 10, 30), Piece("w", 70, 90)}
    assert task.bytes_streamed == 60 * 16 * 4
    assert task.bytes_read == 100 * 16 * 4


def test_it_reads_as_many_bytes_as_planned_and_each_once():
    checkpoint = whole_gpt2()
    tasks = tasks_of(checkpoint)
    for task in planned(checkpoint, tasks):
        spy = Spy(checkpoint)
        result = execute(task, TensorCache(spy, [task]), CPU)
        assert set(spy.reads.values()) == {1}
        assert sum(spy.bytes.values()) == task.bytes_read
        assert {one.tensor for one in result.health} == {look.tensor for look in task.looks}
        assert result.pairs == []
        assert result.unread == []


def test_a_scan_reads_no_map_twice():
    inner = whole_gpt2()
    disk = OnDisk(inner)
    run_scan(disk, graph_of(inner), CPU, workers=1)
    without = OnDisk(inner)
    parts = Settings(device="cpu", only=("pairs", "heads", "residual"))
    run_scan(without, graph_of(inner), parts, workers=1)
    matrices = [name for name in inner.tensors if name.startswith("h.") and ".ln" not in name]
    assert {name: disk.reads[name] for name in matrices} == {
        name: without.reads[name] for name in matrices
    }
    assert disk.reads["wte.weight"] == 1


@pytest.mark.parametrize("small", [True, False])
def test_tasks_are_those_of_layers_unless_the_checkpoint_is_small(small, monkeypatch):
    monkeypatch.setattr(planning, "_SMALL", 10**9 if small else 0)
    checkpoint = whole_gpt2(layers=2)
    names = [task.name for task in planned(checkpoint, tasks_of(checkpoint))]
    assert sorted(names) == (["health"] if small else ["h.0.health", "h.1.health", "health"])
    monkeypatch.setattr(planning, "_TASK", 1)
    several = [task.name for task in planned(checkpoint, tasks_of(checkpoint))]
    assert len(several) == len({*several}) == len(checkpoint.tensors)


def test_blocks_of_another_size_give_the_same(monkeypatch: pytest.MonkeyPatch):
    checkpoint = ill(gpt2())
    whole = run_scan(checkpoint, graph_of(checkpoint), HEALTH, workers=1)
    monkeypatch.setattr(planning, "_BLOCK", 3 * 24 * 4)
    monkeypatch.setattr(planning, "_SMALL", 0)
    parts = run_scan(checkpoint, graph_of(checkpoint), HEALTH, workers=2)
    assert parts.run.tasks > whole.run.tasks
    assert parts.health == whole.health
    checks = {(fault.check, fault.expected) for fault in health(whole).faults}
    assert checks == {("nan", False), ("duplicate-rows", True)}
    assert [one.dead for one in health(whole).units] == [1, 0]


@pytest.mark.parametrize("where", ["threads", "executor"])
def test_health_is_the_same_wherever_tasks_run(where: str):
    checkpoint = ill(gpt2())
    alone = run_scan(checkpoint, graph_of(checkpoint), CPU, workers=1)
    if where == "threads":
        other = run_scan(checkpoint, graph_of(checkpoint), CPU, workers=3)
    else:
        with ThreadPoolExecutor(2) as pool:
            other = run_scan(checkpoint, graph_of(checkpoint), CPU, executor=pool)
    assert other.health == alone.health


def saved(folder: Path, checkpoint: Checkpoint) -> Path:
    save_file(state_of(checkpoint), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(checkpoint.config))
    return folder


def test_health_comes_back_from_a_store(tmp_path: Path):
    folder = saved(tmp_path, ill(gpt2()))
    options: dict[str, Any] = {"device": "cpu", "workers": 1, "store": tmp_path / "kept"}
    first = flagscope.scan(folder, **options).result
    again = flagscope.scan(folder, **options).result
    assert again.run.tasks_from_store == again.run.tasks == first.run.tasks
    assert dumped(again) == dumped(first)
    # A health check alone is another plan, with the same looks.
    alone = flagscope.scan(folder, only="health", **options).result
    assert (alone.run.tasks_from_store, alone.health) == (1, first.health)


def test_keys_of_stored_looks_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch):
    checkpoint = gpt2()
    one = planned(checkpoint, tasks_of(checkpoint))
    monkeypatch.setattr(planning, "_BLOCK", 96)
    other = planned(checkpoint, [])
    assert [task.looks for task in one] != [task.looks for task in other]
    assert list(task_keys(one, CPU, "w")) == list(task_keys(other, CPU, "w"))
    assert list(task_keys(one, CPU, "w")) != list(task_keys(one, CPU, "v"))


def test_weights_behind_an_address_are_looked_at_as_those_on_disk(tmp_path: Path):
    checkpoint = ill(gpt2())
    folder = saved(tmp_path, checkpoint)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/health/model.safetensors", save(state_of(checkpoint)))
    memory.pipe_file("/health/config.json", json.dumps(checkpoint.config).encode())
    far = flagscope.scan("memory://health", device="cpu", workers=1, only="health").result
    near = flagscope.scan(folder, device="cpu", workers=1, only="health").result
    assert far.health == near.health


def test_a_tensor_that_cannot_be_read_is_said_and_the_others_looked_at(tmp_path: Path):
    inner = ill(gpt2())
    disk = OnDisk(inner, broken="wte.weight")
    with Store(tmp_path) as store:
        result = run_scan(disk, graph_of(inner), HEALTH, workers=1, store=store)
        assert store.count() == 0
    assert result.failures == []
    (left,) = health(result).not_looked_at
    assert (left.names, left.expected) == (["wte.weight"], False)
    assert left.reason == "could not be read: wte.weight is gone"
    assert health(result).tensors == len(inner.tensors) - 1


def test_what_is_not_looked_at_has_a_reason():
    state = state_of(gpt2())
    state |= {"lm_head.weight": state["wte.weight"], "h.0.attn.bias": torch.ones(1, 1, 8, 8)}
    state |= {"packed": torch.ones(4, 4, dtype=torch.int32), "none.weight": torch.zeros(0, 4)}
    checkpoint = from_state_dict(state, config=gpt2().config)
    found = health(run_scan(checkpoint, graph_of(checkpoint), HEALTH))
    reasons = {one.reason: (one.names, one.expected) for one in found.not_looked_at}
    assert reasons == {
        "buffers, which are not weights": (["h.0.attn.bias"], True),
        "the same weights under another name": (["lm_head.weight"], True),
        "of a type that is not read as weights: packed values, or indices": (["packed"], False),
        "empty: it holds no number": (["none.weight"], False),
    }
    assert found.tensors == len(gpt2().tensors)


def test_layers_restrict_it_to_their_tensors():
    checkpoint = llama(layers=3)
    settings = Settings(device="cpu", only=("health",), layers=(1,))
    found = health(run_scan(checkpoint, graph_of(checkpoint), settings))
    names = [name for name in checkpoint.tensors if name.startswith("model.layers.1.")]
    assert (found.tensors, found.layers) == (len(names), [1])
    (left,) = found.not_looked_at
    assert left.reason == "in layers that were not asked for (--layers)"
    assert left.tensors == len(checkpoint.tensors) - len(names)


@pytest.mark.parametrize("only", [("pairs",), ("heads", "residual")])
def test_without_health_nothing_more_is_read_or_said(only):
    checkpoint = gpt2()
    disk = OnDisk(checkpoint)
    result = run_scan(disk, graph_of(checkpoint), Settings(device="cpu", only=only), workers=1)
    assert result.health is None
    assert not disk.reads["wte.weight"]


def test_statistics_of_a_batchnorm_are_looked_at_though_they_are_buffers():
    state = {"0.weight": torch.randn(16, 3, 3, 3), "1.weight": torch.ones(16),
             "1.bias": torch.zeros(16), "1.running_mean": torch.zeros(16),
             "1.running_var": torch.ones(16), "1.num_batches_tracked": torch.tensor(4),
             "3.weight": torch.randn(8, 16, 3, 3)}  # fmt: skip
    state["1.running_var"][4] = math.inf
    checkpoint = from_state_dict(state)
    found = health(run_scan(checkpoint, graph_of(checkpoint), HEALTH))
    assert [(one.check, one.names) for one in found.faults if not one.expected] == [
        ("infinity", ["1.running_var"])
    ]


def test_the_memory_of_a_task_is_that_of_its_blocks():
    embedding = {"wte.weight": torch.zeros(2, 2)}
    checkpoint = from_state_dict(embedding)
    infos = dict(checkpoint.tensors)
    shape = (4_000_000, 512)
    infos["wte.weight"] = type(infos["wte.weight"])("wte.weight", shape, "float32", 8_192_000_000)
    large = OnDisk(checkpoint)
    large._tensors = infos
    (task,) = planned(large, [])
    assert task.bytes_read == task.bytes_streamed == 8_192_000_000
    assert task.bytes_peak < 200_000_000


def test_a_wide_checkpoint_behind_a_file_is_read_in_rows(tmp_path: Path):
    save_file({"table.weight": torch.randn(64, 32)}, tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        found = health(run_scan(checkpoint, graph_of(checkpoint), HEALTH))
    assert (found.tensors, found.entries) == (1, 64 * 32)


def test_a_comparison_does_not_pay_for_it(monkeypatch: pytest.MonkeyPatch):
    looked: list[object] = []
    monkeypatch.setattr("flagscope.engine.run.execute.tensor_health", lambda *a: looked.append(a))
    first = state_of(gpt2())
    second = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in first.items()}
    config = dict(gpt2().config or {})
    report = flagscope.compare(first, second, config=config, workers=1)
    assert report.result.change is not None
    assert not looked
