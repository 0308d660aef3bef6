"""The alert of rank directions that do nothing: when it fires, and when it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.monitor_alerts import holder
from torch import Tensor, nn

from flagscope.monitor import Alert
from flagscope.monitor.lora import rank_directions
from flagscope.monitor.monitor import AlignmentMonitor

ROOT = "base_model.model.layers."
A, B = (f"{ROOT}1.q_proj.lora_{side}.default.weight" for side in "AB")
State = dict[str, Tensor]


class Walk:
    """Factors of two layers that take random steps from A random and B zero, watched."""

    def __init__(self, change: Callable[[State], Any] = lambda _: None) -> None:
        self.draws = torch.Generator().manual_seed(0)
        self.state: State = {}
        for layer in range(2):
            name = f"{ROOT}{layer}.q_proj"
            self.state[f"{name}.base_layer.weight"] = torch.randn(12, 16, generator=self.draws)
            self.state[f"{name}.lora_A.default.weight"] = torch.randn(4, 16, generator=self.draws)
            self.state[f"{name}.lora_B.default.weight"] = torch.zeros(12, 4)
        change(self.state)
        self.module = holder(self.state)
        self.monitor = AlignmentMonitor(self.module, every=1, only="health")
        self.number = 0
        self.monitor.step(0)

    def step(self, change: Callable[[State], Any] = lambda _: None) -> list[Alert]:
        """The alerts that fire at the next measurement."""
        for name, factor in self.state.items():
            if "lora_" in name:
                factor += 0.01 * torch.randn(factor.shape, generator=self.draws)
        change(self.state)
        self.number += 1
        before = len(self.monitor.alerts)
        self.monitor.step(self.number)
        return self.monitor.alerts[before:]


def both_zero(state: State) -> None:
    state[A][2:], state[B][:, 2:] = 0, 0


def column_zero(state: State) -> None:
    state[B][:, 1] = 0


def row_zero(state: State) -> None:
    state[A][3] = 0


@pytest.mark.parametrize(
    ("plant", "which"),
    [(both_zero, "2–3 of 4"), (column_zero, "1 of 4"), (row_zero, "3 of 4")],
)
def test_directions_that_are_zero_are_named_once_when_it_persists(
    plant: Callable[[State], None], which: str
) -> None:
    walk = Walk()
    assert [walk.step() for _ in range(3)] == [[]] * 3
    fired = [walk.step(plant) for _ in range(4)]
    assert [len(alerts) for alerts in fired] == [0, 1, 0, 0]
    ((alert,),) = [alerts for alerts in fired if alerts]
    assert (alert.code, alert.place) == ("dead-lora-rank", f"{ROOT}1")
    assert f"{which} in {ROOT}1.q_proj" in alert.text


def test_a_deadlock_from_the_start_is_named_at_the_second_measurement() -> None:
    assert [alert.code for alert in Walk(both_zero).step(both_zero)] == ["dead-lora-rank"]


def test_a_direction_that_stands_still_is_named() -> None:
    walk = Walk()
    walk.step()
    kept = walk.state[A][2].clone(), walk.state[B][:, 2].clone()

    def still(state: State) -> None:
        state[A][2], state[B][:, 2] = kept

    fired = [walk.step(still) for _ in range(3)]
    assert [[alert.code for alert in alerts] for alerts in fired] == [[], ["dead-lora-rank"], []]


def test_the_usual_start_a_pause_and_modules_that_are_not_used_are_not_dead() -> None:
    def unused(state: State) -> None:
        state[B].zero_()  # all of B: its module is not reached, or the rate is zero

    walk = Walk()
    assert [walk.step(unused) for _ in range(4)] == [[]] * 4
    kept = {name: factor.clone() for name, factor in walk.state.items()}

    def paused(state: State) -> None:
        for name, factor in state.items():
            factor.copy_(kept[name])

    assert [walk.step(paused) for _ in range(4)] == [[]] * 4


def test_one_measurement_is_not_enough_and_factors_that_are_not_trained_are_passed_over() -> None:
    walk = Walk()

    def back(state: State) -> None:
        state[A].normal_(generator=walk.draws)
        state[B].normal_(generator=walk.draws)

    plans = [both_zero, back, both_zero, back]
    assert [walk.step(plan) for plan in plans] == [[]] * 4
    for name, factor in walk.module.named_parameters():
        factor.requires_grad_("lora_" not in name)
    assert [walk.step(both_zero) for _ in range(4)] == [[]] * 4


def test_a_rank_that_is_expanded_by_zeros_is_named_and_memory_survives_a_resumption() -> None:
    walk = Walk()
    walk.step()
    for name, factor in list(walk.state.items()):
        pad = {"A": (0, 0, 0, 2), "B": (0, 2)}.get(name.partition("lora_")[2][:1])
        if pad is not None:
            walk.state[name] = nn.functional.pad(factor, pad)
    walk.module = holder(walk.state)

    def padded(state: State) -> None:
        for name, factor in state.items():
            if "lora_" in name:
                (factor if "lora_A" in name else factor.mT)[4:] = 0

    saved = json.loads(json.dumps(walk.monitor.state_dict()))
    walk.monitor = AlignmentMonitor(walk.module, every=1, only="health")
    walk.monitor.load_state_dict(saved)
    assert walk.step(padded) == []
    saved = json.loads(json.dumps(walk.monitor.state_dict()))
    walk.monitor = AlignmentMonitor(walk.module, every=1, only="health")
    walk.monitor.load_state_dict(saved)
    alerts = walk.step(padded)
    assert [alert.place for alert in alerts] == [f"{ROOT}0", f"{ROOT}1"]
    assert all("4–5 of 6" in alert.text for alert in alerts)


def test_names_of_adapters_are_kept_apart_and_odd_factors_are_passed_over() -> None:
    state = {
        "q.lora_A.default.weight": torch.ones(2, 3), "q.lora_B.default.weight": torch.ones(4, 2),
        "q.lora_A.other.weight": torch.zeros(1, 3), "q.lora_B.other.weight": torch.zeros(4, 1),
        "e.lora_embedding_A.default": torch.zeros(2, 9),
        "e.lora_embedding_B.default": torch.ones(3, 2),
        "v.lora_A.default.weight": torch.ones(2, 3), "w.lora_B.default.weight": torch.ones(4, 2),
        "x.lora_A.default.weight": torch.ones(2, 3), "x.lora_B.default.weight": torch.ones(4, 5),
    }  # fmt: skip
    found = {one.module: (one.zero_a, one.zero_b) for one in rank_directions(state)}
    assert found == {
        "q": ([False] * 2, [False] * 2), "q (other)": ([True], [True]),
        "e": ([True] * 2, [False] * 2),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("dead", [False, True])
def test_a_training_of_peft_is_watched(dead: bool) -> None:
    peft = pytest.importorskip("peft")
    from monitor.nets import gpt

    torch.manual_seed(0)
    settings = peft.LoraConfig(target_modules=["c_attn"], r=4, fan_in_fan_out=True)
    model = peft.get_peft_model(gpt(), settings)
    if dead:
        with torch.no_grad():
            for name, factor in model.named_parameters():
                if "h.1." in name and "lora_A" in name:
                    factor[2:] = 0
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    monitor = AlignmentMonitor(model, every=1)
    tokens = torch.randint(0, 17, (4, 8), generator=torch.Generator().manual_seed(0))
    for step in range(4):
        monitor.step(step)
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    codes = [(alert.code, alert.step, alert.place.rpartition(".h.")[2]) for alert in monitor.alerts]
    assert codes == ([("dead-lora-rank", 1, "1")] if dead else [])
