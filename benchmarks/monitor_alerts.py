"""Alerts of the monitor on healthy trainings and on planted faults.

    python -m benchmarks.monitor_alerts [--seeds 5] [--planted 5]

Healthy: an MLP on scikit-learn's digits and a small GPT on text, each with SGD and with AdamW. A
healthy training is one in which nothing was planted. Planted: eight faults of the GPT under AdamW,
put into the weights at the fifth of ten measurements and again before each later one. A fault is
named where its code fires, and at its place, within five measurements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import click
import torch
from torch import Tensor, nn

import flagscope
import flagscope.monitor
from flagscope.lab.gpt import GPTShape
from flagscope.lab.gpt_training import TrainingRecipe, trained
from flagscope.lab.text import pydoc_corpus

SETTINGS: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 32}
BLOCK = "transformer.h.1."
MEASUREMENTS, PLANTED_AT = 10, 5
State = dict[str, Tensor]


def holder(state: State) -> nn.Module:
    """A module that has the tensors of a state dict as its parameters, without a copy."""
    root = nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(tensor))
    return root


def gpt_states(optimizer: Any, seed: int, steps: int) -> Iterator[tuple[int, State, GPTShape]]:
    """Live weights of a GPT at each of the measurements and at the start."""
    text = pydoc_corpus()
    shape = GPTShape(vocab_size=len(text.vocabulary), **SETTINGS)
    # Odd seeds train at rates that are high for this size.
    rate = (1 + 2 * (seed % 2)) * (3e-3 if optimizer == "adamw" else 0.1)
    recipe = TrainingRecipe(optimizer, steps, 16, rate, 0.3)
    every = steps // MEASUREMENTS
    at = range(0, steps + 1, every)
    for step, state in trained(shape, text, recipe, seed=seed, checkpoints=at):
        yield step, state, shape


def healthy_gpt(optimizer: str, seed: int, steps: int = 300) -> list[flagscope.monitor.Alert]:
    monitor = None
    for step, state, shape in gpt_states(optimizer, seed, steps):
        if monitor is None:
            monitor = flagscope.AlignmentMonitor(holder(state), every=1, config=shape.config())
        monitor.step(step)
    return [] if monitor is None else monitor.alerts


def healthy_mlp(optimizer: str, seed: int, steps: int = 2000) -> list[flagscope.monitor.Alert]:
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    x, y = (torch.tensor(array) for array in load_digits(return_X_y=True))
    x = x.float() / 16
    net = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    if optimizer == "sgd":
        rule: Any = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    else:
        rule = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    monitor = flagscope.AlignmentMonitor(net, every=steps // MEASUREMENTS)
    monitor.step(0)
    for step in range(1, steps + 1):
        rows = torch.randint(0, len(x), (64,))
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        rule.zero_grad()
        loss.backward()
        rule.step()
        monitor.step(step)
    return monitor.alerts


# Faults: each changes the weights in place; `memo` is empty at the first call --------------------


def one_nan(state: State, _: dict[str, Any]) -> None:
    state[BLOCK + "attn.c_proj.weight"][3, 4] = torch.nan


def one_infinity(state: State, _: dict[str, Any]) -> None:
    state[BLOCK + "mlp.c_fc.bias"][5] = torch.inf


def rank_one(state: State, _: dict[str, Any]) -> None:
    weight = state[BLOCK + "mlp.c_fc.weight"]
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    weight.copy_(s[0] * u[:, :1] @ vh[:1])


def dead_head(state: State, _: dict[str, Any]) -> None:
    rank = SETTINGS["n_embd"] // SETTINGS["n_head"]
    state[BLOCK + "attn.c_proj.weight"][rank : 2 * rank] = 0


def dead_neurons(state: State, _: dict[str, Any]) -> None:
    state[BLOCK + "mlp.c_proj.weight"][:20] = 0


def copied_head(state: State, _: dict[str, Any]) -> None:
    rank, width = SETTINGS["n_embd"] // SETTINGS["n_head"], SETTINGS["n_embd"]
    weight = state[BLOCK + "attn.c_attn.weight"]
    for part in range(3):
        at = part * width
        weight[:, at + rank : at + 2 * rank] = weight[:, at : at + rank]


def frozen(state: State, memo: dict[str, Any]) -> None:
    for name, weight in state.items():
        if name.startswith(BLOCK):
            weight.copy_(memo.setdefault(name, weight.clone()))


def jump(state: State, memo: dict[str, Any]) -> None:
    if memo.setdefault("first", True):
        memo["first"] = False
        for name, weight in state.items():
            if name.startswith(BLOCK):
                weight.mul_(3)


# What a measurement has to look at, where health and norms are not enough.
NEEDS: dict[str, Any] = {"rank-collapse": ("health", "pairs"), "copied-heads": ("health", "heads")}
FAULTS: dict[str, tuple[Callable[[State, dict[str, Any]], None], str, str]] = {
    "one NaN": (one_nan, "not-finite", "weights"),
    "one infinity": (one_infinity, "not-finite", "weights"),
    "a map of rank one": (rank_one, "rank-collapse", BLOCK + "mlp.c_fc.weight"),
    "a dead head": (dead_head, "dead-heads", "network"),
    "20 dead neurons": (dead_neurons, "dead-neurons", "network"),
    "a copied head": (copied_head, "copied-heads", "decoder layer 1"),
    "a frozen block": (frozen, "frozen-block", BLOCK.removesuffix(".")),
    "a block three times as large": (jump, "spike", BLOCK.removesuffix(".")),
}


def planted(fault: str, seed: int, steps: int = 100) -> tuple[int | None, list[str]]:
    """Measurements until the fault is named, if it is; and other codes that fired."""
    plant, code, place = FAULTS[fault]
    memo: dict[str, Any] = {}
    monitor, named, others = None, None, []
    for number, (step, state, shape) in enumerate(gpt_states("adamw", seed, steps)):
        if number >= PLANTED_AT:
            plant(state, memo)
        if monitor is None:
            monitor = flagscope.AlignmentMonitor(
                holder(state), every=1, config=shape.config(), only=NEEDS.get(code, "health")
            )
        before = len(monitor.alerts)
        monitor.step(step)
        for alert in monitor.alerts[before:]:
            if alert.code == code and alert.place.startswith(place):
                if named is None and number >= PLANTED_AT:
                    named = number - PLANTED_AT + 1
            else:
                others.append(f"{alert.code} {alert.place}")
    return named, others


@click.command()
@click.option("--seeds", default=5, show_default=True, help="Of each healthy training.")
@click.option("--planted", "plants", default=5, show_default=True, help="Trainings of each fault.")
def main(seeds: int, plants: int) -> None:
    runs = fired = 0
    for kind, run in (("MLP", healthy_mlp), ("GPT", healthy_gpt)):
        for optimizer in ("sgd", "adamw"):
            for seed in range(seeds):
                alerts = run(optimizer, seed)
                runs, fired = runs + 1, fired + bool(alerts)
                for alert in alerts:
                    print(f"  {kind} {optimizer} {seed}: step {alert.step} {alert.code} {alert}")
    print(f"healthy: alerts in {fired} of {runs} trainings", flush=True)
    total = Counter[bool]()
    for fault in FAULTS:
        results = [planted(fault, seed) for seed in range(plants)]
        after = [named for named, _ in results if named is not None]
        total.update(named is not None and named <= 5 for named, _ in results)
        others = Counter(other for _, more in results for other in more)
        print(f"{fault}: named in {len(after)} of {plants}, after {after} measurements; "
              f"others: {dict(others)}", flush=True)  # fmt: skip
    print(f"planted: {total[True]} of {total.total()} named within 5 measurements")


if __name__ == "__main__":
    main()
