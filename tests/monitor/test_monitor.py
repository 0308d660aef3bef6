"""The monitor: its measurements are scans, and the training does not notice them."""

from __future__ import annotations

import copy
import json
import warnings
from inspect import signature
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import flagscope
from flagscope.errors import InputError
from flagscope.monitor.monitor import AlignmentMonitor
from monitor.nets import GPT, gpt, mlp, numbers, random_states, seed_all, train


def gpt_loss(net: nn.Module, generator: torch.Generator) -> torch.Tensor:
    tokens = torch.randint(0, 17, (4, 8), generator=generator)
    return net(tokens, labels=tokens).loss


def test_a_measurement_is_the_scan_of_the_checkpoint_of_its_step(tmp_path):
    net = gpt()
    monitor = AlignmentMonitor(net, every=2, out=tmp_path / "out")
    seen = {}

    def after(step: int) -> None:
        measurement = monitor.step(step)
        if measurement is not None:
            seen[step] = numbers(measurement.report)
            net.save_pretrained(tmp_path / f"{step}")
            torch.save(net.state_dict(), tmp_path / f"{step}.pt")

    train(net, 5, after=after, loss_of=gpt_loss)
    assert list(seen) == [2, 4]
    for step, values in seen.items():
        given = flagscope.scan(tmp_path / f"{step}.pt", config=net.config.to_dict())
        assert numbers(given) == values
        written = flagscope.Report.from_json(tmp_path / "out" / f"step-{step:09d}.json")
        assert numbers(written) | {"findings": []} == values | {"findings": []}
        # safetensors holds tied weights once, and a folder its own configuration.
        folder = numbers(flagscope.scan(tmp_path / f"{step}"))
        for record in (folder, values):
            del record["health"]["not_looked_at"]
        for part in ("pairs", "heads", "edges", "health", "tests"):
            assert folder[part] == values[part], part


@pytest.mark.parametrize("depth", ["state dict", "safetensors"])
def test_a_measurement_of_an_mlp_is_that_of_its_file(tmp_path, depth):
    net = mlp()
    measurement = AlignmentMonitor(net, every=1).step(1)
    path = tmp_path / "model.safetensors"
    save_file(net.state_dict(), path)
    source = net.state_dict() if depth == "state dict" else path
    assert measurement is not None
    assert numbers(measurement.report) == numbers(flagscope.scan(source))


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_a_training_is_the_same_to_the_byte_with_the_monitor(autocast, tmp_path):
    def run(watched: bool) -> list[Any]:
        net = mlp()
        seed_all()
        monitor = AlignmentMonitor(net, every=50, out=tmp_path / "out") if watched else None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses, optimizer = train(net, 200, after=monitor.step if monitor else lambda _: None)
        assert net.training
        assert all(weight.requires_grad for weight in net.parameters())
        assert not any(m._forward_hooks or m._state_dict_hooks for m in net.modules())
        grads = [weight.grad for weight in net.parameters()]
        kept = [net.state_dict(), optimizer.state_dict()["state"], grads]
        tensors = torch.utils._pytree.tree_leaves(kept)
        left = (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype())
        return [losses, [t.numpy().tobytes() for t in tensors], random_states(), left]

    plain, watched = run(False), run(True)
    assert plain == watched


def test_a_measurement_within_autocast_is_the_same(monkeypatch):
    from flagscope.monitor import measurement as module

    net = mlp()
    modes = []
    scan = module.scan

    def watched(*given: Any, **more: Any) -> Any:
        modes.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return scan(*given, **more)

    monkeypatch.setattr(module, "scan", watched)
    plain = AlignmentMonitor(net, every=1).step(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = AlignmentMonitor(net, every=1, workers=1).step(1)
    assert plain is not None
    assert within is not None
    assert numbers(plain.report) == numbers(within.report)
    assert plain.norms == within.norms
    assert modes == [(False, False)] * 2


def test_a_compiled_model_is_not_compiled_again():
    from torch._dynamo.utils import counters

    net = mlp()
    plain = copy.deepcopy(net)
    compiled: Any = torch.compile(net, backend="eager")
    monitor = AlignmentMonitor(compiled, every=5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        losses, _ = train(compiled, 20, after=monitor.step)
        assert counters["graph_break"] == {}
    assert len(losses) == 20
    report = AlignmentMonitor(plain, every=1).step(1)
    assert monitor.latest is not None
    assert report is not None
    names = [pair.name for pair in monitor.latest.report.result.pairs]
    assert names == [pair.name for pair in report.report.result.pairs]
    assert "_orig_mod" not in "".join(monitor.latest.norms)
    assert monitor.latest.trainable == report.trainable


def test_wrappers_do_not_show_in_names():
    net = mlp()
    wrapped = AlignmentMonitor(nn.DataParallel(net), every=1).step(1)
    plain = AlignmentMonitor(net, every=1).step(1)
    assert wrapped is not None
    assert plain is not None
    assert numbers(wrapped.report) == numbers(plain.report)
    assert (wrapped.norms, wrapped.trainable) == (plain.norms, plain.trainable)


def test_steps_count_once_and_only_forwards():
    monitor = AlignmentMonitor(mlp(), every=2, only="health")
    seen = [monitor.step(step) is not None for step in (0, 1, 2, 2, 1, 3, 4, 4)]
    assert seen == [True, False, True, False, False, False, True, False]
    counted = AlignmentMonitor(mlp(), every=2, only="health")
    assert [counted.step() is not None for _ in range(4)] == [False, True, False, True]


def test_the_first_measurement_raises_and_a_later_one_is_a_gap(monkeypatch):
    from flagscope.monitor import monitor as module

    net = mlp()
    failing = AlignmentMonitor(net, every=1, only="health")
    made = module.measured

    def broken(*given: Any, **more: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setattr(module, "measured", broken)
    with pytest.raises(OSError, match="disk full"):
        failing.step(1)
    monkeypatch.setattr(module, "measured", made)
    assert failing.step(2) is not None
    monkeypatch.setattr(module, "measured", broken)
    with pytest.warns(UserWarning, match="step 3 was not measured, failed: OSError: disk full"):
        assert failing.step(3) is None
    assert failing.gaps == [(3, "failed: OSError: disk full")]


# For each argument: what is given, and what then is otherwise.
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "every": ({"every": 2}, lambda m: m.schedule.every),
    "config": ({"config": {**GPT, "n_head": 4}}, lambda m: m.latest.report.result.heads[0].count),
    "family": ({"family": "none"}, lambda m: m.latest.report.result.family),
    "heads": ({"heads": 4}, lambda m: m.latest.report.result.heads[0].count),
    "only": ({"only": "heads"}, lambda m: len(m.latest.report.result.pairs)),
    "layers": ({"layers": 0}, lambda m: len(m.latest.report.result.pairs)),
    "kinds": ({"kinds": "qk"}, lambda m: len(m.latest.report.result.pairs)),
    "depth": ({"depth": "full"}, lambda m: m.latest.report.result.settings.depth),
    "workers": ({"workers": 3}, lambda m: m.latest.report.result.run.workers),
}
ELSEWHERE = {"model", "budget", "out", "loggers", "on_alert", "device"}


def test_each_argument_is_tried():
    assert set(signature(AlignmentMonitor).parameters) == {*CASES, *ELSEWHERE}


@pytest.mark.parametrize("argument", CASES)
def test_each_argument_has_its_effect(argument):
    given, seen = CASES[argument]
    net = gpt()
    base: dict[str, Any] = {"every": 1}
    if argument == "heads":
        base = {"every": 1, "config": {"model_type": "gpt2", "n_head": 2}}
    values = []
    for more in ({}, given):
        monitor = AlignmentMonitor(net, **{**base, **more})
        monitor.step(2)
        values.append(seen(monitor))
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"every": 0}, "every is 0"),
        ({"budget": 1.5}, "budget is 1.5"),
        ({"every": 1, "budget": 0.1}, "both"),
        ({"every": 1, "device": "abacus"}, "device"),
        ({"every": 1, "only": "nothing"}, "only"),
        ({"every": 1, "family": "nothing"}, "no family"),
    ],
)
def test_wrong_arguments_are_refused_before_the_training(given, words):
    with pytest.raises(InputError, match=words):
        AlignmentMonitor(mlp(), **given)
    with pytest.raises(InputError, match=r"nn\.Module"):
        AlignmentMonitor(mlp().state_dict())  # pyright: ignore[reportArgumentType]


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor = AlignmentMonitor(mlp(), every=1)
        monitor.step(1)
    assert list(tmp_path.iterdir()) == []
    assert json.dumps(monitor.state_dict())
