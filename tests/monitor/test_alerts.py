"""Alerts: what fires, when, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.monitor_alerts import FAULTS, NEEDS, holder
from torch import nn

from flagscope.lab.gpt import GPTShape, initial_state
from flagscope.monitor import Alert
from flagscope.monitor.monitor import AlignmentMonitor
from flagscope.monitor.signs import ALERT_CODES
from monitor.nets import mlp

SHAPE = GPTShape(vocab_size=17, n_layer=2, n_head=4, n_embd=32, n_positions=8)
PARTS = ("health", "pairs", "heads")
# Measurements of a fault before the one that fires, 1 by default. Whether a block is frozen is seen
# between two measurements.
FIRST = {"not-finite": 0, "frozen-block": 2}


class Walk:
    """Weights of a GPT that take small random steps, watched."""

    def __init__(self, **settings: Any) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.state = initial_state(SHAPE, self.generator)
        self.module = holder(self.state)
        given = {"config": SHAPE.config(), "only": PARTS, "every": 1, **settings}
        self.monitor = AlignmentMonitor(self.module, **given)
        self.number = 0

    def step(self, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> list[Alert]:
        """The alerts that fire at the next measurement."""
        for weight in self.state.values():
            weight += 0.002 * torch.randn(weight.shape, generator=self.generator)
        change(self.state)
        self.number += 1
        before = len(self.monitor.alerts)
        self.monitor.step(self.number)
        return self.monitor.alerts[before:]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_when_it_persists_and_once(fault):
    plant, code, place = FAULTS[fault]
    memo: dict[str, Any] = {}
    seen: list[Alert] = []
    walk = Walk(only=NEEDS.get(code, "health"), on_alert=seen.append)
    for _ in range(4):
        assert walk.step() == []
    fired = [walk.step(lambda state: plant(state, memo)) for _ in range(4)]
    assert [bool(alerts) for alerts in fired].index(True) == FIRST.get(code, 1)
    alerts = [alert for row in fired for alert in row]
    assert {alert.code for alert in alerts} == {code}
    assert all(alert.place.startswith(place) for alert in alerts)
    assert len({alert.place for alert in alerts}) == len(alerts)
    assert seen == alerts
    assert code in ALERT_CODES


def test_maps_that_use_few_directions_have_not_collapsed():
    walk = Walk(only="pairs", kinds="mlp")
    weight = walk.state["transformer.h.1.mlp.c_fc.weight"]
    walk.step()

    def few(state: dict[str, Any]) -> None:
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        weight.copy_((u * s.new_tensor([10, 5, *[1] * (len(s) - 2)])) @ vh)

    assert [walk.step(few) for _ in range(3)] == [[]] * 3
    pair = walk.monitor.latest.report.result.pairs[1]
    assert pair.participation_write == pytest.approx(155**2 / (10**4 + 5**4 + 30), rel=1e-3)


def test_each_code_is_planted():
    # Dead ranks are planted in test_dead_lora_rank.py.
    assert {code for _, code, _ in FAULTS.values()} == set(ALERT_CODES) - {"dead-lora-rank"}


def test_a_sign_that_does_not_persist_fires_nothing_and_may_fire_later():
    plant, *_ = FAULTS["a dead head"]
    head = slice(8, 16)
    walk = Walk(only="health")
    name = "transformer.h.1.attn.c_proj.weight"
    kept = walk.state[name][head].clone()

    def back(state: dict[str, Any]) -> None:
        state[name][head] = kept

    plans = [back, lambda s: plant(s, {}), back, *[lambda s: plant(s, {})] * 3, back]
    plans += [lambda s: plant(s, {})] * 2
    assert [len(walk.step(plan)) for plan in plans] == [0, 0, 0, 0, 1, 0, 0, 0, 1]


def test_what_a_network_has_from_its_start_is_not_a_sign():
    walk = Walk()
    for fault in ("a dead head", "20 dead neurons", "a copied head", "a map of rank one"):
        FAULTS[fault][0](walk.state, {})
    kept = {name: weight.clone() for name, weight in walk.state.items()}

    def planted(state: dict[str, Any]) -> None:
        for name, weight in state.items():
            weight.copy_(1.001**walk.number * kept[name])

    assert [walk.step(planted) for _ in range(4)] == [[]] * 4


def test_weights_that_are_not_trained_and_pauses_are_not_frozen_blocks():
    walk = Walk(only="health")
    memo: dict[str, Any] = {}
    for name, weight in walk.module.named_parameters():
        weight.requires_grad_(not name.startswith("transformer.h.1."))
    plant = FAULTS["a frozen block"][0]
    assert [walk.step(lambda state: plant(state, memo)) for _ in range(4)] == [[]] * 4
    still = AlignmentMonitor(mlp(), every=1, only="health")
    for step in range(4):
        still.step(step)
    assert still.alerts == []


def test_an_alert_comes_at_the_same_step_after_a_resumption():
    plant, *_ = FAULTS["a block three times as large"]
    memo: dict[str, Any] = {}
    walk = Walk(only="health")
    for _ in range(4):
        walk.step()
    walk.step(lambda state: plant(state, memo))
    saved = json.loads(json.dumps(walk.monitor.state_dict()))
    walk.monitor = AlignmentMonitor(walk.module, every=1, only="health", config=SHAPE.config())
    walk.monitor.load_state_dict(saved)
    assert [alert.code for alert in walk.step()] == ["spike"]
    again = AlignmentMonitor(walk.module, every=1)
    again.load_state_dict(json.loads(json.dumps(walk.monitor.state_dict())))
    assert again.alerts == walk.monitor.alerts


def test_growth_that_was_seen_before_is_not_a_spike():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    monitor = AlignmentMonitor(net, every=1, only="health")
    for step in range(8):
        net[0].weight.data *= 1.5
        net[2].weight.data += 0.01
        monitor.step(step)
    assert monitor.alerts == []


def test_neurons_that_lose_their_incoming_weights_are_named_where_the_activation_is_not_known():
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    monitor = AlignmentMonitor(net, every=1, only="health")
    for step in range(6):
        for parameter in net.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
        if step >= 3:
            net[0].weight.data[:8] = 0
        monitor.step(step)
    (alert,) = monitor.alerts
    assert (alert.code, alert.step) == ("dead-neurons", 4)
    assert alert.text == (
        "8 neurons have incoming weights that are all zero, and it is not known what lies behind "
        "them; 0 before"
    )
