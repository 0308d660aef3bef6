"""Running a scan: order, failures, executors, repeatability, schema."""

import json
import math
from bisect import bisect_left
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from math import comb

import jsonschema
import pytest
import torch

import flagscope
from engine.models import gpt2
from engine.scans import CPU, Spy, assert_close, dumped, scan, tasks_of
from flagscope.checkpoint import from_state_dict
from flagscope.engine import Settings
from flagscope.engine.run.collector import ScanCollector
from flagscope.errors import CorruptFileError
from flagscope.records import FREEDOMS, ScanResult

# Four tasks, without the one that looks at the health of all weights.
ALIGNMENT = CPU.model_copy(update={"only": ("pairs", "heads", "residual")})


def test_two_runs_differ_in_run_alone():
    checkpoint = gpt2()
    one, other = scan(checkpoint, workers=1), scan(checkpoint, workers=1)
    assert dumped(one) == dumped(other)
    assert one.run.seconds > 0


def test_workers_and_executors_change_nothing():
    checkpoint = gpt2()
    alone = dumped(scan(checkpoint, workers=1))
    two = scan(checkpoint, workers=2)
    assert two.run.workers == 2
    assert_close(alone, dumped(two))
    with ThreadPoolExecutor(2) as pool:
        assert_close(alone, dumped(scan(checkpoint, executor=pool)))
        # The caller's executor is left open.
        assert pool.submit(int).result() == 0


def test_threads_of_pytorch_are_shared_out_and_put_back():
    before, during = torch.get_num_threads(), []
    torch.set_num_threads(4)
    try:
        done = scan(gpt2(), workers=2, progress=lambda *_: during.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert set(during) == {2}
    assert done.failures == []


class Backwards(Executor):
    """Runs nothing until it has `count` tasks, and then the last first."""

    def __init__(self, count):
        self.count, self.waiting = count, []

    def submit(self, function, *args):
        future = Future()
        self.waiting.append((future, function, args))
        if len(self.waiting) == self.count:
            for one, call, given in reversed(self.waiting):
                one.set_result(call(*given))
        return future


def test_the_order_of_records_does_not_depend_on_timing():
    checkpoint = gpt2()
    done = []
    result = scan(
        checkpoint,
        settings=ALIGNMENT,
        executor=Backwards(4),
        progress=lambda i, n, name: done.append((i, n, name)),
    )
    assert dumped(result) == dumped(scan(checkpoint, settings=ALIGNMENT, workers=1))
    assert [(i, n) for i, n, _ in done] == [(i, 4) for i in range(1, 5)]
    names, planned = [name for _, _, name in done], [task.name for task in tasks_of(checkpoint)]
    assert sorted(names) == sorted(planned)
    assert names != planned


class Dying(Executor):
    """A pool whose worker is killed under the second task."""

    def __init__(self):
        self.count = 0

    def submit(self, function, *args):
        self.count += 1
        future = Future()
        if self.count == 2:
            future.set_exception(BrokenProcessPool("a process terminated abruptly"))
        else:
            future.set_result(function(*args))
        return future


def test_a_worker_that_dies_is_a_failure_of_its_task():
    result = scan(gpt2(), executor=Dying())
    (failure,) = result.failures
    assert "abruptly" in failure.error
    assert "workers" in failure.hint
    assert len(result.heads) == 8


class Broken(Dying):
    """A pool that takes no more tasks after it has lost its worker."""

    def submit(self, function, *args):
        if self.count == 2:
            raise BrokenProcessPool("a child process terminated abruptly")
        return super().submit(function, *args)


def test_a_pool_that_is_broken_fails_what_is_left():
    result = scan(gpt2(), settings=ALIGNMENT, executor=Broken())
    assert len(result.failures) == 3
    assert len(result.heads) == 4


@pytest.mark.parametrize(
    "error",
    [
        CorruptFileError("the shard ends early", hint="fetch it again"),
        OSError("input/output error"),
        MemoryError("9 TB"),
        RuntimeError("no convergence\nin a solver"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_tensor_that_cannot_be_read_fails_its_task_alone(error, workers, monkeypatch):
    checkpoint = gpt2()
    spy = Spy(checkpoint, broken="h.1.mlp.c_fc.weight", error=error)
    monkeypatch.setattr("flagscope.engine.scan.checkpoint_fingerprint", lambda _: "none")
    result = scan(spy, settings=ALIGNMENT, workers=workers)
    (failure,) = result.failures
    assert "1" in failure.task
    assert "mlp" in failure.task
    assert str(error).splitlines()[0] in failure.error
    assert "\n" not in failure.error
    assert failure.hint
    whole = scan(checkpoint)
    kept = [pair.name for pair in whole.pairs if pair.name != "layer.1.mlp"]
    assert [pair.name for pair in result.pairs] == kept
    assert [h.status for h in result.heads] == ["ok"] * 8


def test_errors_of_ours_are_not_hidden(monkeypatch):
    checkpoint = Spy(gpt2(), broken="h.1.mlp.c_fc.weight", error=KeyError("a bug"))
    with pytest.raises(KeyError):
        scan(checkpoint, workers=1)


@pytest.fixture(scope="module")
def schema():
    return ScanResult.model_json_schema(by_alias=True, mode="serialization")


def strict(text):
    return json.loads(text, parse_constant=pytest.fail)


def test_schema_round_trip(schema):
    result = scan(gpt2())
    text = result.model_dump_json(by_alias=True)
    assert ScanResult.model_validate_json(text) == result
    document = strict(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    assert document["schema"] == "flagscope.scan/2"
    assert document["edges"] == []
    document["pairs"][0]["d"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def spoiled():
    """Weights with every fault at once: NaN, infinity, zeros, isotropy, a constant, tiny scales."""
    checkpoint = gpt2(layers=4)
    state = {name: checkpoint.read(name).clone() for name in checkpoint.tensors}
    state["h.0.attn.c_attn.weight"][0, 30] = float("nan")  # head 1 of K
    state["h.0.mlp.c_fc.weight"][3, 3] = float("inf")
    state["h.1.attn.c_attn.weight"][:, :6] = 0  # head 0 of Q
    state["h.1.mlp.c_proj.weight"].zero_()
    state["h.2.attn.c_attn.weight"][:, 48:] = torch.eye(24)
    state["h.2.attn.c_proj.weight"] = torch.eye(24)
    state["h.2.mlp.c_fc.weight"].fill_(1.0)
    state["h.3.mlp.c_fc.weight"] *= 1e-38
    state["h.3.mlp.c_proj.weight"] *= 1e37
    state["h.3.attn.c_attn.weight"][:, :6] = 1e-45
    return from_state_dict(state, config=checkpoint.config)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_faulty_weights_give_statuses_and_never_nan(schema, precision):
    result = scan(spoiled(), settings=Settings(device="cpu", precision=precision))
    assert result.failures == []
    text = result.model_dump_json(by_alias=True)
    jsonschema.validate(strict(text), schema)
    status = {pair.name: pair.status for pair in result.pairs}
    assert "not finite" in status["layer.0.head.1.qk"]
    assert status["layer.0.head.0.qk"] == status["layer.0.head.1.ov"] == "ok"
    assert "not finite" in status["layer.0.mlp"]
    assert "all zero" in status["layer.1.head.0.qk"]
    assert status["layer.1.head.1.qk"] == "ok"
    assert "all zero" in status["layer.1.mlp"]
    assert "isotropic" in status["layer.2.head.0.ov"]
    assert status["layer.3.mlp"] == "ok"
    one = next(pair for pair in result.pairs if pair.name == "layer.2.mlp")
    assert (one.rank_write, one.status) == (1, "ok")
    heads = {(h.layer, h.space): h.status for h in result.heads}
    assert "head 1 is not finite" in heads[0, "k"]
    assert heads[0, "q"] == "ok"
    assert "head 0 is all zero" in heads[1, "q"]
    for pair in result.pairs:
        if pair.status != "ok":
            assert pair.commutator_ratio is None


def test_p_values_are_adjusted_over_all_tests_of_the_report():
    result = scan(gpt2(layers=3))
    logs = {
        "overlap": [pair.log10_p for pair in result.pairs],
        "commutator": [_log10(pair.commutator_p) for pair in result.pairs],
        "correlation": [_log10(pair.gram_correlation_p) for pair in result.pairs],
        "heads": [group.log10_p for group in result.heads],
        "shared": [group.shared_log10_p for group in result.heads],
        "copies": [copy.log10_p for group in result.heads for copy in group.near_copies],
        "clusters": [one.log10_p for group in result.heads for one in group.cluster_tests],
        "link_overlap": [edge.log10_p for edge in result.edges],
        "link_composition": [edge.composition_log10_p for edge in result.edges],
    }
    kinds, every = len(result.tests), sum(result.tests.values())
    # Each kind has the same share of the level, whatever the number of its tests.
    weighted = sorted(
        min(10**value * kinds * result.tests[kind] / every, 1)
        for kind, values in logs.items()
        for value in values
        if value is not None
    )
    for pair in result.pairs:
        if pair.p is None:
            continue
        own = min(pair.p * kinds * result.tests["overlap"] / every, 1)
        first = bisect_left(weighted, own * (1 - 1e-9))
        expected = min([1.0, *(w * every / k for k, w in enumerate(weighted, 1) if k > first)])
        assert pair.p_adjusted == pytest.approx(expected, rel=1e-6)
        harmonic = sum(1 / k for k in range(1, every + 1))
        assert pair.p_adjusted_dependent == pytest.approx(min(1, expected * harmonic), rel=1e-6)
        bonferroni = min(1, pair.p * kinds * result.tests["overlap"])
        assert pair.p_familywise == pytest.approx(bonferroni, rel=1e-6)
    heads = [group for group in result.heads if group.p is not None]
    assert result.tests["copies"] == sum(comb(group.count, 2) for group in heads)
    assert result.tests.get("link_overlap", 0) == result.edge_tests


def _log10(p):
    return None if p is None else math.log10(p)


def test_surfaces_of_many_pairs_are_limited(monkeypatch):
    monkeypatch.setattr("flagscope.engine.scan.ScanCollector", partial(ScanCollector, surfaces=5))
    result = scan(gpt2())
    kept = [pair for pair in result.pairs if pair.incidence is not None]
    assert len(kept) == 5
    dropped = [pair.log10_p or 0.0 for pair in result.pairs if pair.incidence is None]
    assert max(pair.log10_p for pair in kept) <= min(dropped)


def test_what_is_said_of_the_whole():
    checkpoint = gpt2()
    result = scan(checkpoint)
    assert result.parameters == sum(checkpoint.read(n).numel() for n in checkpoint.tensors)
    assert result.dtype == "float32"
    assert result.family == "gpt2"
    assert result.settings.fold_norms == "auto"
    assert "device" not in result.settings
    assert set(result.labels) == set(FREEDOMS)
    assert result.run.device == "cpu"
    assert result.run.peak_rss_bytes > 1e7


def test_running_statistics_are_no_parameters():
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 3)
    )
    result = flagscope.scan(model).result
    assert result.parameters == sum(p.numel() for p in model.parameters())


def test_weights_of_the_caller_are_not_changed():
    checkpoint = gpt2()
    state = {name: checkpoint.read(name).double() for name in checkpoint.tensors}
    copies = {name: tensor.clone() for name, tensor in state.items()}
    flagscope.scan(state, config=checkpoint.config, fold_norms="all")
    assert all(torch.equal(state[name], copies[name]) for name in state)
